"""musicnn (Pons & Serra, "musicnn: pre-trained CNNs for music audio tagging", 2019) in torch.

The network of Pons et al., "End-to-end learning for music audio tagging at scale", ISMIR 2018, as
its authors trained it on MagnaTagATune's 50 tags. Training was supervised, so a comparison on
MagnaTagATune itself is not fair. The weights come with this package under their own ISC licence;
``recipes/baselines/convert_musicnn.py`` makes the file from the authors' package.
"""

from __future__ import annotations

from collections.abc import Iterator

import librosa
import numpy as np
import soxr
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoints.files import read_tensors
from ..common.samples import Samples
from ..embedding.batching import Vectors
from ..networks.config import SAMPLE_RATE_HZ, WINDOW_SAMPLES
from ..networks.encoders import LayeredEncoder
from ..networks.geometry import Layer, TimeGrid
from ..weights import MUSICNN

# The network's input; sample counts below are at this rate.
RATE_HZ = 16_000
FFT_SAMPLES = 512
HOP_SAMPLES = 256
MEL_BANDS = 96
PATCH_FRAMES = 187  # 3 s

# fmt: off
TAGS = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast",
    "piano", "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male",
    "singing", "vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman",
    "male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man", "classic", "choir", "voice",
    "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello", "no voice", "weird",
    "country", "metal", "female voice", "choral",
)
# fmt: on

TIMBRAL, TIMBRAL_CHANNELS = ((7, 38), (7, 67)), 204  # filters of (frames, bands)
TEMPORAL, TEMPORAL_CHANNELS = ((128, 1), (64, 1), (32, 1)), 51
FRONT_CHANNELS = len(TIMBRAL) * TIMBRAL_CHANNELS + len(TEMPORAL) * TEMPORAL_CHANNELS
MIDDLE_BLOCKS, MIDDLE_FRAMES, MIDDLE_CHANNELS = 3, 7, 64
POOLED_SIZE = 2 * (FRONT_CHANNELS + MIDDLE_BLOCKS * MIDDLE_CHANNELS)
PENULTIMATE_SIZE = 200
_NORM_EPSILON = 1e-3  # TensorFlow's


class Filters(nn.Module):
    """Convolution, ReLU, batch normalisation, and the maximum over frequency of each frame.

    (batch, frames, bands) -> (batch, frames, channels). The shape of filters is (frames, bands);
    zero padding keeps the number of frames.
    """

    def __init__(self, shape: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, channels, shape)
        self.norm = nn.BatchNorm2d(channels, _NORM_EPSILON)
        before = (shape[0] - 1) // 2
        self._padding = (0, 0, before, shape[0] - 1 - before)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.norm(F.relu(self.conv(F.pad(x[:, None], self._padding))))
        return maps.amax(dim=-1).mT


