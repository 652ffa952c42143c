"""MagnaTagATune (Law et al., ISMIR 2009): 25,863 clips of 29 s, the 50 most frequent of 188 tags.

Two splits are in use, both by folder: 0 to b for training, c for validation, d to f for the test.
``pons2017`` (Pons et al., ISMIR 2018; CLMR, jukemir) has all annotated clips, including those
without any of the 50 tags: 18,706 / 1,825 / 5,329. ``top50-only`` has clips with at least one of
the 50 tags: 15,247 / 1,529 / 4,332, counting the broken clips. Scores on the two are not
comparable. Both keep synonyms (``vocal`` and ``vocals``) separate.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from .tables import read_rows, read_table
from .task import TEST, TRAIN, VALID, Clip, Task, TaskError

PONS2017, TOP50_ONLY = SPLITS = ("pons2017", "top50-only")
TOP_TAGS = 50
BROKEN = ("35644", "55753", "57881")  # empty mp3 files, in training folders

ANNOTATIONS = "annotations_final.csv"
INDEX, INDEX_LABELS = "index_mtt.tsv", "output_labels_mtt.txt"
INDEX_TRUTHS = ("train_gt_mtt.tsv", "val_gt_mtt.tsv", "test_gt_mtt.tsv")

_SPLIT_OF_FOLDER = dict.fromkeys("0123456789ab", TRAIN) | {"c": VALID} | dict.fromkeys("def", TEST)
_Annotated = Iterable[tuple[str, str, tuple[str, ...]]]  # clip id, path, tags


def load(root: Path, split: str = PONS2017) -> Task:
    """Read the task from ``annotations_final.csv``, or from musicnn's index files.

    Parameters
    ----------
    root : Path
        Folder with the table or the index files, and the folders 0 to f.
    split : str
        ``pons2017`` or ``top50-only``.

    Raises
    ------
    FileNotFoundError, TaskError
        If the tables are missing or invalid.
    """
    if split not in SPLITS:
        raise TaskError(f"magnatagatune has no split {split!r}, only {', '.join(SPLITS)}")
    if (root / ANNOTATIONS).is_file() or not (root / INDEX).is_file():
        classes, annotated = _read_annotations(root / ANNOTATIONS)
    else:
        classes, annotated = _read_index(root)
    clips = tuple(
        Clip(root / path, split_of(path), tags)
        for clip_id, path, tags in annotated
        if clip_id not in BROKEN and (tags or split == PONS2017)
    )
    return Task("magnatagatune", "multilabel", classes, clips, split)


def split_of(path: str) -> str:
    """Return the split of a clip, by the first character of its path."""
    if path[:1] not in _SPLIT_OF_FOLDER:
        raise TaskError(f"{path!r}: clips of MagnaTagATune are in folders 0 to f")
    return _SPLIT_OF_FOLDER[path[0]]


def _read_annotations(path: Path) -> tuple[tuple[str, ...], _Annotated]:
    rows = read_table(path, ["clip_id", "mp3_path"], delimiter="\t")
    tags = [name for name in (rows[0] if rows else ()) if name not in ("clip_id", "mp3_path")]
    counts = Counter({tag: sum(row[tag] == "1" for row in rows) for tag in tags})
    classes = tuple(tag for tag, _ in counts.most_common(TOP_TAGS))
    annotated = (
        (row["clip_id"], row["mp3_path"], tuple(tag for tag in classes if row[tag] == "1"))
        for row in rows
    )
    return classes, annotated


def _read_index(root: Path) -> tuple[tuple[str, ...], _Annotated]:
    """Read labels as in the musicnn-training repository; a split without its file is empty."""
    truths = [root / name for name in INDEX_TRUTHS if (root / name).is_file()]
    annotated = []
    try:
        source = (root / INDEX_LABELS).read_text(encoding="utf-8").partition("=")[2]
        classes = tuple(ast.literal_eval(source.strip()))
        path_of = dict(read_rows(root / INDEX, "\t"))
        for truth in truths:
            for clip_id, values in read_rows(truth, "\t"):
                positive = map(float, values.strip("[]").split(","))
                tags = tuple(tag for tag, on in zip(classes, positive, strict=True) if on)
                annotated.append((clip_id, path_of[clip_id], tags))
    except (ValueError, KeyError, SyntaxError) as error:
        raise TaskError(f"{root}: the index files are damaged or do not fit ({error})") from error
    return classes, annotated
