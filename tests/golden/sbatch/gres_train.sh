#!/bin/bash

# Parameters
#SBATCH --array=0-1%2
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:h100:8
#SBATCH --job-name=quick-train-01234567
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output=/STUDY/slurm/%A_%a_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=1-00:00:00

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /STUDY/slurm/%A_%a_%t_log.out --kill-on-bad-exit=1 --cpus-per-task=8 env --ignore-signal=USR2 /VENV/bin/python -u -m submitit.core._submit /STUDY/slurm
