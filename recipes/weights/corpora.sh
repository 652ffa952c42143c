#!/usr/bin/env bash
# Builds the corpora of the weights from Debian packages: game music, instruments of soundfonts, speech.
# Takes under half an hour of one core. Interrupted, the same command goes on where it stopped.
#
#   corpora.sh WORK
#
# WORK gets WORK/music, WORK/speech, WORK/solo and WORK/instruments: stores for --data.audio.
set -euo pipefail
work=$1
recipes=$(dirname "$(cd "$(dirname "$0")" && pwd)")

store() { # to NAME from FOLDERS, unless it is there
  [[ -d $work/$1 ]] || hear-tune store "${@:2}" -o "$work/$1" || [[ $? == 1 ]] # some files are broken
}

python "$recipes/solo/build.py" "$work/build/solo" --notes 8 --phrases 8 --ensembles 0 --workers 1
store solo "$work"/build/solo/music/{note,phrase}
store instruments "$work/build/solo/music/instrument"
python "$recipes/game_music/build.py" "$work/build/speech" \
  --packages "$recipes/speech/packages.tsv" --shortest 0.4
store speech "$work/build/speech/music"
python "$recipes/game_music/build.py" "$work/build/music" --packages "$recipes/weights/packages.tsv"
store music "$work/build/music/music"
