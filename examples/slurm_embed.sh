#!/bin/bash
# Embed the planet with one GPU per task of a Slurm array:
#
#   IMAGES=/data/ctx-tiles STORE=/data/ctx.store MODEL=marscope sbatch examples/slurm_embed.sh
#
# Task i of n embeds every n-th shard; the tasks need not run at the same time nor on the same
# machine, but all need IMAGES and STORE at these paths. A task that is killed or requeued resumes.
# When all have ended, run the same command without --shard: it embeds what is missing, if anything.
#SBATCH --job-name=mars-embed
#SBATCH --array=1-8
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=12
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --requeue
set -euo pipefail

: "${IMAGES:?folder with the tiles}" "${STORE:?folder of the store}" "${MODEL:?model}"

first=${SLURM_ARRAY_TASK_MIN:?run this with sbatch, as an array}
part=$((SLURM_ARRAY_TASK_ID - first + 1))

exec marsretrieval embed --model "$MODEL" --images "$IMAGES" --store "$STORE" \
  --shard "$part/$SLURM_ARRAY_TASK_COUNT" --device cuda --offline
