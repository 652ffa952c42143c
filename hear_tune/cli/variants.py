"""``hear-tune variants``: list the published encoders."""

from __future__ import annotations

import argparse

from ..common.files import write_whole
from ..weights import PRETRAINED
from .common import Commands

SUMMARY = "list the published encoders, or show one"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("variants", help=SUMMARY)
    parser.add_argument("name", nargs="?", help="show the layers of this one")
    parser.add_argument("--figure", metavar="SVG", help="draw it to this file")
    parser.set_defaults(run=_variants)


def _variants(options: argparse.Namespace) -> int:
    from ..networks.figure import network_svg
    from ..networks.summary import variant_summary, variants_table
    from ..networks.variants import get_variant

    if options.name is None:
        if options.figure:
            raise ValueError("--figure needs the name of a variant")
        weights = "\n".join(f"  {row.name}: {row.summary}" for row in PRETRAINED.values())
        print(f"{variants_table()}\n\nWeights in the package:\n{weights}")
        return 0
    variant = get_variant(options.name)
    print(variant_summary(variant))
    if options.figure:
        write_whole(options.figure, network_svg(variant))
    return 0
