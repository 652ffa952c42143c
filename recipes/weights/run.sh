#!/usr/bin/env bash
# Trains the weights in the package further: builds the corpora, trains with the acoustic objective, and
# whitens the result. Run it again to resume.
#
#   run.sh WORK [OPTIONS OF hear-tune pretrain]
#
# Corpora and stores (12 GB) go to WORK, the run to WORK/run, the weights to WORK/weights.safetensors.
# To start from the weights of clmr.sh: --model.weights CLMR_WORK/clmr.safetensors.
set -euo pipefail
work=$1
shift
here=$(cd "$(dirname "$0")" && pwd)

"$here/corpora.sh" "$work"
stores=("$work"/{music,solo,instruments,speech})
audio=$(IFS=, && echo "[${stores[*]}]")
hear-tune pretrain --config "$here/acoustic.yaml" --output "$work/run" --data.audio "$audio" "$@"
hear-tune convert "$work/run/last.safetensors" -o "$work/weights.safetensors" --half \
  --layers contractive.4,tail.4,tail.6,tail.7 --timestamp-layers tail.4,tail.5 \
  --whiten "${stores[@]}"
