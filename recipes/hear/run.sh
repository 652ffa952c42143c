#!/usr/bin/env bash
# Scores models on HEAR tasks with heareval and across groups, and prints the tables. Run it again to
# resume an interrupted stage. A task that fails is reported and does not stop the others.
#
#   run.sh TASKS OUT [--data DIR] [--model NAME=FILE]... [-- OPTIONS OF heareval.predictions.runner]
#
#   TASKS     folder of HEAR task folders; all tasks in it are run
#   OUT       embeddings, scores, tables.md and scores.json
#   --data    folder of data sets, from which tasks are made first: philharmonia, fsdd, nsynth (or
#             nsynth_test), mridangam and gtzan_music_speech, or some of them
#   --model   a checkpoint beside the package's weights, and its name in the tables
#
# Peers are scored where they can be imported: pip install torchcrepe resemblyzer. These have their
# weights; hear21passt and hearbaseline (OpenL3) download theirs.
set -euo pipefail

tasks=$1 out=$2
shift 2
data="" scoring=() models=()
while (($#)); do
  case $1 in
    --data) data=$2 && shift ;;
    --model) models+=("$2") && shift ;;
    --) shift && scoring=("$@") && break ;;
    *) echo "unknown option $1" >&2 && exit 2 ;;
  esac
  shift
done
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}

make_task() { # FOLDER NAME [SPLIT]
  if [[ ! -d $data/$1 ]]; then
    echo "$2 is left out: there is no $data/$1" >&2
  elif [[ ! -d $tasks/$2-1.0-${3:-full} ]]; then
    hear-tune hear make-task "$2" --root "$data/$1" -o "$tasks" ${3:+--split "$3"}
  fi
}

status=0
run() { # NAME MODULE OPTIONS...
  local name=$1
  shift
  printf '\n== %s\n' "$name"
  hear-tune hear run "$@" --name "$name" --tasks-dir "$tasks" --embeddings-dir "$out" \
    "${scoring[@]}" || status=$?
}

peer() { # NAME MODULE OPTIONS...
  if python -c "import $2" 2> /dev/null; then
    run "$@"
  else
    echo "$1 is left out: $2 cannot be imported" >&2
  fi
}

if [[ $data ]]; then
  make_task philharmonia philharmonia-instrument
  make_task philharmonia philharmonia-pitch
  make_task fsdd fsdd-digit
  make_task fsdd fsdd-digit speakers
  nsynth=nsynth
  [[ ! -d $data/nsynth_test ]] || nsynth=nsynth_test
  make_task $nsynth nsynth-pitch
  make_task $nsynth nsynth-family
  make_task mridangam mridangam-stroke
  make_task mridangam mridangam-tonic
  make_task gtzan_music_speech gtzan-music-speech
fi

run "MFCC" hear_tune.baselines --model-options '{"name": "mfcc"}'
run "log-mel" hear_tune.baselines --model-options '{"name": "log-mel"}'
run "TUNE+" hear_tune --model-options '{"precision": "bfloat16"}'
run "musicnn" hear_tune.baselines --model-options '{"name": "musicnn"}'
for model in "${models[@]}"; do
  run "${model%%=*}" hear_tune --model "${model#*=}" --model-options '{"precision": "bfloat16"}'
done
peer "Resemblyzer" peers.resemblyzer
peer "CREPE tiny" peers.crepe --model-options '{"capacity": "tiny"}'
run "TUNE+, untrained" hear_tune --model-options '{"variant": "tune+", "precision": "bfloat16"}'
run "CLMR, untrained" hear_tune --model-options '{"variant": "clmr", "precision": "bfloat16"}'
peer "PaSST" hear21passt.base
peer "OpenL3" hearbaseline.torchopenl3

hear-tune hear table "$out" --views --json "$out/scores.json" | tee "$out/tables.md"
exit "$status"
