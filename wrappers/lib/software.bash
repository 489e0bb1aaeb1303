# The pilot's software: which interpreter, which copy of the pilot. Part of the core; sourced, not run.
#
# In this order: PILOT_RELEASE (a release file, as path or URL, with PILOT_RELEASE_SHA256), PILOT_HOME (an unpacked release in a
# local or CVMFS directory), the release that this wrapper is part of, an installed copy (PILOT_PYTHON, the project's .venv, python3).

LONGEST_DOWNLOAD_S=300
LARGEST_RELEASE=200000000

FIT=42 # exit code of an interpreter that is fit: no other program ends so by chance

# find_python CODE: sets $python to the first interpreter in which the Python statements CODE end with FIT
find_python() {
  local candidate candidates=(python3.11 python3.12 python3.13 python3)
  if [ -n "$PROJECT" ] && [ -x "$PROJECT/.venv/bin/python" ]; then candidates=("$PROJECT/.venv/bin/python" "${candidates[@]}"); fi
  if [ -n "${PILOT_PYTHON:-}" ]; then candidates=("$PILOT_PYTHON"); fi
  for candidate in "${candidates[@]}"; do
    python=$(command -v -- "$candidate") || continue
    attend timeout -k 5 60 "$python" -I -c "$1" >/dev/null 2>&1
    if [ $? -eq "$FIT" ]; then return; fi
  done
  python=''
  return 1
}

# use_home DIR: the release unpacked in DIR
use_home() {
  # A dead network file system hangs: asked with a time limit.
  attend timeout -k 5 30 test -f "$1/app/__main__.py" || fail "$CODE_SOURCE" "cannot find the pilot in $1: no release is there, or its file system is away"
  find_python "import sys; sys.exit($FIT * (sys.version_info[:2] == (3, 11)))" ||
    fail "$CODE_PYTHON" "cannot start the pilot: no Python 3.11 found${PILOT_PYTHON:+ (PILOT_PYTHON is $PILOT_PYTHON)}; install python3.11 or set PILOT_PYTHON"
  pilot=("$python" -I -S -B -X utf8 "$1/app")
}

use_installed() {
  local checkout=''
  if [ -z "${PILOT_PYTHON:-}" ] && [ -f "$PROJECT/pyproject.toml" ]; then checkout='; in a checkout the command "demo" installs it'; fi
  find_python $'import sys\nif sys.version_info >= (3, 11): import pilot.cli.main; '"sys.exit($FIT)" ||
    fail "$CODE_PYTHON" "cannot start the pilot: no Python 3.11 or newer in which it is installed${PILOT_PYTHON:+ (PILOT_PYTHON is $PILOT_PYTHON)}; set PILOT_PYTHON, PILOT_HOME or PILOT_RELEASE$checkout"
  pilot=("$python" -I -X utf8 -m pilot)
}

# bounded COMMAND...: no file that it writes is larger than a release may be, whatever a server sends
bounded() {
  ulimit -f "$((LARGEST_RELEASE / 1024))" 2>/dev/null
  exec "$@"
}

# fetch SOURCE FILE: a copy of our own, so that what is verified is what is unpacked
fetch() {
  case $1 in
    https://* | http://*)
      # Plain http is allowed: the digest decides. Nothing comes from the environment or from ~/.curlrc.
      attend bounded curl -q -fsSL --proto '=https,http' --proto-redir '=https,http' --max-redirs 5 --noproxy '*' --connect-timeout 20 --capath "${X509_CERT_DIR:-/etc/grid-security/certificates}" \
        --max-time "$LONGEST_DOWNLOAD_S" --max-filesize "$LARGEST_RELEASE" -o "$2" -- "$1"
      ;;
    /*) attend bounded timeout "$LONGEST_DOWNLOAD_S" cp -- "$1" "$2" ;;
    *) false ;;
  esac
}

# use_release SOURCE DIGEST: copied, verified, unpacked beside its place, moved into place in one step
use_release() {
  local pattern='^[0-9a-f]{64}$' sum='' name
  if ! [[ $2 =~ $pattern ]]; then
    fail "$CODE_USAGE" "cannot use PILOT_RELEASE without its digest; set PILOT_RELEASE_SHA256 to the 64 hexadecimal digits of its SHA-256"
  fi
  make_private "${run%/*}" pilot-software || fail "$CODE_SCRATCH" "cannot make a directory for the release in ${run%/*}"
  software=$made
  fetch "$1" "$software/file" || fail "$CODE_SOURCE" "cannot fetch the release $1; look whether it is there"
  sum=$(sha256sum <"$software/file")
  if [ "${sum%% *}" != "$2" ]; then
    fail "$CODE_RELEASE" "cannot use the release $1: its SHA-256 is ${sum%% *}, pinned is $2; nothing of it was unpacked"
  fi
  mkdir "$software/part" && attend tar -xzf "$software/file" --no-same-owner -C "$software/part" ||
    fail "$CODE_RELEASE" "cannot unpack the release $1 in $software; look at its free space"
  rm -f -- "$software/file"
  for name in "$software"/part/*; do break; done
  mv -- "$name" "$software/home" || fail "$CODE_RELEASE" "cannot unpack the release $1 in $software; look at its free space"
  use_home "$software/home"
}

choose_software() {
  if [ -n "${PILOT_RELEASE:-}" ] && [ -n "${PILOT_HOME:-}" ]; then
    fail "$CODE_USAGE" "cannot use both PILOT_RELEASE and PILOT_HOME; unset one of them"
  elif [ -n "${PILOT_RELEASE:-}" ] && [ -z "$run" ]; then
    fail "$CODE_USAGE" "cannot use PILOT_RELEASE for this command; unpack the release and set PILOT_HOME"
  elif [ -n "${PILOT_RELEASE:-}" ]; then
    use_release "$PILOT_RELEASE" "${PILOT_RELEASE_SHA256:-}"
  elif [ -n "${PILOT_HOME:-}" ]; then
    use_home "$PILOT_HOME"
  elif [ -n "$PROJECT" ] && [ -f "$PROJECT/app/__main__.py" ]; then
    use_home "$PROJECT"
  else
    use_installed
  fi
}
