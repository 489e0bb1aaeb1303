# Common core of the batch wrappers: one pilot in one batch slot. Sourced by a wrapper, which before that says what is special
# about its batch system:
#   BATCH              its name
#   JOB_VARIABLES      environment variables that may hold the job's id, most telling first
#   SCRATCH_VARIABLES  its own environment variables that name a scratch directory
#   GRACE_S RESERVE_S  seconds between its stop signal and SIGKILL; the part of them that is kept for the final report
#   USR1               drain; or stop, where the batch system warns of a kill by USR1
#   PAUSE_S            a slot that failed is held until this long after its start, so that a broken node does not eat jobs
# Needs bash 4.2: `wait` for one child by its number, no name references, no empty array expanded under `set -u`.
# What a factory's shell exports of its own options is not for us, nor its clock; `bash -p` keeps its functions out.
set +efC +o posix
set -u
shopt -u failglob nullglob
SECONDS=0
umask 077
ulimit -c 0
# A closed descriptor would become that of the next file that is opened, and a word for people would go there.
{ :; } 3>&2 || exec 2>/dev/null
{ :; } 2>/dev/null 3<&0 || exec </dev/null
{ :; } 2>/dev/null 3>&1 || exec >/dev/null
trap : PIPE XFSZ # a word that nobody reads, or that a full log does not take, is no reason to end before all is cleaned
unset BASH_ENV ENV CDPATH GLOBIGNORE POSIXLY_CORRECT TAR_OPTIONS LD_PRELOAD LD_AUDIT SSL_CERT_FILE SSL_CERT_DIR CURL_CA_BUNDLE
IFS=$' \t\n'
export LC_ALL=C

CODE_SOURCE=64 CODE_SCRATCH=66 CODE_USAGE=84 CODE_STOPPED=94 CODE_RELEASE=73 CODE_PREFLIGHT=75 CODE_PYTHON=76

