#!/usr/bin/env bash
# Probes MFCC statistics and untrained encoders on the instruments and pitches of Philharmonia notes and
# the digits and speakers of FSDD, and prints the tables.
#
#   run.sh DATA [OUT] [CHECKPOINT ...]    DATA/philharmonia and DATA/fsdd hold the audio
#
# Checkpoints are probed too, under the names of their files.
set -euo pipefail
data=$1 out=${2:-baselines}
shift $(($# < 2 ? $# : 2))
tasks=(philharmonia-instrument philharmonia-pitch fsdd-digit fsdd-speaker)

run() { # task, model options
  hear-tune probe "$1" --root "$data/${1%%-*}" "${@:2}" --protocol clmr-linear --seeds 0 1 2 \
    --cache "$out/cache" -o "$out/results" >>"$out/log"
}

mkdir -p "$out"
for task in "${tasks[@]}"; do
  run "$task" --baseline mfcc
  run "$task" --variant clmr
  run "$task" --variant tune+
  for checkpoint in "$@"; do
    run "$task" --model "$checkpoint"
  done
done
hear-tune probe "$out"/results/*.json
