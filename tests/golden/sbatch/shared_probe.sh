#!/bin/bash

# Parameters
#SBATCH --cpus-per-task=8
#SBATCH --dependency=afterok:1234_0
#SBATCH --gpus-per-node=4
#SBATCH --job-name=quick-probe-01234567
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=/STUDY/slurm/%j_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=240

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /STUDY/slurm/%j_%t_log.out --kill-on-bad-exit=1 --cpus-per-task=8 env --ignore-signal=USR2 /VENV/bin/python -u -m submitit.core._submit /STUDY/slurm
