#!/bin/bash
# For factories in the way of glideinWMS, which run scripts of their own in a slot and read an exit code: one payload, no report.
export PILOT_REPORT=none PILOT_START_PAUSE_S=1200
exec "${PILOT_HOME:?names the unpacked release}/wrappers/batch/htcondor.sh" run --config "${1:?the site configuration}" \
  --set lifetime.max_payloads=1
