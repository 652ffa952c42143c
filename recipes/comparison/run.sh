#!/usr/bin/env bash
# Trains TUNE+, Tail+5 and CLMR's encoder identically, with three seeds each, and probes them beside
# untrained encoders and MFCC statistics. Run it again to resume.
#
#   run.sh WORK DATA
#
# WORK has the stores that ../weights/clmr.sh builds; runs and results go there too. DATA/philharmonia and
# DATA/fsdd hold the audio for the probes.
set -euo pipefail
work=$1 data=$2
here=$(cd "$(dirname "$0")" && pwd)
tasks=(philharmonia-instrument philharmonia-pitch fsdd-digit)
audio="[$work/game_music/store, $work/game_music_extra/store, $work/solo/store, $work/speech/store]"

probe() { # model options
  for task in "${tasks[@]}"; do
    hear-tune probe "$task" --root "$data/${task%%-*}" "$@" --cache "$work/cache" -o "$work/comparison/results"
  done
}

for variant in tune+ tune-tail+5 clmr; do
  probe --variant "$variant"
  for seed in 1 2 3; do
    run="$work/comparison/$variant-$seed"
    hear-tune pretrain --config "$here/pretrain.yaml" --model.variant "$variant" --data.seed "$seed" \
      --data.audio "$audio" --output "$run"
    probe --model "$run/last.safetensors" --name "$variant, seed $seed"
  done
done
probe --baseline mfcc
for variant in tune+ tune-tail+5; do
  hear-tune probe philharmonia-instrument --root "$data/philharmonia" --protocol layers \
    --model "$work/comparison/$variant-1/last.safetensors" --name "$variant, seed 1" \
    --cache "$work/cache" -o "$work/comparison/layers"
done
hear-tune probe "$work"/comparison/results/*.json
