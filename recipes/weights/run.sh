#!/usr/bin/env bash
# Makes the weights that come with the package: builds the corpora, trains, and writes the file.
# Interrupted, the same command goes on where it stopped.
#
#   run.sh WORK [OPTIONS OF hear-tune pretrain]
#
# WORK gets corpora and stores (32 GB), and the run with its checkpoints in WORK/run.
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

stores=()
for corpus in game_music game_music_extra solo speech; do
  hear-tune store "$work/$corpus/music" -o "$work/$corpus/store" || [[ $? == 1 ]] # some files are broken
  stores+=("$work/$corpus/store")
done

audio=$(IFS=, && echo "[${stores[*]}]")
hear-tune pretrain --config "$here/pretrain.yaml" --data.audio "$audio" --output "$work/run" "$@"
hear-tune convert "$work/run/last.safetensors" -o "$work/tune+-free.safetensors" --half
