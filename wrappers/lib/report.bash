# Reports of start and end to the factory. Part of the core; sourced, not run. Bounded in time, never fatal, over verified https.
#
# Servers are trusted by the system's CAs and those in X509_CERT_DIR.
# PILOT_REPORT: none | apf-1 | apf-2 | harvester. Default: apf-2 where APFMON is set, else none.
#   apf-1      GET  ${APFMON}rn/APFFID/APFCID/           ${APFMON}ex/APFFID/APFCID/CODE      (wrapper 0.9 of AutoPyFactory)
#   apf-2      POST ${APFMON}/jobs/APFFID:APFCID         state=running | state=exiting, rc=CODE
#   harvester  POST ${PILOT_REPORT_URL}/pilot/update_worker_status as the pilot's proxy (PanDA's REST protocol v1)

reporter=''

# tell TIMEOUT ARGUMENT...: curl in the background, its process id in $reporter
tell() {
  local limit=$1 trust=${X509_CERT_DIR:-/etc/grid-security/certificates}
  shift
  command -v curl >/dev/null || { say 'no report to the factory: curl is not installed'; return 1; }
  curl -q -fsS --proto '=https' --noproxy '*' --capath "$trust" --max-time "$limit" "$@" </dev/null >/dev/null 2>&1 &
  reporter=$!
}

# id NAME: sets $id to the variable's value, if it is harmless in a URL
id_of() {
  local pattern='^[A-Za-z0-9._-]{1,100}$'
  id=${!1:-}
  [[ $id =~ $pattern ]] || { say "no report to the factory: $1 is missing or holds unusual characters"; return 1; }
}

# report TIMEOUT STATE CODE
report() {
  local first='' id='' base pattern='^https://[A-Za-z0-9._:/%-]{1,300}$' kind=${PILOT_REPORT:-}
  if [ -z "$kind" ]; then if [ -n "${APFMON:-}" ]; then kind=apf-2; else kind=none; fi; fi
  case $kind in
    none) return ;;
    apf-1 | apf-2) base=${APFMON:-} ;;
    harvester) base=${PILOT_REPORT_URL:-} ;;
    *) say "no report to the factory: PILOT_REPORT is none of none, apf-1, apf-2, harvester"; return ;;
  esac
  [[ $base =~ $pattern ]] || { say 'no report to the factory: its address is not an https URL'; return; }
  if [ "$kind" = harvester ]; then report_harvester "$@"; return; fi
  id_of APFFID && first=$id && id_of APFCID || return
  case $kind:$2 in
    apf-1:running) tell "$1" "${base%/}/rn/$first/$id/" ;;
    apf-1:*) tell "$1" "${base%/}/ex/$first/$id/$3" ;;
    apf-2:running) tell "$1" --data state=running "${base%/}/jobs/$first:$id" ;;
    *) tell "$1" --data state=exiting --data "rc=$3" "${base%/}/jobs/$first:$id" ;;
  esac
}

report_harvester() {
  local harvester state=started node proxy=${X509_USER_PROXY:-/tmp/x509up_u$UID} number='^[0-9]{1,18}$'
  if [ "$2" != running ]; then state=finished; fi
  id_of HARVESTER_ID && harvester=$id && id_of HARVESTER_WORKER_ID || return
  [[ $id =~ $number ]] || { say 'no report to the factory: HARVESTER_WORKER_ID is not a number'; return; }
  node=$(plain "${HOSTNAME:-unknown}")
  tell "$1" --cert "$proxy" --key "$proxy" --header 'Content-Type: application/json' --header 'Accept: application/json' \
    --data "{\"worker_id\": $id, \"harvester_id\": \"$harvester\", \"status\": \"$state\", \"node_id\": \"$node\"}" \
    "${PILOT_REPORT_URL%/}/pilot/update_worker_status"
}

report_start() { report 10 running 0; }

# report_end CODE: one attempt of at most 1.5 s, with the start report given up if it is still on its way
report_end() {
  if [ -n "$reporter" ]; then kill "$reporter" 2>/dev/null; fi
  reporter=''
  report 1.5 exiting "$1"
  if [ -n "$reporter" ]; then wait "$reporter" 2>/dev/null; fi
}
