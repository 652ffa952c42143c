"""``hear-tune data``: list, download and check labelled data sets."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..common.progress import one_line, say
from ..common.text import first_n, table
from ..datasets.catalog import CATALOG, GROUP_HELP, DataSet, get_data_set
from ..datasets.task import Task, TaskError
from .common import EXIT_FAILED, Commands, require_extra

_LISTED = 20  # files named per kind of fault

SUMMARY = "get and check labelled data sets"


def add_command(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("data", help=SUMMARY)
    parser.description = "Get and check the files of labelled data sets."
    add = parser.add_subparsers(required=True, metavar="ACTION").add_parser
    info = add("info", help="list the data sets, or show one and its splits")
    info.add_argument("name", nargs="?", metavar="NAME")
    download = add("download", help="download the files, or continue")
    check = add("validate", help="find missing, damaged and odd files")
    for command in (download, check):
        command.add_argument("name", metavar="NAME")
    for command in (info, download, check):
        command.add_argument(
            "--root", metavar="DIR", help="folder of its files (default: one in data)"
        )
    for command in (info, check):
        command.add_argument(
            "--split", metavar="NAME", help="split to use, where there are several"
        )
        command.add_argument("--group", metavar="COLUMN", help=GROUP_HELP)
    info.set_defaults(run=_info)
    check.set_defaults(run=_validate)
    download.set_defaults(run=_download)


def _info(options: argparse.Namespace) -> int:
    if options.name is None:
        rows = [["name", "task", "licence", "download"]]
        rows += [[s.name, s.summary, s.licence, s.size or "-"] for s in CATALOG.values()]
        print(table(rows, right=()))
        return 0
    data_set = get_data_set(options.name)
    facts = {
        "task": data_set.summary,
        "licence": data_set.licence,
        "described at": data_set.page,
        "download": data_set.size,
        "splits": ", ".join(data_set.splits),
        "excluded": data_set.left_out,
        "by hand": data_set.manual,
    }
    rows = [[name, fact] for name, fact in facts.items() if fact]
    rows += [["file", url] for d in data_set.downloads for url, _, _ in d.files]
    print(f"{data_set.name}\n{table(rows, right=())}")
    root = data_set.root(options.root)
    if options.root is not None or root.exists():
        print(_task_text(_load(options, data_set)))
    return 0


def _download(options: argparse.Namespace) -> int:
    data_set = get_data_set(options.name)
    require_extra("data", "requests")
    from ..datasets.download import download_all

    root = data_set.root(options.root)
    downloads = data_set.all_downloads()
    if not downloads:
        raise TaskError(f"{data_set.name} cannot be downloaded: {data_set.manual}")
    archives = download_all(downloads, root)
    print(f"{root}: all {len(downloads)} downloads are here")
    if archives:
        size = sum(path.stat().st_size for path in archives)
        print(f"unpacked, may be deleted: {archives[0].parent} ({size / 1e9:.2f} GB)")
    if data_set.manual:
        print(f"by hand: {data_set.manual}")
    return 0


def _validate(options: argparse.Namespace) -> int:
    from ..datasets.validate import validate

    data_set = get_data_set(options.name)
    task = _load(options, data_set)
    found = validate(task, data_set.seconds)
    print(_task_text(task))
    print(
        f"{found.good} files are good, {len(found.missing)} missing, "
        f"{len(found.undecodable)} cannot be decoded, {len(found.incomplete)} not whole, "
        f"{len(found.wrong_length)} of wrong length"
    )
    _print_files("missing", dict.fromkeys(found.missing, ""))
    _print_files("cannot be decoded", found.undecodable)
    _print_files("not whole", found.incomplete)
    _print_files("wrong length", {p: f"{s:.2f} s" for p, s in found.wrong_length.items()})
    for paths in found.contradictory:
        _print_files("the same audio under different labels", dict.fromkeys(paths, ""))
    if found.missing and (data_set.downloads or data_set.mirdata):
        marks = data_set.root(options.root) / "downloads" / "*.unpacked"
        print(
            f"to get files again, remove {marks} and give: hear-tune data download {options.name}"
        )
    sound = bool(found.missing) or _is_sound(task, data_set.root(options.root))
    return 0 if found.complete and sound else EXIT_FAILED


def _is_sound(task: Task, root: Path) -> bool:
    from ..datasets.check import check_task

    try:
        notes = check_task(task, root)
    except TaskError as error:
        say(f"  fault: {error}")
        return False
    for note in notes:
        print(f"note: {note}")
    return True


def _load(options: argparse.Namespace, data_set: DataSet) -> Task:
    return data_set.load(options.root, options.split, options.group)


def _task_text(task: Task) -> str:
    counts = ", ".join(f"{split} {len(task.of(split)):,}" for split in sorted(task.splits))
    named = f" (split {task.split})" if task.split else ""
    return f"{task.name}{named}: {task.kind}, {len(task.classes)} classes; {counts}"


def _print_files(fault: str, reasons: dict[Path, str]) -> None:
    lines = [
        one_line(str(path)) + (f": {one_line(reason)}" if reason else "")
        for path, reason in reasons.items()
    ]
    if lines:
        say(f"  {fault}: " + first_n(lines, _LISTED, f"\n  {fault}: "))
