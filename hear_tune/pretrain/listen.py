"""Augmentations to listen to and look at: what the encoder learns to be invariant to."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import soundfile
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from ..audio.reading import Remark, naming, read_blocks
from ..common.ranges import above
from ..networks.config import SAMPLE_RATE_HZ
from .augment import RandomTransform, clmr_chain

PICTURE = "spectrograms.png"
_FFT_SAMPLES, _HOP_SAMPLES = 1024, 256
_DECIBELS = (-90, 0)  # shown range, relative to the loudest point of the original


def write_views(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    views: int,
    seconds: float,
    seed: int,
    remarks: list[Remark] | None = None,
) -> list[Path]:
    """Write augmented views of a file's beginning, and a figure of their spectrograms.

    The first views apply the full chain as in training, the others each transform of CLMR's chain
    alone, with p = 1. Files are float WAV, which keeps peaks above full scale.

    Parameters
    ----------
    path : path-like
        An audio file.
    folder : path-like
        Output folder; created if needed.
    views : int
        Number of views by the full chain.
    seconds : float
        Length of audio to use.
    seed : int
        Seed of the draws.
    remarks : list of Remark, optional
        Remarks about the file are appended, if it was read to its end, and given as warnings too.

    Returns
    -------
    list of Path
        The WAV files in order, then the figure.

    Raises
    ------
    AudioError
        If the file holds no usable audio.
    """
    folder = Path(folder)
    sounds = _augment(
        _read(path, seconds, [] if remarks is None else remarks),
        views,
        torch.Generator().manual_seed(seed),
    )
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, (name, sound) in enumerate(sounds.items()):
        written.append(folder / f"{number:02d} {name}.wav")
        soundfile.write(written[-1], sound.numpy(), SAMPLE_RATE_HZ, subtype="FLOAT")
    _draw(sounds, folder / PICTURE, Path(path).name)
    return [*written, folder / PICTURE]


def _read(path: str | os.PathLike[str], seconds: float, remarks: list[Remark]) -> Tensor:
    above(0, seconds=seconds)
    wanted, blocks = max(1, round(seconds * SAMPLE_RATE_HZ)), []
    with naming(path):
        for block in read_blocks(path, remarks):
            blocks.append(block)
            if sum(map(len, blocks)) >= wanted:
                break
    for remark in remarks:
        warnings.warn(f"{os.fspath(path)}: {remark}", stacklevel=2)
    return torch.from_numpy(np.concatenate(blocks)[:wanted])


def _augment(sound: Tensor, views: int, generator: torch.Generator) -> dict[str, Tensor]:
    chain = clmr_chain()
    sounds = {"original": sound}
    for view in range(views):
        sounds[f"view {view + 1}"] = chain(sound[None], generator)[0]
    for transform in chain.transforms:
        assert isinstance(transform, RandomTransform)
        name = f"{type(transform).__name__} alone (p = {transform.p})"
        transform.p = 1.0
        sounds[name] = transform(sound[None], generator)[0]
    return sounds


def _draw(sounds: dict[str, Tensor], path: Path, title: str) -> None:
    matplotlib.use("agg")
    columns = 3
    rows = -(-len(sounds) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.2 * columns, 2.3 * rows), sharex=True, sharey=True, squeeze=False
    )
    reference = _magnitude(sounds["original"]).max().clamp(min=1e-9)
    for axis, (name, sound) in zip(axes.flat, sounds.items(), strict=False):
        decibels = 20 * torch.log10(_magnitude(sound) / reference + 1e-9)
        image = axis.imshow(
            decibels.numpy(),
            origin="lower",
            aspect="auto",
            extent=(0, len(sound) / SAMPLE_RATE_HZ, 0, SAMPLE_RATE_HZ / 2000),
            vmin=_DECIBELS[0],
            vmax=_DECIBELS[1],
            cmap="magma",
        )
        axis.set_title(name, fontsize=9)
    for axis in axes.flat[len(sounds) :]:
        axis.set_axis_off()
    figure.suptitle(title)
    figure.supxlabel("time (s)")
    figure.supylabel("frequency (kHz)")
    figure.tight_layout()
    figure.colorbar(image, ax=axes, label="dB below the original's peak")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _magnitude(sound: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(sound, (0, max(0, _FFT_SAMPLES - len(sound))))
    window = torch.hann_window(_FFT_SAMPLES)
    spectrum = torch.stft(padded, _FFT_SAMPLES, _HOP_SAMPLES, window=window, return_complex=True)
    return spectrum.abs()
