"""``hear-tune map``: draw a library as a page to explore."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..explore import MAX_POINTS, PROJECTIONS
from .common import Commands, positive_int

SUMMARY = "draw a library to explore in a browser"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "map",
        help=SUMMARY,
        description="Draw a library as a map to explore in a browser: one HTML page that works "
        "offline and plays the music in place.",
    )
    parser.add_argument("library", metavar="LIBRARY.parquet", help="written by hear-tune embed")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="MAP.html")
    parser.add_argument(
        "--music",
        default="",
        metavar="DIR",
        help="base folder of the library's relative paths (default: the current folder)",
    )
    parser.add_argument("--labels", metavar="CSV", help="columns path and label to colour by")
    parser.add_argument(
        "--clusters", type=positive_int, metavar="N", help="number of k-means clusters to colour by"
    )
    parser.add_argument(
        "--projection",
        choices=PROJECTIONS,
        help="(default: UMAP, or PCA without umap-learn or for few points)",
    )
    parser.add_argument(
        "--points",
        type=positive_int,
        default=MAX_POINTS,
        metavar="N",
        help="random sample of larger libraries (%(default)s)",
    )
    parser.set_defaults(run=_map)


def _map(options: argparse.Namespace) -> int:
    from ..explore.map import write_map

    about = write_map(
        options.library,
        options.output,
        title=f"Map of {Path(options.library).name}",
        music=options.music,
        labels=options.labels,
        clusters=options.clusters,
        projection=options.projection,
        max_points=options.points,
    )
    print(f"{options.output}: {about}")
    return 0
