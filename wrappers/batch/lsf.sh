#!/bin/bash -p
# Starts the pilot in an LSF job.
BATCH=lsf JOB_VARIABLES='LSB_JOBID LSB_JOBINDEX' SCRATCH_VARIABLES='OSG_WN_TMP TMPDIR PWD'
GRACE_S=20 RESERVE_S=8 # bkill: INT, 10 s later TERM, 10 s later KILL; RUNLIMIT sends USR2
USR1=stop PAUSE_S=120

here=${BASH_SOURCE[0]}
case $here in */*) ;; *) here=./$here ;; esac
WRAPPERS=$(CDPATH='' cd -- "${here%/*}/.." && pwd -P)
# shellcheck source=core.bash
. "$WRAPPERS/lib/core.bash" || { echo "wrapper: cannot start: lib/core.bash is not beside $here; submit a script that executes the wrapper where it is installed" >&2; exit 84; }
wrap "$@"
