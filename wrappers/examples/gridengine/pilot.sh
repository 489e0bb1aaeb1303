#!/bin/bash
#$ -N pilot
#$ -S /bin/bash
#$ -notify
#$ -l h_rt=24:00:00
# qsub pilot.sh   -notify is needed: without it Grid Engine kills and says nothing before.
export X509_USER_PROXY=$HOME/pilot.proxy
exec /opt/pilot/wrappers/batch/gridengine.sh run --config /etc/pilot/site.yaml
