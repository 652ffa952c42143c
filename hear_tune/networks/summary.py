"""Tables of the variants and of an encoder's layers."""

from __future__ import annotations

import torch

from ..common.text import table
from .config import SAMPLE_RATE_HZ, WINDOW_SAMPLES, EncoderConfig
from .encoders import build_encoder
from .geometry import encoder_layers
from .variants import VARIANTS, Variant

PROBE_CLASSES = 50  # published parameter counts include a linear head for MagnaTagATune's tags


def parameter_count(config: EncoderConfig, probe_classes: int = 0) -> int:
    """Count the parameters of an encoder, with a linear head if `probe_classes` is not 0."""
    with torch.device("meta"):
        encoder = build_encoder(config)
    head = (config.embedding_size + 1) * probe_classes
    return sum(parameter.numel() for parameter in encoder.parameters()) + head


def macs_per_second(config: EncoderConfig) -> float:
    """Count the multiply-accumulate operations for one second of audio."""
    layers = encoder_layers(config)
    return sum(layer.macs_per_frame * SAMPLE_RATE_HZ / layer.stride for layer in layers)


def variants_table() -> str:
    """Tabulate the size, cost and scores of all published variants."""
    rows = [["variant", "embedding", "parameters", "GMAC/s", "MTT AUC", "MTT AP"]]
    rows += [
        [
            row.name,
            str(row.config.embedding_size),
            f"{parameter_count(row.config, PROBE_CLASSES):,}",
            f"{macs_per_second(row.config) / 1e9:.2f}",
            _score(row.mtt_auc),
            _score(row.mtt_ap),
        ]
        for row in VARIANTS.values()
    ]
    return (
        f"{table(rows)}\n\n"
        f"parameters: with a linear head of {PROBE_CLASSES} classes. GMAC/s: 10^9 multiply-"
        "accumulate\noperations per second of audio. MTT: published scores of a linear probe on "
        "MagnaTagATune (%)."
    )


def variant_summary(variant: Variant) -> str:
    """Tabulate the shapes, time scales and cost of a variant's layers."""
    with torch.device("meta"):
        encoder = build_encoder(variant.config)
    rows = [["layer", "in", "out", "frames", "stride", "ms", "field ms", "parameters", "MMAC/s"]]
    for layer in encoder.layers:
        module = encoder.get_submodule(layer.name)
        rows.append(
            [
                layer.name,
                str(layer.in_channels),
                str(layer.channels),
                f"{WINDOW_SAMPLES // layer.stride:,}",
                f"{layer.stride:,}",
                _milliseconds(layer.stride),
                _milliseconds(layer.grid.receptive_field),
                f"{sum(p.numel() for p in module.parameters()):,}",
                f"{layer.macs_per_frame * SAMPLE_RATE_HZ / layer.stride / 1e6:.2f}",
            ]
        )
    parameters = parameter_count(variant.config)
    with_head = parameter_count(variant.config, PROBE_CLASSES)
    return (
        f"{variant.name}: {variant.config}\n\n{table(rows)}\n\n"
        f"frames: in a window of {WINDOW_SAMPLES:,} samples ({_milliseconds(WINDOW_SAMPLES)} ms). "
        "stride: samples per frame.\nfield: receptive field of one frame.\n"
        f"embedding {variant.config.embedding_size}; {parameters:,} parameters, "
        f"{with_head:,} with a head of {PROBE_CLASSES} classes; "
        f"{macs_per_second(variant.config) / 1e9:.2f} GMAC per second of audio\n"
        "published MagnaTagATune scores: "
        f"AUC {_score(variant.mtt_auc)}, AP {_score(variant.mtt_ap)}"
    )


def _score(score: float | None) -> str:
    return "-" if score is None else f"{score:.1f}"


def _milliseconds(samples: int) -> str:
    return f"{1000 * samples / SAMPLE_RATE_HZ:,.2f}"
