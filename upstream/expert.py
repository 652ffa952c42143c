"""Encoders as s3prl upstreams: waveforms in, hidden states of one stride out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from hear_tune.audio.reading import to_mono
from hear_tune.common.samples import Samples
from hear_tune.embedding.batching import BATCH_SAMPLES
from hear_tune.embedding.framing import WindowCutter, cut, mirror_to_multiple
from hear_tune.networks.config import SAMPLE_RATE_HZ, TIMESTAMP_STRIDE
from hear_tune.networks.encoders import Encoder
from hear_tune.networks.folded import evaluating
from hear_tune.networks.projection import to_frames

S3PRL_RATE_HZ = 16_000

# Input samples per frame by input rate. 729 samples at 22,050 Hz are 528.98 at 16 kHz; s3prl allows
# integers only, so frames drift by 2.3 ms per minute.
STRIDES = {S3PRL_RATE_HZ: 529, SAMPLE_RATE_HZ: TIMESTAMP_STRIDE}


class UpstreamExpert(nn.Module):
    """An s3prl upstream that returns layers of an encoder at 30 frames per second.

    All layers are resampled to one stride as in `hear_tune.get_timestamp_embeddings`. The frames of
    an utterance do not depend on the rest of the batch: only utterances of equal length pass
    through the network together, without padding. Statistics of whole windows, as the whitened
    embedding has them, are those of the windows that `hear_tune.get_scene_embeddings` cuts, each of
    which passes through the network alone, and are interpolated between the windows' centres.

    Parameters
    ----------
    encoder : Encoder
        The encoder.
    layers : sequence of str
        Names of the layers.
    concatenate : bool
        Whether to concatenate the channels of all layers in one hidden state; otherwise each layer
        is a hidden state, zero-padded to the widest, as a weighted sum needs.
    sample_rate : int
        Sample rate of waveforms in Hz: 16,000, that of s3prl's own data, or 22,050, the encoder's.

    Raises
    ------
    ValueError
        If the rate is another one or a layer is unknown.
    """

    def __init__(
        self,
        encoder: Encoder,
        layers: Sequence[str],
        concatenate: bool = True,
        sample_rate: int = S3PRL_RATE_HZ,
    ) -> None:
        super().__init__()
        if sample_rate not in STRIDES:
            known = " or ".join(str(rate) for rate in STRIDES)
            raise ValueError(f"sample_rate must be {known}, not {sample_rate!r}")
        self.encoder = encoder
        self.layers = list(layers)
        self.width = max(encoder.layer(name).channels for name in self.layers)
        self.concatenate = concatenate
        self.sample_rate = sample_rate

    def get_downsample_rates(self, key: str) -> int:
        """Return the number of input samples per frame, the same for every key."""
        return STRIDES[self.sample_rate]

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        """Compute the hidden states of a batch.

        Parameters
        ----------
        wavs : sequence of Tensor
            Waveforms (samples,) of any lengths: floating point in -1..1, or int16 or int32, which
            are scaled to that range. Or one tensor (batch, samples), with at least as many samples
            as waveforms.

        Returns
        -------
        dict
            ``hidden_states``, a list of (batch, frames, channels); each also as
            ``hidden_state_0`` and so on, and the last one as ``last_hidden_state``. An utterance
            has ceil(samples / stride) frames, zero-padded to the longest utterance.

        Raises
        ------
        ValueError
            If a waveform is empty, of another shape or type, or not finite.
        """
        if isinstance(wavs, Tensor) and wavs.ndim == 2 and wavs.shape[0] > wavs.shape[1]:
            raise ValueError(
                f"a batch of shape {tuple(wavs.shape)} has more waveforms than samples: transpose "
                "it to (batch, samples)"
            )
        if self._is_being_trained():
            self.encoder.train()
            return self._hidden_states(wavs)
        with evaluating(self.encoder):
            return self._hidden_states(wavs)

    def _hidden_states(self, wavs: Sequence[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        device = next(self.encoder.parameters()).device
        audio = [self._resampled(wav) for wav in wavs]
        frames = [-(-len(wav) // STRIDES[self.sample_rate]) for wav in wavs]
        utterances: dict[int, list[Tensor]] = {}
        for rows in self._groups([len(samples) for samples in audio]):
            states = self._embed([audio[row] for row in rows], device)
            for place, row in enumerate(rows):
                utterances[row] = [state[place, : frames[row]] for state in states]
        hidden = [
            pad_sequence([utterances[row][index] for row in range(len(audio))], batch_first=True)
            for index in range(len(utterances[0]))
        ]
        named = {f"hidden_state_{index}": state for index, state in enumerate(hidden)}
        return {"hidden_states": hidden, "last_hidden_state": hidden[-1], **named}

    def _groups(self, lengths: list[int]) -> Iterator[list[int]]:
        """Group utterances of equal length into batches of bounded memory."""
        for length in dict.fromkeys(lengths):
            rows = [row for row, other in enumerate(lengths) if other == length]
            # in training, batch statistics cover all utterances of a length
            size = len(rows) if self.encoder.training else max(1, BATCH_SAMPLES // length)
            for first in range(0, len(rows), size):
                yield rows[first : first + size]

    def _is_being_trained(self) -> bool:
        """Whether batch normalisation may update its statistics.

        s3prl leaves upstreams in training mode, so extracting features would change the statistics
        of a frozen network.
        """
        trainable = any(parameter.requires_grad for parameter in self.encoder.parameters())
        return self.training and trainable and torch.is_grad_enabled()

    def _resampled(self, wav: Tensor) -> Samples:
        """Resample a waveform to the encoder's rate."""
        if wav.ndim != 1 or len(wav) == 0:
            raise ValueError(f"a waveform must be (samples,), at least one, not {tuple(wav.shape)}")
        wav = wav.detach().cpu()
        return to_mono((wav.float() if wav.is_floating_point() else wav).numpy(), self.sample_rate)

    def _embed(self, audio: Sequence[Samples], device: torch.device) -> list[Tensor]:
        """Map utterances of equal length to hidden states, each (batch, frames, channels)."""
        names = set(self.layers)
        of_windows = {name for name in names if self.encoder.has_statistics(name)}
        found = self._in_one_pass(audio, names - of_windows, device)
        found |= self._by_windows(audio, of_windows, device)
        states = [found[name] for name in self.layers]
        if self.concatenate:
            return [torch.cat(states, dim=-1)]
        return [F.pad(state, (0, self.width - state.shape[-1])) for state in states]

    def _in_one_pass(
        self, audio: Sequence[Samples], names: AbstractSet[str], device: torch.device
    ) -> dict[str, Tensor]:
        """Compute layers of whole utterances, whose ends are mirrored up to a valid length."""
        if not names:
            return {}
        unit = self.encoder.timestamp_unit(names)
        batch = _on(device, [mirror_to_multiple(samples, unit) for samples in audio])
        frames, used = batch.shape[-1] // TIMESTAMP_STRIDE, _frames(audio)
        features = self.encoder.features(batch[:, None], names)
        return {name: to_frames(x, frames).mT[:, :used] for name, x in features.items()}

    def _by_windows(
        self, audio: Sequence[Samples], names: AbstractSet[str], device: torch.device
    ) -> dict[str, Tensor]:
        """Compute layers of single windows, as the scene embedding has them."""
        if not names:
            return {}
        size = self.encoder.window_samples
        cut_up = [
            list(cut([samples], WindowCutter(size, size, self.encoder.fill))) for samples in audio
        ]
        batch = _on(device, [window.samples for windows in cut_up for window in windows])
        features = self.encoder.features(batch[:, None], names)
        centres = [(window.start + window.end) / 2 for window in cut_up[0]]
        between = torch.from_numpy(_interpolation(centres, _frames(audio))).to(device)
        return {
            name: between @ x.mean(dim=-1).reshape(len(audio), len(centres), -1)
            for name, x in features.items()
        }


def _on(device: torch.device, rows: Sequence[Samples]) -> Tensor:
    return torch.from_numpy(np.stack(rows)).to(device)


def _frames(audio: Sequence[Samples]) -> int:
    return -(-len(audio[0]) // TIMESTAMP_STRIDE)


def _interpolation(centres: Sequence[float], frames: int) -> npt.NDArray[np.float32]:
    """Return the share of each window, with these centres in samples, in each frame."""
    middles = (np.arange(frames) + 0.5) * TIMESTAMP_STRIDE
    shares = [np.interp(middles, centres, one) for one in np.eye(len(centres))]
    return np.stack(shares, axis=1).astype(np.float32)
