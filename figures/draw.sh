#!/usr/bin/env bash
# Draws the README's figures: draw.sh MUSIC, with one folder of music per label.
# Needs pip install "hear-tune[map]" playwright, and an installed Chromium.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

hear-tune variants tune+ --figure "$here/tune-plus.svg"
hear-tune embed "$1" -o "$work/music.parquet"
hear-tune map "$work/music.parquet" -o "$work/map.html"
python "$here/draw_map.py" "$work/map.html" "$here/map.png"
