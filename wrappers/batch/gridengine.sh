#!/bin/bash -p
# Starts the pilot in a Grid Engine job. Submit with -notify: without it Grid Engine sends SIGKILL and nothing before it.
BATCH=gridengine JOB_VARIABLES='JOB_ID SGE_TASK_ID' SCRATCH_VARIABLES='OSG_WN_TMP TMPDIR PWD'
GRACE_S=60 RESERVE_S=15 # the notify time of a queue is 60 s by default; USR1 (s_rt, suspend) and USR2 (kill) announce the end
USR1=stop PAUSE_S=120

here=${BASH_SOURCE[0]}
case $here in */*) ;; *) here=./$here ;; esac
WRAPPERS=$(CDPATH='' cd -- "${here%/*}/.." && pwd -P)
# shellcheck source=core.bash
. "$WRAPPERS/lib/core.bash" || { echo "wrapper: cannot start: lib/core.bash is not beside $here; submit a script that executes the wrapper where it is installed" >&2; exit 84; }
wrap "$@"
