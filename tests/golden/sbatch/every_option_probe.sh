#!/bin/bash

# Parameters
#SBATCH --account=vision
#SBATCH --constraint='h100&ib'
#SBATCH --cpus-per-task=4
#SBATCH --dependency=afterok:1234_0
#SBATCH --exclude=n17
#SBATCH --exclusive
#SBATCH --gpus-per-node=2
#SBATCH --job-name=quick-probe-01234567
#SBATCH --mem=65536M
#SBATCH --no-requeue
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/STUDY/slurm/%j_0_log.out
#SBATCH --partition=small
#SBATCH --qos=high
#SBATCH --signal=USR2@300
#SBATCH --time=30

# setup
module load cuda
export NCCL_DEBUG=WARN

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /STUDY/slurm/%j_%t_log.out --cpus-per-task=4 --mpi=none env --ignore-signal=USR2 apptainer exec --nv image.sif python3 -u -m submitit.core._submit /STUDY/slurm