class MusicnnNetwork(nn.Module):
    """The network on log-mel spectra of any length, with fresh random weights.

    Tall filters for timbre and long ones for rhythm, three convolutions over time with residual
    connections, and the maximum and mean over time of all their outputs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, _NORM_EPSILON)
        self.front = nn.ModuleList(
            [Filters(shape, TIMBRAL_CHANNELS) for shape in TIMBRAL]
            + [Filters(shape, TEMPORAL_CHANNELS) for shape in TEMPORAL]
        )
        widths = (FRONT_CHANNELS, *[MIDDLE_CHANNELS] * (MIDDLE_BLOCKS - 1))
        self.middle = nn.ModuleList(
            Filters((MIDDLE_FRAMES, width), MIDDLE_CHANNELS) for width in widths
        )
        self.pooled_norm = nn.BatchNorm1d(POOLED_SIZE, _NORM_EPSILON)
        self.penultimate = nn.Linear(POOLED_SIZE, PENULTIMATE_SIZE)
        self.penultimate_norm = nn.BatchNorm1d(PENULTIMATE_SIZE, _NORM_EPSILON)
        self.tags = nn.Linear(PENULTIMATE_SIZE, len(TAGS))

    def forward(self, log_mel: Tensor) -> dict[str, Tensor]:
        """Compute the features of whole patches.

        Parameters
        ----------
        log_mel : Tensor
            (batch, frames, 96).

        Returns
        -------
        dict of str to Tensor
            ``pooled`` (batch, 1506): alternating maximum and mean over time of each front-end and
            middle feature; ``penultimate`` (batch, 200); ``tags`` (batch, 50): probabilities.
        """
        x = self.norm(log_mel[:, None])[:, 0]
        front = torch.cat([filters(x) for filters in self.front], dim=-1)
        maps = [front, self.middle[0](front)]
        for filters in self.middle[1:]:
            maps.append(maps[-1] + filters(maps[-1]))
        features = torch.cat(maps, dim=-1)
        pooled = torch.stack([features.amax(dim=1), features.mean(dim=1)], dim=-1).flatten(1)
        hidden = F.relu(self.penultimate(self.pooled_norm(pooled)))
        penultimate = self.penultimate_norm(hidden)
        tags = torch.sigmoid(self.tags(penultimate))
        return {"pooled": pooled, "penultimate": penultimate, "tags": tags}


class Musicnn(LayeredEncoder):
    """musicnn as its authors trained it on MagnaTagATune.

    Each window of 2.68 s is resampled to 16 kHz and embedded on its own. The network was trained on
    patches of 3 s, 187 frames, but pools over any length, and its authors offer others too. Here it
    takes the 168 frames of a window, so that all encoders are compared on the same audio. The
    embedding is the layer ``penultimate``; the others are ``pooled`` and ``tags``.

    Raises
    ------
    CheckpointError
        If the file of weights is damaged.
    """

    window: Tensor
    mel: Tensor

    def __init__(self) -> None:
        super().__init__()
        mel = librosa.filters.mel(sr=RATE_HZ, n_fft=FFT_SAMPLES, n_mels=MEL_BANDS)
        self.register_buffer("window", torch.hann_window(FFT_SAMPLES))
        self.register_buffer("mel", torch.from_numpy(mel))
        self.network = MusicnnNetwork()
        self.network.load_state_dict(read_tensors(MUSICNN.path, MUSICNN.sha256))
        self.eval()
        grid = TimeGrid(WINDOW_SAMPLES, 0, WINDOW_SAMPLES - 1)
        self.layers = (
            Layer("pooled", MEL_BANDS, POOLED_SIZE, grid, 0),
            Layer("penultimate", POOLED_SIZE, PENULTIMATE_SIZE, grid, 0),
            Layer("tags", PENULTIMATE_SIZE, len(TAGS), grid, 0),
        )

    @property
    def default_layer(self) -> str:
        return "penultimate"

    @property
    def identity(self) -> str:
        return f"musicnn of musicnn 0.1.0, windows of {WINDOW_SAMPLES} samples"

    def walk(self, audio: Tensor) -> Iterator[tuple[str, Tensor]]:
        windows = _resample(audio.reshape(-1, WINDOW_SAMPLES))
        for name, output in self.network(self.log_mel(windows)).items():
            yield name, output.reshape(len(audio), -1, output.shape[-1]).mT

    def log_mel(self, audio: Tensor) -> Tensor:
        """Compute spectra (batch, 1 + samples // 256, 96) from audio (batch, samples) at 16 kHz.

        Frames are centred on every 256th sample, the audio mirrored at its ends.
        """
        spectrum = torch.stft(
            audio, FFT_SAMPLES, HOP_SAMPLES, window=self.window, return_complex=True
        )
        mel = spectrum.abs().square().mT @ self.mel.T
        return torch.log10(1 + 10_000 * mel)

    @torch.no_grad()
    def taggram(self, samples: Samples) -> Vectors:
        """Compute the probabilities of the tags over time, as the original package does.

        The original rounds the power of its spectra to half precision and this does not, so
        probabilities differ by up to 0.0001.

        Parameters
        ----------
        samples : ndarray
            (samples,), mono at 16 kHz.

        Returns
        -------
        ndarray
            (patches, 50), for consecutive patches of 3 s; an incomplete last one is dropped.

        Raises
        ------
        ValueError
            If there is less than one patch.
        """
        (log_mel,) = self.log_mel(torch.from_numpy(samples).to(self.mel)[None])
        if len(log_mel) < PATCH_FRAMES:
            raise ValueError(f"{len(samples)} samples: less than a patch of 3 s at {RATE_HZ} Hz")
        patches = log_mel.unfold(0, PATCH_FRAMES, PATCH_FRAMES).mT
        tags: Tensor = self.network(patches)["tags"]
        return tags.cpu().numpy()


def _resample(windows: Tensor) -> Tensor:
    """Resample (batch, samples) from the encoders' rate to 16 kHz."""
    channels = np.ascontiguousarray(windows.detach().cpu().numpy().T)
    resampled = soxr.resample(channels, SAMPLE_RATE_HZ, RATE_HZ)
    return torch.from_numpy(resampled.T).to(windows)
