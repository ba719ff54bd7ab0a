#!/usr/bin/env bash
# Stage one as a Slurm array, each job a share of the shards, and a last job that checks all seals and writes the manifests:
#
#   jobs=8
#   export JOBS=$jobs  # of how many shares each job does one, however many are sent at once
#   array=$(sbatch --parsable --array=0-$((jobs - 1)) data/examples/slurm_array.sh --data big --tasks cola)
#   sbatch --dependency=afterany:$array --export=ALL,FINISH=1 data/examples/slurm_array.sh --data big --tasks cola
#
# The last job names the shards that are missing, if any are: shard 11 of 8 shares is of job 3, which is sent again with
# `sbatch --array=3 …`, and then the last job.
#
# The cache lies on a file system that all nodes share and that has POSIX locks (`pipeline doctor` tries them). Jobs may
# overlap, die and be sent again: what is sealed stays, what is not is computed again, and the last job names what is
# missing. Without Slurm, set SLURM_ARRAY_TASK_ID and JOBS, or the like of your queue.
#SBATCH --job-name=features
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=48G
#SBATCH --time=04:00:00
#SBATCH --requeue
set -euo pipefail

pipeline=${PIPELINE:-.venv/bin/pipeline}
if [ -n "${FINISH:-}" ]; then
    exec "$pipeline" extract "$@" --finish
fi
exec "$pipeline" extract "$@" --only-shards "${SLURM_ARRAY_TASK_ID:?}::${JOBS:-${SLURM_ARRAY_TASK_COUNT:?}}"
