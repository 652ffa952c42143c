"""``hear-tune convert``: convert any checkpoint to safetensors."""

from __future__ import annotations

import argparse

from ..pretrain import (
    WHITENED_SIZE,
    WHITENING_COMPRESSION,
    WHITENING_CROPS,
    WHITENING_POWER,
    WHITENING_TIMESTAMP_POWER,
)
from .common import SHA256_HELP, Commands, positive_float, positive_int

SUMMARY = "convert any checkpoint to safetensors"
_SETTINGS = ("size", "crops", "power", "timestamp_power", "compression")  # of a whitening


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("convert", help=SUMMARY)
    parser.description = (
        "Read a checkpoint of hear-tune, of the TUNE authors (.ckpt) or of CLMR (.pt), without "
        "running any code from it, and write it as safetensors. With --whiten, its layers are "
        "whitened: a projection to at most 512 numbers of unit variance, fitted on the audio of "
        "stores, becomes the embedding."
    )
    parser.add_argument("checkpoint", metavar="NAME|FILE", help="weights of the package, or a file")
    parser.add_argument("-o", "--output", required=True, metavar="OUT.safetensors")
    parser.add_argument("--sha256", help=SHA256_HELP)
    parser.add_argument(
        "--half", action="store_true", help="save as float16, half the size; loaded as float32"
    )
    parser.add_argument(
        "--layers", metavar="A,B", help="layers that embed by default (default: unchanged)"
    )
    parser.add_argument("--whiten", nargs="+", metavar="STORE", help="made by hear-tune store")
    parser.add_argument("--timestamp-layers", metavar="A,B", help="layers to whiten for timestamps")
    parser.add_argument(
        "--size", type=positive_int, help=f"numbers of the whitened embedding ({WHITENED_SIZE})"
    )
    parser.add_argument(
        "--crops",
        type=positive_int,
        help=f"random crops to fit it on, more than three per channel ({WHITENING_CROPS:,})",
    )
    parser.add_argument(
        "--power",
        type=float,
        help="variances v become v ** (1 - power); 1 makes all components equal "
        f"({WHITENING_POWER})",
    )
    parser.add_argument(
        "--timestamp-power",
        type=float,
        help=f"the same for timestamps ({WHITENING_TIMESTAMP_POWER})",
    )
    parser.add_argument(
        "--compression",
        type=positive_float,
        help=f"how far statistics are compressed ({WHITENING_COMPRESSION:g})",
    )
    parser.add_argument("--no-whitening", action="store_true", help="drop a whitening it has")
    parser.set_defaults(run=_convert)


def _convert(options: argparse.Namespace) -> int:
    from ..checkpoints.files import save_checkpoint
    from ..checkpoints.pretrained import load_encoder
    from ..embedding.model import EmbeddingModel, choose_layers
    from ..networks.encoders import EMBEDDING_LAYERS
    from ..networks.variants import variant_name
    from ..pretrain.pcm_store import AudioStore
    from ..pretrain.whitening import Whitening, drop_projections, whiten

    if not options.output.endswith(".safetensors"):
        raise ValueError(f"{options.output}: the name must end in .safetensors")
    chosen = {name: getattr(options, name) for name in _SETTINGS}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    if not options.whiten and (chosen or options.timestamp_layers is not None):
        names = (f"--{name.replace('_', '-')}" for name in ("timestamp_layers", *_SETTINGS))
        raise ValueError(f"{', '.join(names)} go with --whiten")
    if options.whiten and options.no_whitening:
        raise ValueError("--whiten and --no-whitening exclude each other")
    encoder = load_encoder(options.checkpoint, options.sha256)
    if options.no_whitening:
        drop_projections(encoder)
    if options.layers is not None:
        encoder.training_record[EMBEDDING_LAYERS] = choose_layers(encoder, options.layers)
    if options.whiten:
        stores = [AudioStore(folder) for folder in options.whiten]
        model = EmbeddingModel(encoder, timestamp_layers=options.timestamp_layers, whitened=False)
        whiten(encoder, stores, model.layers, model.timestamp_layers, Whitening(**chosen))
    if options.half:
        encoder = encoder.half()
    digest = save_checkpoint(encoder, options.output)
    print(f"{options.output}: {variant_name(encoder.config)}, sha256 {digest}")
    return 0
