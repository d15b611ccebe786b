#!/bin/bash
# Two workers under Slurm. From the root of a checkout that every node sees:
#   sbatch --export=ALL,DATA_DIR=/path/to/images docker/slurm.sh
# See README.md.
#SBATCH --job-name=deq_keras
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=08:00:00
# Whole nodes: the workers listen on port 8888 and up, where another job would collide with them or
# connect to them.
#SBATCH --exclusive
#SBATCH --output=deq_keras-%j.log
#SBATCH --open-mode=append
# Two minutes before the end the workers (not this script) get SIGTERM; they save and exit with 75.
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

CONFIG=${CONFIG:-experiments/configs/train_natural.py}
WORKDIR=${WORKDIR:-runs/natural}
DATA_DIR=${DATA_DIR:?name the folder that holds the images, on a file system that every node sees}
PYTHON=${PYTHON:-.venv/bin/python}
MAX_CRASHES=${MAX_CRASHES:-10}

# Slurm runs a copy of this script from another folder.
cd "${SLURM_SUBMIT_DIR:?start this with sbatch}"

# As many threads as cores; TensorFlow would start one for each that the machine has.
export TF_NUM_INTRAOP_THREADS=$SLURM_CPUS_PER_TASK
export TF_NUM_INTEROP_THREADS=$SLURM_CPUS_PER_TASK
export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
# sbatch's count does not reach srun by itself in newer versions of Slurm.
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# A pre-emption may signal this shell too. It must live to see how the workers end.
trap 'echo "SIGTERM: waiting for the workers to save."' TERM

# Without TF_CONFIG the workers find each other through Slurm's variables. A worker that ends early
# must not take the others with it: --kill-on-bad-exit=1 sends them SIGKILL after KillWait, half a
# minute, and the chief may still be saving. They notice the loss of a worker by themselves; whoever
# has not ended ten minutes after the first is killed.
unset TF_CONFIG
code=0
srun --kill-on-bad-exit=0 --wait=600 "$PYTHON" -m experiments.train \
    --config="$CONFIG" --workdir="$WORKDIR" --data_dir="$DATA_DIR" --strategy=multi_worker ||
    code=$?

# srun gives the highest of the workers' codes; trainers/process/exits.py lists them.
case $code in
0) exit 0 ;;
2 | 65 | 70 | 74 | 78)
    echo "The workers ended with $code, and would again: not queued again."
    exit "$code"
    ;;
75) echo "Stopped, with its state saved: queued again." ;;
*)
    if ((${SLURM_RESTART_COUNT:-0} >= MAX_CRASHES)); then
        echo "The workers ended with $code after $MAX_CRASHES restarts: not queued again."
        exit "$code"
    fi
    echo "The workers ended with $code: queued again, from the last checkpoint."
    ;;
esac
trap - TERM
scontrol requeue "$SLURM_JOB_ID"
# Slurm ends this script now.
sleep 60
exit "$code"
