#!/usr/bin/env bash
# Trains weights by CLMR alone, from random ones: builds the corpora and trains. Run it again to resume.
#
#   clmr.sh WORK [OPTIONS OF hear-tune pretrain]
#
# Corpora and stores (32 GB) go to WORK, the run to WORK/run, the weights to WORK/clmr.safetensors.
set -euo pipefail
work=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
recipes=$(dirname "$here")

python "$recipes/game_music/build.py" "$work/game_music"
python "$recipes/game_music/build.py" "$work/game_music_extra" \
  --packages "$recipes/game_music/packages_extra.tsv"
python "$recipes/game_music/build.py" "$work/speech" --packages "$recipes/speech/packages.tsv" --shortest 0.4
python "$recipes/solo/build.py" "$work/solo"

store() { hear-tune store "$@" || [[ $? == 1 ]]; } # some files are broken
stores=()
for corpus in game_music game_music_extra speech; do
  store "$work/$corpus/music" -o "$work/$corpus/store"
  stores+=("$work/$corpus/store")
done
store "$work"/solo/music/{note,phrase} -o "$work/solo/store"
store "$work/solo/music/unison" -o "$work/solo/unisons"
store "$work/solo/music/instrument" -o "$work/solo/instruments"
stores+=("$work/solo/store" "$work/solo/instruments" "$work/solo/instruments") # twice as often

audio=$(IFS=, && echo "[${stores[*]}]")
hear-tune pretrain --config "$here/clmr.yaml" --output "$work/run" \
  --data.audio "$audio" --data.audio_by_folder "[$work/solo/unisons]" "$@"
hear-tune convert "$work/run/last.safetensors" -o "$work/clmr.safetensors" \
  --half --layers contractive.4,tail.6,tail.7
