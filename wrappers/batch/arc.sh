#!/bin/bash -p
# Starts the pilot in a job of an ARC computing element, whatever batch system is behind it.
BATCH=arc JOB_VARIABLES='GRID_GLOBAL_JOBID GRID_GLOBAL_JOBHOST' SCRATCH_VARIABLES='OSG_WN_TMP TMPDIR PWD'
GRACE_S=5 RESERVE_S=2 # the fork back end waits 5 s between TERM and KILL; others have the grace of their batch system
USR1=stop PAUSE_S=120

here=${BASH_SOURCE[0]}
case $here in */*) ;; *) here=./$here ;; esac
WRAPPERS=$(CDPATH='' cd -- "${here%/*}/.." && pwd -P)
# shellcheck source=core.bash
. "$WRAPPERS/lib/core.bash" || { echo "wrapper: cannot start: lib/core.bash is not beside $here; submit a script that executes the wrapper where it is installed" >&2; exit 84; }
wrap "$@"
