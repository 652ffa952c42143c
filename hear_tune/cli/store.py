"""``hear-tune store``: decode music for training."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..common.text import counted
from .common import Commands, positive_int, report_files

SUMMARY = "decode music into a store for training"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("store", help=SUMMARY)
    parser.description = (
        "Decode folders and files of music into 16-bit PCM at 22,050 Hz, which training reads at "
        "no cost. Repeat the command to continue an interrupted job or to add new files."
    )
    parser.add_argument("inputs", nargs="*", metavar="FOLDER|FILE")
    parser.add_argument("-o", "--output", required=True, metavar="STORE", help="a folder")
    parser.add_argument("--workers", type=positive_int, help="processes (default: one per core)")
    parser.add_argument("--verify", action="store_true", help="check all samples afterwards")
    parser.set_defaults(run=_store, less_memory="fewer --workers")


def _store(options: argparse.Namespace) -> int:
    from ..embedding.workers import FileReport
    from ..pretrain.pcm_store import AudioStore, build_store, indices_of

    report = FileReport()
    if options.inputs:
        report = build_store(options.inputs, options.output, options.workers)
    if report.failed and not indices_of(Path(options.output)):  # nothing could be stored
        return report_files(report)
    store = AudioStore(options.output)
    if options.verify:
        report.failed |= {track.path: "damaged in the store" for track in store.verify()}
    print(f"{options.output}: {counted(len(store.tracks), 'track')}, {store.seconds / 3600:.2f} h")
    return report_files(report)
