#!/usr/bin/env bash
# Trains TUNE+, Tail+5 and CLMR's encoder identically, by CLMR alone and with the acoustic objective beside
# it, and probes every layer, beside those of untrained encoders, and MFCC statistics. All models of one
# seed come before the next seed. Run it again to resume.
#
#   run.sh WORK DATA [SEED...]
#
# WORK has the stores that ../weights/corpora.sh builds; runs and results go there too. DATA/philharmonia and
# DATA/fsdd hold the audio for the probes. Seeds are 1, 2 and 3 unless given. A GPU is used if there is one.
set -euo pipefail
work=$1 data=$2
shift 2
(($#)) || set -- 1 2 3
here=$(cd "$(dirname "$0")" && pwd)
audio="[$work/music, $work/solo, $work/instruments, $work/speech]"

probe() { # NAME OPTIONS...
  for task in philharmonia-instrument philharmonia-pitch fsdd-digit; do
    hear-tune probe "$task" --root "$data/${task%%-*}" --name "$@" \
      --cache "$work/cache" -o "$work/comparison/results"
  done
}

compare() { # VARIANT OBJECTIVE SEED
  local run="$work/comparison/$1-$2-$3" features="$here/features_tune.yaml" objective=()
  [[ $1 == clmr ]] && features="$here/features_clmr.yaml"
  [[ $2 == features ]] && objective=(--config "$features")
  hear-tune pretrain --config "$here/pretrain.yaml" "${objective[@]}" --model.variant "$1" --data.seed "$3" \
    --data.audio "$audio" --output "$run"
  probe "$1 $2 $3" --protocol layers --model "$run/last.safetensors"
}

for variant in tune+ tune-tail+5 clmr; do
  probe "$variant untrained" --protocol layers --variant "$variant"
done
probe mfcc --baseline mfcc
for seed in "$@"; do
  for objective in clmr features; do
    for variant in tune+ tune-tail+5 clmr; do
      compare "$variant" "$objective" "$seed"
    done
  done
done
python "$here/table.py" "$work/comparison/results"
