#!/bin/sh
#SBATCH --job-name=gapbench
#SBATCH --array=1-64
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=4G
#SBATCH --time=04:00:00
# 64 shards of one suite into one folder, which all nodes must see:
#   sbatch docs/cluster/slurm_array.sh uci /shared/results/uci
# At the end, `gapbench run --suite uci --out /shared/results/uci` completes what a lost shard left.
set -eu
suite=$1
out=$2
exec gapbench run --suite "$suite" --jobs 1 --memory 3G --out "$out" \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
