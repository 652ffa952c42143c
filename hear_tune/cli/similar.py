"""``hear-tune similar``: search a library by sound."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from .common import Commands, non_negative_float, positive_int

SUMMARY = "search a library by sound"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "similar",
        help=SUMMARY,
        description="Find the tracks or moments of a library most similar to an audio file by "
        "cosine. Every row is compared. The query itself is excluded.",
    )
    parser.add_argument("query", metavar="QUERY", help="an audio file, or a path in the library")
    parser.add_argument("library", metavar="LIBRARY.parquet", help="written by hear-tune embed")
    parser.add_argument(
        "--model",
        default="",
        metavar="NAME|FILE",
        help="checkpoint that embedded the library (not needed for weights of the package)",
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
        help="for more than a million rows: search by an index, LIBRARY.parquet.usearch, which is "
        "built first and whenever the library has changed; it may miss a few rows",
    )
    parser.set_defaults(run=_similar)


def _similar(options: argparse.Namespace) -> int:
    from ..explore.index import IndexSearch
    from ..explore.similar import (
        FileSearch,
        Search,
        covering,
        embed_query,
        find_similar,
        own_paths,
        query_of_library,
        table,
    )

    kind: Callable[[str], Search] = IndexSearch if options.index else FileSearch
    search = kind(options.library)
    own = own_paths(search.library, options.query)
    if options.query in own:
        query = query_of_library(search, options.query)
    else:  # embedded even if it has rows: relative paths may start in another folder
        query = embed_query(options.query, search.library, options.model)
    if options.at is not None:
        query = covering(query, options.at)
    matches = find_similar(search, query, options.count, leave_out=own, per_track=options.per_track)
    print(table(matches))
    return 0
