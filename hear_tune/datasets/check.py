"""Check a task before a probe spends hours on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ..audio.files import find_audio
from ..common.text import first_n
from .content import content_groups
from .task import (
    LEAST_FOLDS,
    TEST,
    TRAIN,
    VALID,
    Clip,
    Task,
    TaskError,
    folds,
    repeated_paths,
    turns,
)

_LISTED = 3  # number of examples in a message


def check_task(
    task: Task, root: Path | None = None, content: bool = True, across: bool = False
) -> tuple[str, ...]:
    """Refuse a task that cannot be learnt or whose score would be wrong.

    Parameters
    ----------
    task : Task
        The task to check.
    root : Path, optional
        Folder to search for audio without labels, if it is one.
    content : bool
        Whether to compare the content of files across splits, not only their paths.
    across : bool
        Whether clips are to be classified by other groups, or else by all other folds or splits
        (`hear_tune.probe.across`).

    Returns
    -------
    tuple of str
        Remarks: clips without a group beside others with one, classes that the test or training set
        lacks, a validation set with a single class, groups in two splits, class folders that could
        be splits, audio without labels. Those on splits are left out where splits have no effect.

    Raises
    ------
    TaskError
        Lists all faults: clips named twice, labels without audio, clips without labels, a class of
        one clip, a file in two splits, too few folds, a training or test set that is empty or has a
        single class. A cross-validation is checked turn by turn.
    """
    faults = [
        *_split_faults(task),
        *_repeated_clips(task),
        *_label_faults(task),
        *_nothing_to_tell_apart(task),
        *_missing_audio(task),
        *_leaks(task, content),
    ]
    if faults:
        raise TaskError(f"{task.name}: {'; '.join(faults)}")
    folder = root if root is not None and root.is_dir() else None
    return (
        *_split_remarks(task, across),
        *_repeated_folders(task, folder),
        *_unlabelled_audio(task, folder),
    )


def check_variety(task: Task) -> None:
    """Refuse a task whose training or test clips all have the same labels: no score has a meaning.

    Raises
    ------
    TaskError
        If the classes, tags or values of either set do not differ, in any turn.
    """
    faults = list(_nothing_to_tell_apart(task))
    if faults:
        raise TaskError(f"{task.name}: {'; '.join(faults)}")


def _split_faults(task: Task) -> Iterator[str]:
    if names := folds(task):
        if len(names) < LEAST_FOLDS:
            yield f"a cross-validation needs {LEAST_FOLDS} folds or more, not {len(names)}"
        if others := [split for split in task.splits if split not in names]:
            yield f"folds beside other splits ({', '.join(others)})"
        return
    for split in (TRAIN, TEST):
        if not task.of(split):
            yield f"the {split} set is empty"


def _repeated_clips(task: Task) -> Iterator[str]:
    repeated = (path for split in task.splits for path in repeated_paths(task.of(split)))
    yield from _listed("named more than once", repeated)


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
            "classes of one clip (exclude them, or merge them with others)",
            (name for name in task.classes if counts[name] == 1),
        )


def _nothing_to_tell_apart(task: Task) -> Iterator[str]:
    """In a cross-validation, check all clips, which are scored, and the training set per turn."""
    if not folds(task):
        yield from _alike(task, task.of(TRAIN), "the train set")
        yield from _alike(task, task.of(TEST), "the test set")
        return
    faults = list(_alike(task, task.clips, "all clips"))
    yield from faults or _alike_in_turns(task, TRAIN)


def _alike_in_turns(task: Task, role: str) -> Iterator[str]:
    is_folded = bool(folds(task))
    found: list[str] = []
    for turn in turns(task):
        of_fold = f" for {turn[TEST][0]}" if is_folded else ""
        found += _alike(task, _clips(task, turn[role]), f"the {role} set{of_fold}")
    yield from found[:_LISTED]
    if len(found) > _LISTED:
        yield f"the same for {len(found) - _LISTED} more folds"


def _alike(task: Task, clips: Sequence[Clip], name: str) -> Iterator[str]:
    """Yield why no score of some clips would have a meaning; nothing if there are no clips."""
    if not clips:
        return
    if task.kind == "regression":
        yield from _listed(
            f"targets of only one value in {name}",
            (
                target
                for column, target in enumerate(task.classes)
                if len({clip.values[column : column + 1] for clip in clips}) == 1
            ),
        )
        return
    counts = Counter(label for clip in clips for label in clip.labels)
    if task.kind == "multilabel":
        if not any(0 < counts[label] < len(clips) for label in task.classes):
            yield f"no label that some clips of {name} have and others lack"
    elif len(counts) == 1:
        yield f"only one class in {name}: {next(iter(counts))}; a probe needs at least two"


def _clips(task: Task, splits: Sequence[str]) -> list[Clip]:
    wanted = set(splits)
    return [clip for clip in task.clips if clip.split in wanted]


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


def _split_remarks(task: Task, across: bool) -> Iterator[str]:
    if across and task.all_grouped:
        return
    yield from _silent_classes(task)
    if not across:
        yield from _untrained_classes(task)
        yield from _alike_in_turns(task, VALID)
    yield from _ungrouped(task)
    yield from _shared_groups(task)


def _silent_classes(task: Task) -> Iterator[str]:
    used = {label for clip in task.of(TEST) for label in clip.labels}
    if task.of(TEST) and task.kind in ("multiclass", "multilabel"):
        yield from _listed(
            "never positive in the test set", (name for name in task.classes if name not in used)
        )


def _untrained_classes(task: Task) -> Iterator[str]:
    if task.kind == "regression":
        return
    for role in (VALID, TEST):
        yield from _listed(
            f"in the {role} set, but never in the training set", _untrained_in(task, role)
        )


def _untrained_in(task: Task, role: str) -> Iterator[str]:
    """Yield classes in a validation or test set that are not trained on, with the fold if any."""
    is_folded = bool(folds(task))
    for turn in turns(task):
        trained, used = (
            {label for clip in _clips(task, turn[name]) for label in clip.labels}
            for name in (TRAIN, role)
        )
        fold = f" ({turn[role][0]})" if is_folded else ""
        yield from (f"{name}{fold}" for name in task.classes if name in used - trained)


def _ungrouped(task: Task) -> Iterator[str]:
    missing = sum(not clip.group for clip in task.clips)
    if 0 < missing < len(task.clips):
        yield (
            f"{missing} of {len(task.clips)} clips have no group: classifiers across groups take "
            "splits instead"
        )


def _shared_groups(task: Task) -> Iterator[str]:
    splits_of = defaultdict(set)
    for clip in task.clips:
        if clip.group:
            splits_of[clip.group].add(clip.split)
    yield from _listed(
        "groups in two splits or more, which inflates the score",
        (
            f"{group} ({', '.join(sorted(splits))})"
            for group, splits in splits_of.items()
            if len(splits) > 1
        ),
    )


def _repeated_folders(task: Task, root: Path | None) -> Iterator[str]:
    """Yield a remark if class folders could just as well be splits with unusual names."""
    inner = defaultdict(set)
    for clip in task.clips:
        if root is None or not clip.path.is_relative_to(root):
            return
        outer, *others = clip.path.relative_to(root).parts[:-1] or ("",)
        if not others or clip.labels != (outer,):
            return
        inner[outer].add(others[0])
    common = set.intersection(*inner.values()) if inner else set()
    if len(common) > 1:
        (parts,) = _listed("every class has the same sub-folders", sorted(common))
        yield from _listed(
            f"{parts}; if these are the classes, rename the folders above them to train, valid and "
            "test, or to fold1, fold2 and so on",
            sorted(inner),
        )


def _unlabelled_audio(task: Task, root: Path | None) -> Iterator[str]:
    if root is not None:
        labelled = {clip.path for clip in task.clips}
        audio = find_audio(root).paths
        yield from _listed("audio without labels", (path for path in audio if path not in labelled))


def _listed(message: str, items: Iterable[object]) -> Iterator[str]:
    """Yield one message that lists the first items, or nothing without items."""
    if found := list(map(str, items)):
        yield f"{message}: {first_n(found, _LISTED)}"
