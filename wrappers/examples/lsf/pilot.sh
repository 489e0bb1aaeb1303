#!/bin/bash
#BSUB -J pilot
#BSUB -W 24:00
#BSUB -o pilot.%J.out
#BSUB -e pilot.%J.err
# bsub < pilot.sh
export X509_USER_PROXY=$HOME/pilot.proxy
exec /opt/pilot/wrappers/batch/lsf.sh run --config /etc/pilot/site.yaml
