"""``hear-tune similar``, ``map`` and ``report``: seeing and hearing embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..arguments import Parser, non_negative_float, positive_int
from ..stores import read_library
from .index import IndexSearch
from .map import MAX_POINTS, write_map
from .projection import PCA, UMAP
from .similar import (
    ExactSearch,
    Search,
    covering,
    embed_query,
    find_similar,
    own_paths,
    query_of_library,
    table,
)


def similar(arguments: Sequence[str]) -> int:
    """Print the rows of a library that sound most like a query."""
    parser = Parser(
        prog="hear-tune similar",
        description="Find the tracks or moments of a library that are nearest to an audio file by "
        "cosine. Every row is compared. A query that is in the library is not found itself.",
    )
    parser.add_argument("query", metavar="QUERY", help="an audio file, or a path in the library")
    _add_library(parser)
    parser.add_argument(
        "--model",
        default="",
        metavar="NAME|FILE",
        help="the checkpoint that the library was embedded with (not needed for the package's)",
    )
    parser.add_argument(
        "-n", "--count", type=positive_int, default=10, metavar="N", help="(%(default)s)"
    )
    parser.add_argument(
        "--at", type=non_negative_float, metavar="SECONDS", help="only this moment of the query"
    )
    parser.add_argument("--per-track", action="store_true", help="the best moment of each track")
    parser.add_argument(
        "--index",
        action="store_true",
        help="beyond a million rows: look rows up in LIBRARY.parquet.usearch, made at first and "
        "whenever the library has changed, instead of comparing all; a few may be missed",
    )
    options = parser.parse_args(arguments)
    search: Search
    if options.index:
        search = IndexSearch(options.library)
    else:
        search = ExactSearch(read_library(options.library))
    own = own_paths(search.library, options.query)
    if options.query in own:
        query = query_of_library(search, options.query)
    else:  # embedded anew even if it has rows: relative paths may start in another folder
        query = embed_query(options.query, search.library, options.model)
    if options.at is not None:
        query = covering(query, options.at)
    matches = find_similar(search, query, options.count, leave_out=own, per_track=options.per_track)
    print(table(matches))
    return 0


def draw_map(arguments: Sequence[str]) -> int:
    """Write a map of a library."""
    parser = Parser(
        prog="hear-tune map",
        description="Draw a library as a map to explore in a browser: one page of HTML, without "
        "network, that plays the music from where it is.",
    )
    _add_library(parser)
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
        choices=(UMAP, PCA),
        help="(default: UMAP, or PCA where umap-learn is missing or points are few)",
    )
    parser.add_argument(
        "--points",
        type=positive_int,
        default=MAX_POINTS,
        metavar="N",
        help="of a larger library, so many at random (%(default)s)",
    )
    options = parser.parse_args(arguments)
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


def report(arguments: Sequence[str]) -> int:
    """Write a report of runs and results."""
    from .report import write_report

    parser = Parser(
        prog="hear-tune report",
        description="Write one page of HTML on training runs and results of probes, side by side: "
        "curves, scores by layer and by class, confusions.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="RUN",
        help="a folder of hear-tune pretrain, a JSON of hear-tune probe, or a folder of those",
    )
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="REPORT.html")
    options = parser.parse_args(arguments)
    runs, results = write_report(options.inputs, options.output)
    print(f"{options.output}: {runs} training runs, {results} results of probes")
    return 0


def _add_library(parser: Parser) -> None:
    parser.add_argument("library", metavar="LIBRARY.parquet", help="written by hear-tune embed")
