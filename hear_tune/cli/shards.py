"""``hear-tune shards``: write music as tar shards."""

from __future__ import annotations

import argparse
from collections import ChainMap

from ..common.text import counted
from .common import Commands, non_negative_int, positive_float, positive_int, report_files

SUMMARY = "write tar shards to stream from in training"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("shards", help=SUMMARY)
    parser.description = (
        "Cut the tracks of stores into clips and write them as FLAC into tar shards with an index, "
        "from which training streams: --data.audio SHARDS/shards.json, local or a URL. "
        "Existing tars of audio (in WebDataset's layout) are only indexed."
    )
    parser.add_argument("inputs", nargs="+", metavar="STORE|TAR", help="stores, or tars to index")
    parser.add_argument("-o", "--output", required=True, metavar="SHARDS", help="a folder")
    parser.add_argument(
        "--clip-seconds", type=positive_float, default=30.0, help="approximate (default: 30)"
    )
    parser.add_argument("--clips-per-shard", type=positive_int, default=256, help="(default: 256)")
    parser.add_argument(
        "--seed", type=non_negative_int, default=0, help="of the clips' order (default: 0)"
    )
    parser.add_argument("--workers", type=positive_int, help="processes (default: one per core)")
    parser.set_defaults(run=_shards, less_memory="fewer --workers")


def _shards(options: argparse.Namespace) -> int:
    from ..audio.reading import Remark
    from ..embedding.workers import FileReport
    from ..pretrain.tar_shards import INDEX, index_shards, write_shards

    tars = [place for place in options.inputs if place.endswith(".tar")]
    if tars and len(tars) < len(options.inputs):
        raise ValueError("either stores to write from, or tars to index, not both")
    if tars:
        shards, report = index_shards(tars, options.output)
    else:
        shards = write_shards(
            options.inputs,
            options.output,
            options.clip_seconds,
            options.clips_per_shard,
            options.seed,
            options.workers,
        )
        report = FileReport()
        for path, reason in ChainMap(*(shard.missing for shard in shards)).items():
            report.keep(path, [Remark(reason, incomplete=True)])
    clips = sum(len(shard.lengths) for shard in shards)
    print(f"{options.output}/{INDEX}: {counted(len(shards), 'shard')} of {counted(clips, 'clip')}")
    return report_files(report)
