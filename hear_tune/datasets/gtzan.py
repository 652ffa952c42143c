"""GTZAN (Tzanetakis & Cook, 2002): 1,000 clips of 30 s, 10 genres.

``fault-filtered`` (Kereliuk et al., 2015, after Sturm's list of faults) excludes repeated,
mislabelled and distorted clips, with no artist in two splits: 443 / 197 / 290. ``10-fold`` has
all clips, dealt out evenly by genre; identical files share a fold. HEAR's folds differ.
``jazz.00054`` cannot be decoded in some copies, and is then excluded from both.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from ..audio.reading import AudioError, read_blocks
from .content import content_groups
from .splits import stratified_folds
from .task import TEST, TRAIN, VALID, Clip, Task, TaskError, used_classes

FAULT_FILTERED, TEN_FOLD = SPLITS = ("fault-filtered", "10-fold")
FOLDS = 10
BROKEN = "jazz.00054"
LISTS = {TRAIN: "train_filtered.txt", VALID: "valid_filtered.txt", TEST: "test_filtered.txt"}

_SUFFIXES = (".wav", ".au")


def load(root: Path, split: str = FAULT_FILTERED) -> Task:
    """Read the task from the folder of genres.

    Parameters
    ----------
    root : Path
        Folder with ``genres/<genre>/<genre>.NNNNN.wav`` (or ``.au``) and, for the fault-filtered
        split, the lists of the dnn-mgr repository; by default those in an installed torchaudio.
    split : str
        ``fault-filtered`` or ``10-fold``.

    Raises
    ------
    FileNotFoundError, TaskError
        If the audio or the lists are missing.
    """
    if split not in SPLITS:
        raise TaskError(f"gtzan has no split {split!r}, only {', '.join(SPLITS)}")
    audio = _audio(root / "genres")
    broken = BROKEN if BROKEN in audio and _is_broken(audio[BROKEN]) else None
    clips = _fault_filtered(root, audio) if split == FAULT_FILTERED else _ten_fold(audio)
    kept = tuple(clip for clip in clips if clip.path.stem != broken)
    return Task("gtzan", "multiclass", used_classes(kept), kept, split)


def _is_broken(path: Path) -> bool:
    try:
        next(read_blocks(path))
    except AudioError:
        return True
    return False


def _audio(folder: Path) -> dict[str, Path]:
    """Map names without suffix to files."""
    paths = [path for suffix in _SUFFIXES for path in sorted(folder.glob(f"*/*{suffix}"))]
    if not paths:
        raise FileNotFoundError(f"{folder}: no files <genre>/<genre>.NNNNN.wav or .au")
    return {path.stem: path for path in reversed(paths)}


def _fault_filtered(root: Path, audio: dict[str, Path]) -> list[Clip]:
    suffix = next(iter(audio.values())).suffix
    return [
        Clip(audio.get(stem, root / "genres" / _genre(stem) / f"{stem}{suffix}"), split, (genre,))
        for split, stems in _lists(root).items()
        for stem, genre in ((stem, _genre(stem)) for stem in stems)
    ]


def _ten_fold(audio: dict[str, Path]) -> list[Clip]:
    stems = sorted(audio)
    genres = [_genre(stem) for stem in stems]
    same = content_groups(audio[stem] for stem in stems)
    groups = [same[audio[stem]] for stem in stems]
    folds = stratified_folds(stems, genres, FOLDS, groups)
    return [
        Clip(audio[stem], fold, (genre,))
        for stem, fold, genre in zip(stems, folds, genres, strict=True)
    ]


def _genre(stem: str) -> str:
    return stem.partition(".")[0]


def _lists(root: Path) -> dict[str, list[str]]:
    """Read the names in each split, without folder and suffix."""
    if all((root / name).is_file() for name in LISTS.values()):
        return {
            split: _stems((root / name).read_text(encoding="utf-8").splitlines())
            for split, name in LISTS.items()
        }
    spec = find_spec("torchaudio")
    source = Path(spec.origin).parent / "datasets" / "gtzan.py" if spec and spec.origin else None
    if source is None or not source.is_file():
        raise FileNotFoundError(
            f"{root}: no {', '.join(LISTS.values())}; get them with `hear-tune data download gtzan`"
        )
    # parsed, not imported: torchaudio loads only with the torch that it was built for
    constants = {
        node.targets[0].id: node.value
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    return {split: _stems(ast.literal_eval(constants[f"filtered_{split}"])) for split in LISTS}


def _stems(lines: Iterable[str]) -> list[str]:
    """``blues/blues.00029.wav`` and ``blues.00029`` are the same clip."""
    names = (line.strip().rpartition("/")[2] for line in lines)
    return [name.removesuffix(".wav").removesuffix(".au") for name in names if name]
