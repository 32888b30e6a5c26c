#!/bin/bash

# Parameters
#SBATCH --account=vision
#SBATCH --array=0-23%3
#SBATCH --constraint='h100&ib'
#SBATCH --cpus-per-task=12
#SBATCH --exclude=n17
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --job-name=quick-train-01234567
#SBATCH --mem=922112M
#SBATCH --no-requeue
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output=/STUDY/slurm/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=high
#SBATCH --signal=USR2@300
#SBATCH --time=600

# setup
module load cuda
export NCCL_DEBUG=WARN

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /STUDY/slurm/%A_%a_%t_log.out --kill-on-bad-exit=1 --cpus-per-task=12 --mpi=none env --ignore-signal=USR2 apptainer exec --nv image.sif python3 -u -m submitit.core._submit /STUDY/slurm
