#!/bin/bash -p
# Starts the pilot in an HTCondor job, of a pool or behind an HTCondor-CE.
BATCH=htcondor JOB_VARIABLES='_CONDOR_SLOT' SCRATCH_VARIABLES='_CONDOR_SCRATCH_DIR OSG_WN_TMP TMPDIR PWD'
GRACE_S=600 RESERVE_S=60 # MachineMaxVacateTime is 600 s by default; sites often set less
USR1=drain PAUSE_S=120

here=${BASH_SOURCE[0]}
case $here in */*) ;; *) here=./$here ;; esac
WRAPPERS=$(CDPATH='' cd -- "${here%/*}/.." && pwd -P)
# shellcheck source=core.bash
. "$WRAPPERS/lib/core.bash" || { echo "wrapper: cannot start: lib/core.bash is not beside $here; submit a script that executes the wrapper where it is installed" >&2; exit 84; }
wrap "$@"
