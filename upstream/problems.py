"""Downstream problems that s3prl.main lacks, or gets wrong.

``configs/`` has a file per class with what differs from its base's defaults.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf
from s3prl.dataio.dataset import EncodeMultiLabel, LoadAudio
from s3prl.dataio.encoder import CategoryEncoder
from s3prl.problem import HearFSD, HearMaestro, HearNsynth5hr
from s3prl.problem.base import Problem

from .configuration import config_path
from .tables import SPLITS, read_clips, read_text, split_labels

__all__ = ["ClipClassification", "MaestroNotes", "MagnaTagATune", "NsynthPitch"]


class _Configured(Problem):  # type: ignore[misc]
    """Base of the problems: configuration from a file, classes from all splits."""

    def default_config(self) -> dict[str, Any]:
        changes = OmegaConf.load(config_path(type(self).__name__))
        config = OmegaConf.merge(super().default_config(), changes)
        merged: dict[str, Any] = OmegaConf.to_container(config)
        return merged

    def build_encoder(
        self,
        build_encoder: dict[str, Any],
        target_dir: str,
        cache_dir: str,
        train_csv_path: Path,
        valid_csv_path: Path,
        test_csv_paths: list[Path],
        get_path_only: bool = False,
    ) -> Path:
        path = Path(target_dir) / "encoder.pkl"
        if not get_path_only:
            csvs = [train_csv_path, valid_csv_path, *test_csv_paths]
            texts = [text for csv in csvs for text in read_text(csv)["labels"]]
            path.write_bytes(pickle.dumps(self.encoder(texts, **build_encoder)))
        return path

    def encoder(self, texts: list[str]) -> CategoryEncoder:
        """Build the classes from the labels of all clips or events."""
        raise NotImplementedError


class _Clips(_Configured, HearFSD):  # type: ignore[misc]
    """Clips from a table, classified by a head on the mean of their embeddings.

    The table (``prepare_data.csv``) has the columns ``path``, relative to the table's folder,
    ``split`` (train, valid or test) and ``labels``, separated by semicolons. Audio of any rate is
    resampled to ``build_dataset.sample_rate``. With ``build_encoder.classes``, other labels are
    excluded; otherwise all labels are classes.
    """

    def prepare_data(
        self,
        prepare_data: dict[str, Any],
        target_dir: str,
        cache_dir: str,
        get_path_only: bool = False,
    ) -> tuple[Path, Path, list[Path]]:
        paths = {split: Path(target_dir) / f"{split}.csv" for split in SPLITS}
        if not get_path_only:
            clips = read_clips(prepare_data["csv"])
            for split, path in paths.items():
                clips[clips["split"] == split].to_csv(path, index=False)
        return paths["train"], paths["valid"], [paths["test"]]

    def encoder(self, texts: list[str], classes: list[str] | None = None) -> CategoryEncoder:
        return CategoryEncoder(classes or [label for text in texts for label in split_labels(text)])

    def build_dataset(
        self,
        build_dataset: dict[str, Any],
        target_dir: str,
        cache_dir: str,
        mode: str,
        data_csv: Path,
        encoder_path: Path,
        frame_shift: int,
    ) -> _ClipDataset:
        encoder = pickle.loads(Path(encoder_path).read_bytes())
        return _ClipDataset(read_text(data_csv), encoder, build_dataset["sample_rate"])


class MagnaTagATune(_Clips):
    """Tag MagnaTagATune with its 50 most frequent tags by a linear layer; macro AUC and AP."""


class ClipClassification(_Clips):
    """Classify clips with one class each."""


class NsynthPitch(_Configured, HearNsynth5hr):  # type: ignore[misc]
    """Pitch of notes in HEAR's NSynth folder.

    s3prl sorts MIDI notes as text and uses a class's index as its pitch, so its chroma accuracy is
    wrong for notes above 99, or if a note is missing.
    """

    def encoder(self, texts: list[str]) -> CategoryEncoder:
        return PitchEncoder(map(int, texts))


class MaestroNotes(_Configured, HearMaestro):  # type: ignore[misc]
    """Onsets of piano notes in HEAR's MAESTRO folder.

    s3prl's own lacks the length of its chunks, and treats MIDI notes as text in one place and as
    numbers in another.
    """

    def encoder(self, texts: list[str]) -> CategoryEncoder:
        return CategoryEncoder([int(text) for text in texts])


class PitchEncoder(CategoryEncoder):  # type: ignore[misc]
    """Classes for all pitches from the lowest to the highest."""

    def __init__(self, pitches: Iterable[int]) -> None:
        present = set(pitches)
        self.category = [str(pitch) for pitch in range(min(present), max(present) + 1)]


class _ClipDataset:
    def __init__(self, clips: pd.DataFrame, encoder: CategoryEncoder, sample_rate: int) -> None:
        known = set(encoder.category)
        labels = [
            [label for label in split_labels(clip) if label in known] for clip in clips["labels"]
        ]
        self.ids = clips["path"].tolist()
        self.audio = LoadAudio(clips["wav_path"].tolist(), sample_rate=sample_rate)
        self.labels = EncodeMultiLabel(labels, encoder)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        audio, label = self.audio[index], self.labels[index]
        return {
            "x": audio["wav"],
            "x_len": audio["wav_len"],
            "y": label["binary_labels"],
            "labels": ", ".join(label["labels"]),
            "unique_name": self.ids[index],
        }
