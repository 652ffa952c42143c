"""FMA (Defferrard et al., ISMIR 2017): clips of 30 s by genre, split by the authors.

``small`` has 8,000 clips of 8 genres in equal numbers, ``medium`` 25,000 of 16 genres, ``large``
106,574, of which 49,598 have a top genre; each contains the one before.
"""

from __future__ import annotations

from pathlib import Path

from .tables import read_rows
from .task import TEST, TRAIN, VALID, Clip, Task, TaskError, used_classes

SUBSETS = ("small", "medium", "large")
# https://github.com/mdeff/fma/issues/8; the first three are also in small
NO_AUDIO = frozenset(
    {99134, 108925, 133297}
    | {1486, 5574, 65753, 80391, 98558, 98559, 98560, 98571, 105247, 126981, 127336, 143992}
)
TOO_SHORT = frozenset({98565, 98566, 98567, 98568, 98569, 108924})  # far from 30 s
BROKEN = NO_AUDIO | TOO_SHORT

_TABLE = Path("fma_metadata", "tracks.csv")
_SPLITS = {"training": TRAIN, "validation": VALID, "test": TEST}
_COLUMNS = (("set", "subset"), ("set", "split"), ("track", "genre_top"))


def load(root: Path, subset: str = "small") -> Task:
    """Read a subset, without broken clips and clips without a top genre.

    Parameters
    ----------
    root : Path
        Folder with ``fma_metadata`` and ``fma_small`` (or ``fma_medium``, ``fma_large``).
    subset : str
        ``small``, ``medium`` or ``large``.

    Raises
    ------
    FileNotFoundError, TaskError
        If the table is missing or invalid.
    """
    if subset not in SUBSETS:
        raise TaskError(f"fma has no subset {subset!r}, only {', '.join(SUBSETS)}")
    path = root / _TABLE
    rows = read_rows(path)
    header = list(zip(next(rows, []), next(rows, []), strict=False))
    next(rows, None)  # names the first column only
    missing = [names for names in _COLUMNS if names not in header]
    if missing:
        raise TaskError(f"{path}: no column {' / '.join(missing[0])} in its first two rows")
    columns = [header.index(names) for names in _COLUMNS]
    included = SUBSETS[: SUBSETS.index(subset) + 1]
    clips = []
    for row in rows:
        if len(row) != len(header) or not row[0].isdecimal():
            raise TaskError(f"{path}: the row that begins {row[:1]} is no track, or is cut short")
        track = int(row[0])
        of_subset, split, genre = (row[column] for column in columns)
        if of_subset in included and genre and track not in BROKEN:
            audio = root / f"fma_{subset}" / f"{track // 1000:03d}" / f"{track:06d}.mp3"
            clips.append(Clip(audio, _SPLITS.get(split, split), (genre,)))
    return Task(f"fma-{subset}", "multiclass", used_classes(clips), tuple(clips))
