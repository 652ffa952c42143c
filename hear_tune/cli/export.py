"""``hear-tune export``: export a model to ONNX or torch.export."""

from __future__ import annotations

import argparse

from .common import Commands, add_checkpoint, add_no_whitening, positive_float

SUMMARY = "export a model to ONNX or torch.export"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("export", help=SUMMARY)
    parser.description = (
        "Export a model, framing included, to .onnx or torch.export's .pt2. Its input is audio at "
        "22,050 Hz, (clips, samples) of any number and length, its output embeddings. The file is "
        "checked against the model."
    )
    parser.add_argument("output", metavar="OUT", help=".onnx or .pt2")
    add_checkpoint(parser)
    parser.add_argument("--per", choices=["track", "window"], default="track")
    parser.add_argument("--layers", metavar="A,B", help="as for embed")
    add_no_whitening(parser)
    parser.add_argument("--hop-ms", type=positive_float, metavar="MS", help="time between windows")
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from ..embedding.export import export_model
    from ..hear import load_model

    model = load_model(
        options.model,
        sha256=options.sha256,
        layers=options.layers,
        hop_ms=options.hop_ms,
        whitened=options.whitened,
    )
    difference = export_model(model, options.output, options.per)
    print(f"{options.output}: {model.identity}, within {difference:.1e} of the model")
    return 0
