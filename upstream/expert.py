"""An encoder as s3prl sees it: waveforms in, hidden states of one stride out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from hear_tune.audio.reading import to_mono
from hear_tune.embedding.batching import BATCH_SAMPLES
from hear_tune.embedding.framing import mirror_to_multiple
from hear_tune.embedding.model import to_frames
from hear_tune.networks.config import SAMPLE_RATE_HZ, TIMESTAMP_STRIDE
from hear_tune.networks.encoders import Encoder
from hear_tune.networks.folded import evaluating

S3PRL_RATE_HZ = 16_000

# Input samples per frame, by the input's rate. 729 samples at 22,050 Hz are 528.98 at 16 kHz, but
# s3prl takes whole numbers only: in a minute of audio the frames drift by 1.3 ms.
STRIDES = {S3PRL_RATE_HZ: 529, SAMPLE_RATE_HZ: TIMESTAMP_STRIDE}


class UpstreamExpert(nn.Module):
    """Gives layers of an encoder at 30 frames per second to s3prl.

    Every layer is brought to one stride as `hear_tune.get_timestamp_embeddings` does, and an
    utterance's frames are those that it would have alone: nothing is padded with silence, and
    utterances pass through the network together only where their lengths allow it.

    Parameters
    ----------
    encoder
        With its weights.
    layers
        Names of the layers to give.
    concatenate
        One hidden state with the layers' channels side by side; otherwise one hidden state per
        layer, with zeros up to the width of the widest, as a weighted sum needs.
    sample_rate
        Of the waveforms, in Hz: 16,000 as s3prl's own data, or 22,050, the encoder's.

    Raises
    ------
    ValueError
        If the rate is another one, or a layer is unknown.
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
        """Input samples per frame, the same for every key."""
        return STRIDES[self.sample_rate]

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, Tensor | list[Tensor]]:
        """Hidden states of a batch.

        Parameters
        ----------
        wavs
            Waveforms, each (samples,), of any lengths: floating point in -1..1, or int16 or int32,
            which are scaled to that range. As one tensor: (batch, samples), no fewer samples than
            waveforms.

        Returns
        -------
        dict
            ``hidden_states``, a list of (batch, frames, channels); its members as
            ``hidden_state_0`` and so on; the last one as ``last_hidden_state``. An utterance has
            ceil(samples / stride) frames, followed by zeros up to the longest one's.

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
        audio = [self._prepare(wav).to(device) for wav in wavs]
        frames = [-(-len(wav) // STRIDES[self.sample_rate]) for wav in wavs]
        utterances: dict[int, list[Tensor]] = {}
        for rows in self._groups([len(samples) for samples in audio]):
            states = self._embed(torch.stack([audio[row] for row in rows]))
            for place, row in enumerate(rows):
                utterances[row] = [state[place, : frames[row]] for state in states]
        hidden = [
            pad_sequence([utterances[row][index] for row in range(len(audio))], batch_first=True)
            for index in range(len(utterances[0]))
        ]
        named = {f"hidden_state_{index}": state for index, state in enumerate(hidden)}
        return {"hidden_states": hidden, "last_hidden_state": hidden[-1], **named}

    def _groups(self, lengths: list[int]) -> Iterator[list[int]]:
        """Utterances that pass through the network together: of one length, in bounded memory."""
        for length in dict.fromkeys(lengths):
            rows = [row for row, other in enumerate(lengths) if other == length]
            # statistics of a batch are those of all its utterances; otherwise each is on its own
            size = len(rows) if self.encoder.training else max(1, BATCH_SAMPLES // length)
            for first in range(0, len(rows), size):
                yield rows[first : first + size]

    def _is_being_trained(self) -> bool:
        """Whether batch normalisation may learn from this batch.

        s3prl's front end leaves upstreams in training mode, where a mere look at features would
        change the statistics of a frozen network.
        """
        trainable = any(parameter.requires_grad for parameter in self.encoder.parameters())
        return self.training and trainable and torch.is_grad_enabled()

    def _prepare(self, wav: Tensor) -> Tensor:
        """One waveform at the encoder's rate, continued by its reflection to a length it takes."""
        if wav.ndim != 1 or len(wav) == 0:
            raise ValueError(f"a waveform must be (samples,), at least one, not {tuple(wav.shape)}")
        wav = wav.detach().cpu()
        samples = to_mono(
            (wav.float() if wav.is_floating_point() else wav).numpy(), self.sample_rate
        )
        unit = self.encoder.timestamp_unit(self.layers)
        return torch.from_numpy(np.ascontiguousarray(mirror_to_multiple(samples, unit)))

    def _embed(self, audio: Tensor) -> list[Tensor]:
        """(batch, samples) -> hidden states, each (batch, samples / 729, channels)."""
        features = self.encoder.features(audio[:, None], self.layers).values()
        frames = audio.shape[-1] // TIMESTAMP_STRIDE
        states = [to_frames(feature, frames).mT for feature in features]
        if self.concatenate:
            return [torch.cat(states, dim=-1)]
        return [F.pad(state, (0, self.width - state.shape[-1])) for state in states]
