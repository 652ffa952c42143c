"""All benchmarks of this machine, and of its GPU if it has one."""

from __future__ import annotations

from typing import Any

from ..common.devices import best_device, describe, find_device
from ..networks.variants import DEFAULT_VARIANT
from .embed import BATCHES, MORE_BATCHES, benchmark_embed
from .pretrain import benchmark_pretrain


def benchmark(variant: str = DEFAULT_VARIANT, thorough: bool = False) -> dict[str, Any]:
    """Time embedding and training.

    Parameters
    ----------
    variant : str
        Encoder to benchmark.
    thorough : bool
        Whether to add slow peers, larger batches, more music and more repeats.

    Returns
    -------
    dict
        JSON-ready: the result of `benchmark_embed`, and as "training" and "gpu_training" those of
        `benchmark_pretrain`; "gpu" names the GPU. Without one, it and its training are None.
    """
    device = best_device()
    on_gpu = device != "cpu"
    more: dict[str, Any] = {"tracks": 128, "repeats": 5, "folder_repeats": 3, "peers": True}
    embedding = benchmark_embed(
        variant, batches=MORE_BATCHES if thorough else BATCHES, **(more if thorough else {})
    )
    repeats = 5 if thorough else 2
    return {
        **embedding,
        "training": benchmark_pretrain(variant, repeats=repeats),
        "gpu": describe(find_device(device)) if on_gpu else None,
        "gpu_training": benchmark_pretrain(variant, 48, repeats=repeats, device=device)
        if on_gpu
        else None,
    }
