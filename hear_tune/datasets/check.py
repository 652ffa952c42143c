"""What is wrong with a task, before a probe spends hours on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..files import find_audio
from .content import content_groups
from .task import FOLD, TEST, TRAIN, Clip, Task, TaskError

_LISTED = 3  # examples in a message


def check_task(task: Task, root: Path | None = None, content: bool = True) -> tuple[str, ...]:
    """Refuse a task that cannot be learnt or whose score would be wrong.

    Parameters
    ----------
    task
        To be checked.
    root
        Folder to be searched for audio that the task has no labels for.
    content
        Whether to compare the bytes of files across splits, not their paths only.

    Returns
    -------
    tuple of str
        What is worth knowing and no fault: tags that are never positive in the test set, audio
        without labels.

    Raises
    ------
    TaskError
        Names everything that is wrong: labels without audio, clips without their labels, a class
        of one clip, a file in two splits, an empty training or test set.
    """
    faults = [
        *_split_faults(task),
        *_label_faults(task),
        *_missing_audio(task),
        *_leaks(task, content),
    ]
    if faults:
        raise TaskError(f"{task.name}: {'; '.join(faults)}")
    return (*_silent_classes(task), *_unlabelled_audio(task, root))


def _split_faults(task: Task) -> Iterator[str]:
    if any(split.startswith(FOLD) for split in task.splits):
        if len(task.splits) < 2:
            yield "a cross-validation needs two folds or more"
        return
    for split in (TRAIN, TEST):
        if not task.of(split):
            yield f"the {split} set is empty"


def _label_faults(task: Task) -> Iterator[str]:
    def wrong(message: str, is_wrong: Callable[[Clip], bool]) -> Iterator[str]:
        yield from _listed(message, (clip.path for clip in task.clips if is_wrong(clip)))

    if task.kind == "regression":
        count = len(task.classes)
        yield from wrong(f"not {count} values", lambda clip: len(clip.values) != count)
        return
    if task.kind != "multilabel":
        yield from wrong("not exactly one label", lambda clip: len(clip.labels) != 1)
    known = set(task.classes)
    yield from wrong("labels that are no class", lambda clip: not known.issuperset(clip.labels))
    if task.kind == "multiclass":
        counts = Counter(label for clip in task.clips for label in clip.labels)
        yield from _listed(
            "classes of one clip (leave them out, or join them with others)",
            (name for name in task.classes if counts[name] == 1),
        )


def _missing_audio(task: Task) -> Iterator[str]:
    yield from _listed(
        "labels without audio", (clip.path for clip in task.clips if not clip.path.is_file())
    )


def _leaks(task: Task, content: bool) -> Iterator[str]:
    paths = [clip.path for clip in task.clips]
    group_of = content_groups(paths) if content else {path: str(path) for path in paths}
    clips_of = defaultdict(list)
    for clip in task.clips:
        clips_of[group_of[clip.path]].append(clip)
    yield from _listed(
        "the same file in two splits",
        (
            " = ".join(f"{clip.path} ({clip.split})" for clip in clips)
            for clips in clips_of.values()
            if len({clip.split for clip in clips}) > 1
        ),
    )


def _silent_classes(task: Task) -> Iterator[str]:
    used = {label for clip in task.of(TEST) for label in clip.labels}
    if task.of(TEST) and task.kind in ("multiclass", "multilabel"):
        yield from _listed(
            "never positive in the test set", (name for name in task.classes if name not in used)
        )


def _unlabelled_audio(task: Task, root: Path | None) -> Iterator[str]:
    if root is not None:
        labelled = {clip.path for clip in task.clips}
        audio = find_audio(root).paths
        yield from _listed("audio without labels", (path for path in audio if path not in labelled))


def _listed(message: str, items: Iterable[object]) -> Iterator[str]:
    """One message for all items, naming the first; none for none."""
    found = list(items)
    if found:
        named = ", ".join(map(str, found[:_LISTED]))
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        yield f"{message}: {named}{more}"