PROJECT=${WRAPPERS%/*} # empty in a single-file wrapper
# shellcheck source=place.bash
. "$WRAPPERS/lib/place.bash"
# shellcheck source=software.bash
. "$WRAPPERS/lib/software.bash"
# shellcheck source=report.bash
. "$WRAPPERS/lib/report.bash"

say() { printf 'wrapper: %s\n' "$*" >&2; }

# sane_path: keeps the absolute directories of PATH, adds the system's
sane_path() {
  local part clean='' rest=${PATH:-}:
  while [ -n "$rest" ]; do
    part=${rest%%:*} rest=${rest#*:}
    case $part in /*) clean=$clean$part: ;; esac
  done
  export PATH=${clean}/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
}

# plain TEXT: the text if it is short and harmless in a log line or URL, else nothing
plain() {
  local pattern='^[A-Za-z0-9._:,@+/=-]{1,200}$'
  if [[ $1 =~ $pattern ]]; then printf '%s' "$1"; fi
}

# banner: which wrapper, slot and factory this is, if there is anything to tell; chosen names only, never the whole environment
banner() {
  local name value text=''
  for name in $JOB_VARIABLES GRID_GLOBAL_JOBID PANDA_JSID GTAG APFFID APFCID FACTORYQUEUE HARVESTER_ID HARVESTER_WORKER_ID; do
    value=$(plain "${!name:-}")
    if [ -n "$value" ]; then text="$text $name=$value"; fi
  done
  if [ "$BATCH" != fork ] || [ -n "$text" ]; then say "$BATCH on $(plain "${HOSTNAME:-}") pid $$$text"; fi
}

got='' pid='' helper=''
on_signal() {
  got=${got:-$1}
  if [ -n "$pid" ]; then kill -s "$1" "$pid" 2>/dev/null; fi
  if [ -n "$helper" ]; then kill -s TERM "$helper" 2>/dev/null; fi
}

# attend COMMAND...: runs it with nothing on stdin; a signal to the wrapper ends it at once
attend() {
  local rc
  if [ -n "$got" ]; then return 143; fi
  "$@" </dev/null &
  helper=$!
  if [ -n "$got" ]; then kill -s TERM "$helper" 2>/dev/null; fi
  while kill -0 "$helper" 2>/dev/null; do wait "$helper"; done
  wait "$helper"
  rc=$?
  helper=''
  return "$rc"
}

# preflight ARGUMENTS OF RUN...: `pilot check` with the same configuration, before anything is claimed
preflight() {
  local word before='' code settings=(check --preflight "${limits[@]}")
  for word in "$@"; do
    case $before in --config | --set | --default) settings+=("$before" "$word") ;; esac
    case $word in --config=* | --set=* | --default=*) settings+=("$word") ;; esac
    before=$word
  done
  attend "${pilot[@]}" "${settings[@]}" >&2
  code=$?
  if [ "$code" -ne 0 ] && [ "$code" -ne 1 ]; then
    fail "$CODE_PREFLIGHT" "the slot is not fit for a pilot: pilot check --preflight ended with exit code $code, see above; correct what it names"
  fi
}

# result CODE ERROR MESSAGE REASON: the last line of stdout where the pilot did not write it
result() {
  local text=${3//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//[^[:print:]]/?} # of ASCII, as LC_ALL says
  printf 'pilot-result {"exit_code": %d, "error": "%s", "message": "%s", "signal": "%s", "reason": "%s", "payloads": []}\n' \
    "$1" "$2" "$text" "$got" "$4"
}

# leave_mapped CODE: leaves with what the factory is told; see --exit-profile of `pilot run`
leave_mapped() {
  if [ "$profile" != harvester ]; then leave "$1" "$1"; fi
  case $1 in
    0 | "$CODE_STOPPED") leave "$1" 0 ;;
    "$CODE_SOURCE" | 80) leave "$1" "$1" ;;
    *) leave "$1" 1 ;;
  esac
}

# fail CODE MESSAGE: there will be no pilot; a step that a stop signal ended is no failure
fail() {
  if [ -n "$got" ]; then stopped; fi
  say "$2"
  result "$1" WrapperError "$2" wrapper
  leave_mapped "$1"
}

stopped() {
  if [ "$got" = USR1 ] && [ "$USR1" = drain ]; then
    result 0 "" "" drained
    leave 0 0
  fi
  say "told to stop by SIG$got before the pilot was started"
  result "$CODE_STOPPED" StoppedError "told to stop by SIG$got before the pilot was started" "SIG$got"
  leave_mapped "$CODE_STOPPED"
}

# leave NATIVE MAPPED: cleans, tells the factory, holds a slot that failed at once, ends
leave() {
  clean
  report_end "$2"
  if [ "$1" -ne 0 ] && [ "$1" -ne "$CODE_STOPPED" ] && [ -z "$got" ] && [ "$SECONDS" -lt "$PAUSE_S" ]; then
    say "exit code $1 after $SECONDS s: holding the slot for $((PAUSE_S - SECONDS)) s, so that a broken node does not eat jobs"
    attend sleep "$((PAUSE_S - SECONDS))"
  fi
  exit "$2"
}

# number NAME VALUE: the variable's value must be a whole number
number() {
  local pattern='^(0|[1-9][0-9]{0,6})$'
  if [[ $2 =~ $pattern ]]; then return; fi
  PAUSE_S=0
  fail "$CODE_USAGE" "cannot use $1=$(plain "$2"): it is not a whole number; correct it"
}

wrap() {
  local signal word before='' limits=(--default "lifetime.batch_grace_s=$GRACE_S" --default "lifetime.reserve_s=$RESERVE_S" --default "lifetime.usr1=$USR1")
  profile=native
  for word in "$@"; do
    if [ "$word" = --exit-profile=harvester ] || [ "$before $word" = '--exit-profile harvester' ]; then profile=harvester; fi
    before=$word
  done
  sane_path
  PAUSE_S=${PILOT_START_PAUSE_S:-$PAUSE_S}
  SCRATCH_MB=${PILOT_SCRATCH_MB:-500} SCRATCH_INODES=${PILOT_SCRATCH_INODES:-1000}
  number PILOT_START_PAUSE_S "$PAUSE_S"
  number PILOT_SCRATCH_MB "$SCRATCH_MB"
  number PILOT_SCRATCH_INODES "$SCRATCH_INODES"
  case ${PILOT_PREFLIGHT:-no} in
    yes | no) ;;
    *)
      PAUSE_S=0
      fail "$CODE_USAGE" "cannot use PILOT_PREFLIGHT=$(plain "$PILOT_PREFLIGHT"): it is neither yes nor no; correct it"
      ;;
  esac
  if [ "${1:-}" != run ]; then
    choose_software
    exec "${pilot[@]}" "$@"
  fi
  shift
  # Set before anything exists that a signal could leave behind. The pilot decides what a signal means.
  for signal in TERM INT QUIT HUP XCPU USR1 USR2; do
    # shellcheck disable=SC2064 # the name is known now
    trap "on_signal $signal" "$signal"
  done
  banner
  report_start
  choose_scratch
  choose_software
  if [ "${PILOT_PREFLIGHT:-no}" = yes ]; then preflight "$@"; fi
  if [ -n "$got" ]; then stopped; fi
  {
    trap - INT QUIT # which bash ignores in what it starts in the background
    exec "${pilot[@]}" run "${limits[@]}" --run-dir "$run" "$@"
  } &
  pid=$!
  if [ -n "$got" ]; then kill -s "$got" "$pid" 2>/dev/null; fi
  # A trapped signal ends `wait` early; only a wait for a pilot that is gone tells its own exit code.
  while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done
  wait "$pid"
  code=$?
  pid=''
  # A pilot that has begun answers a signal with a code of its own. -1: bash 5.2 loses the status of a child that the same signal
  # ended at the same moment.
  case $got:$code in
    TERM:143 | INT:130 | QUIT:131 | HUP:129 | XCPU:152 | USR1:138 | USR2:140 | *:-1) stopped ;;
  esac
  if [ "$code" -gt 128 ]; then
    say "the pilot was ended by signal $((code - 128)) without a word of its own"
    result "$code" PilotKilled "the pilot was ended by signal $((code - 128))" killed
    leave_mapped "$code"
  fi
  leave "$code" "$code"
}
