#!/bin/bash
# One experiment as a Slurm job: Ray on every node of the allocation, the driver on the first, everything ended at the end.
#   sbatch experiments/cluster/slurm.sh experiments/quickstart.yaml [options of `harness run`]
# Submit it from the root of the repository, with the virtual environment and cluster.env there, on a shared disk.
#SBATCH --job-name=harness
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --exclusive
#SBATCH --time=08:00:00
#SBATCH --requeue
##SBATCH --gpus-per-node=4           # for GPUs: remove one #, and `resources: {gpus: 1}` in the experiment
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:?submit it with sbatch}"
# shellcheck disable=SC1091 # they are on the cluster
. .venv/bin/activate
set -a
# shellcheck disable=SC1091
. ./cluster.env                      # HARNESS_STORE, MLFLOW_TRACKING_URI, ...
set +a
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')   # of this job alone; srun hands it on

# This script runs on the first node; HEAD_ADDRESS chooses another of its network interfaces.
head=${HEAD_ADDRESS:-$(hostname -I | cut -d' ' -f1)}
port=$((20000 + SLURM_JOB_ID % 10000))

# Starts Ray on all nodes, runs the command on the head once all have joined, then stops Ray. --exclusive matters: it
# stops every Ray of yours on these nodes.
srun ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "${SLURM_GPUS_ON_NODE:-0}" -- \
  harness run "$@" --address "$head:$port"
