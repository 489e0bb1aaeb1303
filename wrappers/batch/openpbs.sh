#!/bin/bash -p
# Starts the pilot in a job of OpenPBS or PBS Professional.
BATCH=openpbs JOB_VARIABLES='PBS_JOBID' SCRATCH_VARIABLES='OSG_WN_TMP TMPDIR PBS_JOBDIR PWD'
GRACE_S=10 RESERVE_S=5 # kill_delay is 10 s by default (qmgr)
USR1=drain PAUSE_S=120

here=${BASH_SOURCE[0]}
case $here in */*) ;; *) here=./$here ;; esac
WRAPPERS=$(CDPATH='' cd -- "${here%/*}/.." && pwd -P)
# shellcheck source=core.bash
. "$WRAPPERS/lib/core.bash" || { echo "wrapper: cannot start: lib/core.bash is not beside $here; submit a script that executes the wrapper where it is installed" >&2; exit 84; }
wrap "$@"
