"""``hear-tune map``: a library as a page to explore."""

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
        description="Draw a library as a map to explore in a browser: one page of HTML, without "
        "network, that plays the music from where it is.",
    )
    parser.add_argument("library", metavar="LIBRARY.parquet", help="written by hear-tune embed")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="MAP.html")
    parser.add_argument(
        "--music",
        default="",
        metavar="DIR",
        help="where the library's relative paths start (default: the current folder)",
    )
    parser.add_argument("--labels", metavar="CSV", help="columns path and label, to colour by")
    parser.add_argument(
        "--clusters", type=positive_int, metavar="N", help="by k-means, to colour by"
    )
    parser.add_argument(
        "--projection",
        choices=PROJECTIONS,
        help="(default: UMAP, or PCA where umap-learn is missing or points are few)",
    )
    parser.add_argument(
        "--points",
        type=positive_int,
        default=MAX_POINTS,
        metavar="N",
        help="of a larger library, so many at random (%(default)s)",
    )
    parser.set_defaults(run=_map)


def _map(options: argparse.Namespace) -> int:
    from ..embedding.output import read_library
    from ..explore.map import write_map

    about = write_map(
        read_library(options.library),
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
