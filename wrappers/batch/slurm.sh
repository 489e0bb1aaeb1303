#!/bin/bash -p
# Starts the pilot in a Slurm job. Slurm copies batch scripts, so execute this one from yours (see examples/slurm).
BATCH=slurm JOB_VARIABLES='SLURM_JOB_ID SLURM_ARRAY_TASK_ID SLURM_RESTART_COUNT' SCRATCH_VARIABLES='SLURM_TMPDIR OSG_WN_TMP TMPDIR PWD'
GRACE_S=30 RESERVE_S=10 # KillWait is 30 s by default (slurm.conf); limit, scancel, requeue and preemption send CONT and TERM
USR1=drain PAUSE_S=120

here=${BASH_SOURCE[0]}
case $here in */*) ;; *) here=./$here ;; esac
WRAPPERS=$(CDPATH='' cd -- "${here%/*}/.." && pwd -P)
# shellcheck source=core.bash
. "$WRAPPERS/lib/core.bash" || { echo "wrapper: cannot start: lib/core.bash is not beside $here; submit a script that executes the wrapper where it is installed" >&2; exit 84; }
wrap "$@"
