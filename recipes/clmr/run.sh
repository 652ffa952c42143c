#!/usr/bin/env bash
# Pre-trains TUNE+, Tail+5 and CLMR's encoder on a data set, probes them on MagnaTagATune, and prints
# the published table beside the results. Run it again to resume an interrupted stage.
#
#   run.sh DATASET [--smoke] [--data DIR] [--out DIR]
#
#   --smoke   all stages in about two minutes, on a tiny synthetic data set
#   --data    folder of the data sets; missing ones are downloaded to it (default: data)
#   --out     folder for everything else (default: DATASET-clmr)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
models=(tune+ tune-tail+5 clmr)
dataset=$1
shift
data=data out=$dataset-clmr smoke=
while (($#)); do
  case $1 in
    --smoke) smoke=yes ;;
    --data) data=$2 && shift ;;
    --out) out=$2 && shift ;;
    *) echo "unknown option $1" >&2 && exit 2 ;;
  esac
  shift
done
settings=$here/paper.yaml
[[ $smoke ]] && settings=$here/smoke.yaml

say() { printf '\n== %s\n' "$*"; }

# Subfolders of the data set with the audio to pre-train on.
case $dataset in
  magnatagatune) folders=(0 1 2 3 4 5 6 7 8 9 a b) ;;
  fma-*) folders=("${dataset/-/_}") ;;
  gtzan) folders=(genres) ;;
  billboard) folders=(audio) ;;
  *) echo "no recipe for $dataset" >&2 && exit 2 ;;
esac

say "data: $dataset, and magnatagatune for the probes"
root=$data/${dataset%%-*}
if [[ $smoke ]]; then
  data=$out/data root=$out/data/${dataset%%-*}
  python "$here/made_up.py" "$data" "$root" "${folders[@]}"
else
  for set in "$dataset" magnatagatune; do
    hear-tune data validate "$set" --root "$data/${set%%-*}" ||
      hear-tune data download "$set" --root "$data/${set%%-*}"
  done
fi

say "store"
hear-tune store "${folders[@]/#/$root/}" -o "$out/store" || [[ $? == 1 ]] # 1: some files are broken

for model in "${models[@]}"; do
  say "pre-train $model"
  hear-tune pretrain --config "$settings" --config "$here/$model.yaml" \
    --data.audio "['$out/store']" --output "$out/$model"
done

for model in "${models[@]}"; do
  say "probe $model"
  hear-tune probe magnatagatune --root "$data/magnatagatune" --model "$out/$model/last.safetensors" \
    --name "$model" --protocol clmr-linear --seeds 0 1 2 --cache "$out/cache" -o "$out/results"
done

say "table"
python "$here/table.py" "$dataset" "$out/results"
