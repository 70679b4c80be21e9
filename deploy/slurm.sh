#!/bin/bash
# One worker a task of a Slurm array, each on a GPU of its own:
#
#   sbatch --export=ALL,TUNER_STUDY=digits deploy/slurm.sh
#
# from the project's folder, with TUNER_STORAGE_FILE (a file that holds the database's URL) and
# TUNER_HOME (a folder that all nodes see: checkpoints) in the environment.
#SBATCH --job-name=tuner
#SBATCH --array=0-7
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@60
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=tuner-%A_%a.log
set -euo pipefail
: "${TUNER_STUDY:?names the study to work on}"
: "${TUNER_STORAGE_FILE:?names a file, readable by you alone, that holds the URL of the database}"
: "${TUNER_HOME:?names the folder of checkpoints, on a file system that all nodes share}"
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"

tuner worker start "$TUNER_STUDY" &
worker=$!
# A minute before the time limit: save the trial, and come back to the queue for the rest.
again=
trap 'again=yes; kill -TERM "$worker"' USR1
# Preempted (Slurm itself requeues the task) or cancelled (it is to end): only save the trial.
trap 'kill -TERM "$worker"' TERM
# A signal ends `wait`, but not the worker.
while kill -0 "$worker" 2>/dev/null; do wait "$worker" || true; done
code=0
wait "$worker" || code=$?
# 130: it was asked to end before the study was done.
if [ -n "$again" ] && [ "$code" = 130 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
