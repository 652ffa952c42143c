"""What is wrong with a task, before a probe spends hours on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..files import find_audio
from .content import content_groups
from .task import FOLD, TEST, TRAIN, VALID, Clip, Task, TaskError

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
        What is worth knowing and no fault: classes that the test or the training set lacks, groups
        that stand in two splits, audio without labels.

    Raises
    ------
    TaskError
        Names everything that is wrong: labels without audio, clips without their labels, a class
        of one clip, a file in two splits, an empty training or test set, or one that has nothing to
        tell apart.
    """
    faults = [
        *_split_faults(task),
        *_label_faults(task),
        *_nothing_to_tell_apart(task),
        *_missing_audio(task),
        *_leaks(task, content),
    ]
    if faults:
        raise TaskError(f"{task.name}: {'; '.join(faults)}")
    return (
        *_silent_classes(task),
        *_untrained_classes(task),
        *_shared_groups(task),
        *_unlabelled_audio(task, root),
    )


def check_variety(task: Task) -> None:
    """Refuse a task whose training or test clips are all alike: any score of it is meaningless.

    Raises
    ------
    TaskError
        If the classes, tags or values of one of the two do not differ.
    """
    faults = list(_nothing_to_tell_apart(task))
    if faults:
        raise TaskError(f"{task.name}: {'; '.join(faults)}")


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


def _nothing_to_tell_apart(task: Task) -> Iterator[str]:
    """In a cross-validation, every clip is for training and for the test."""
    folds = any(split.startswith(FOLD) for split in task.splits)
    parts = {"all clips": task.clips} if folds else {s: task.of(s) for s in (TRAIN, TEST)}
    for part, clips in parts.items():
        name = part if folds else f"the {part} set"
        if not clips:
            continue
        if task.kind == "regression":
            yield from _listed(
                f"targets of only one value in {name}",
                (
                    target
                    for column, target in enumerate(task.classes)
                    if len({clip.values[column : column + 1] for clip in clips}) == 1
                ),
            )
            continue
        counts = Counter(label for clip in clips for label in clip.labels)
        if task.kind == "multilabel":
            if not any(0 < counts[label] < len(clips) for label in task.classes):
                yield f"no label that some clips of {name} have and others lack"
        elif len(counts) == 1:
            yield f"only one class in {name}: {next(iter(counts))}; a probe tells two or more apart"


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


def _untrained_classes(task: Task) -> Iterator[str]:
    if not task.of(TRAIN) or task.kind == "regression":
        return
    trained = {label for clip in task.of(TRAIN) for label in clip.labels}
    for split in (VALID, TEST):
        used = {label for clip in task.of(split) for label in clip.labels}
        yield from _listed(
            f"in the {split} set, but never in the training set",
            (name for name in task.classes if name in used - trained),
        )


def _shared_groups(task: Task) -> Iterator[str]:
    splits_of = defaultdict(set)
    for clip in task.clips:
        if clip.group:
            splits_of[clip.group].add(clip.split)
    yield from _listed(
        "groups in two splits or more, which a score profits from",
        (
            f"{group} ({', '.join(sorted(splits))})"
            for group, splits in splits_of.items()
            if len(splits) > 1
        ),
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
