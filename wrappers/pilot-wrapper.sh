#!/usr/bin/env bash
# Starts the pilot in a batch slot: private run directory, signals forwarded, the pilot's exit code kept, nothing left.
#
#   pilot-wrapper.sh run --config SITE.yaml [pilot options]    what a pilot factory submits
#   pilot-wrapper.sh demo [options]                            sets everything up and shows three payloads of two owners
#
# Environment: PILOT_PYTHON      a Python in which the pilot is installed (default: the project's .venv, else python3)
#              PILOT_SCRATCH     where the run directory is made (default: the batch system's scratch, TMPDIR, here)
set -u
umask 077
HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
PROJECT=$(dirname -- "$HERE")

if [ "${1:-}" = demo ]; then
  shift
  umask 022
  . "$HERE/lib/setup.bash"
  install_packages "${TESTBED_PACKAGES[@]}"
  VENV=${PILOT_VENV:-$PROJECT/.venv}
  make_venv "$VENV" ""
  exec "$VENV/bin/python" -I -m pilot testbed demo "$@"
fi

python=${PILOT_PYTHON:-}
if [ -z "$python" ]; then
  for python in "$PROJECT/.venv/bin/python" python3; do command -v "$python" >/dev/null && break; done
fi
command -v "$python" >/dev/null || { echo "cannot start the pilot: no Python found; set PILOT_PYTHON" >&2; exit 75; }
if [ "${1:-}" != run ]; then exec "$python" -I -m pilot "$@"; fi
shift

run= pid= got=
# Set before anything exists that a signal could leave behind. The pilot decides what a signal means.
for signal in TERM INT QUIT HUP XCPU USR1; do
  # shellcheck disable=SC2064 # the name is known now
  trap "got=$signal; [ -z \"\$pid\" ] || kill -s $signal \"\$pid\" 2>/dev/null" "$signal"
done
for scratch in "${PILOT_SCRATCH:-}" "${_CONDOR_SCRATCH_DIR:-}" "${SLURM_TMPDIR:-}" "${OSG_WN_TMP:-}" "${TMPDIR:-}" "$PWD"; do
  [ -n "$scratch" ] && run=$(mktemp -d "$scratch/pilot-XXXXXXXXXX" 2>/dev/null) && break
done
[ -n "$run" ] || { echo "cannot start the pilot: no scratch directory is writable; set PILOT_SCRATCH" >&2; exit 66; }

"$python" -I -m pilot run --run-dir "$run" "$@" &
pid=$!
[ -z "$got" ] || kill -s "$got" "$pid" 2>/dev/null
# A trapped signal ends `wait` early; only a wait for a pilot that is gone tells its own exit code.
while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done
wait "$pid"
code=$?
# After an orderly end nothing is there. After SIGKILL of the pilot its private files are; the far side cleans the owner's side.
swept() {
  rm -rf -- "$run"/farside-*
  rmdir -- "$run"/payload-*/work "$run"/payload-* "$run" 2>/dev/null
  [ ! -e "$run" ]
}
rm -rf -- "$run/pilot"
if ! swept && [ "$code" -gt 128 ]; then
  # The far side is no child of ours, so its end cannot be waited for: looked for, 10 s at most.
  for _ in {1..50}; do sleep 0.2; swept && break; done
fi
exit "$code"
