#!/bin/bash
#PBS -N pilot
#PBS -l walltime=24:00:00
# qsub pilot.sh   For Torque; with OpenPBS or PBS Professional start batch/openpbs.sh in its place.
export X509_USER_PROXY=$HOME/pilot.proxy
exec /opt/pilot/wrappers/batch/torque.sh run --config /etc/pilot/site.yaml
