#!/bin/bash -p
# Starts the pilot where no batch system is, or one without a wrapper of its own; shows the demonstration.
#
#   pilot-wrapper.sh run --config SITE.yaml [pilot options]    what a pilot factory submits
#   pilot-wrapper.sh demo [options]                            sets everything up and shows three payloads of two owners
#   pilot-wrapper.sh COMMAND ...                               any other command of the pilot
#
# Its environment variables, and those of the wrappers in batch/, are listed in docs/reference/wrappers.md.
BATCH=fork JOB_VARIABLES='' SCRATCH_VARIABLES='_CONDOR_SCRATCH_DIR SLURM_TMPDIR OSG_WN_TMP TMPDIR PWD'
GRACE_S=30 RESERVE_S=10 # what most batch systems leave
USR1=drain PAUSE_S=0

here=${BASH_SOURCE[0]}
case $here in */*) ;; *) here=./$here ;; esac
WRAPPERS=$(CDPATH='' cd -- "${here%/*}" && pwd -P)
PROJECT=${WRAPPERS%/*}

if [ "${1:-}" = demo ]; then
  set -u
  shift
  umask 022
  # shellcheck source=setup.bash
  . "$WRAPPERS/lib/setup.bash"
  install_packages "${TESTBED_PACKAGES[@]}"
  VENV=${PILOT_VENV:-$PROJECT/.venv}
  make_venv "$VENV" ""
  exec "$VENV/bin/python" -I -m pilot testbed demo "$@"
fi

# shellcheck source=core.bash
. "$WRAPPERS/lib/core.bash" || { echo "wrapper: cannot start: lib/core.bash is not beside $here; submit a script that executes the wrapper where it is installed" >&2; exit 84; }
wrap "$@"
