"""A map of a library as one page of HTML that needs nothing else but the music."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from ..common.files import write_whole
from ..common.progress import progress_bar
from ..datasets.tables import read_table
from ..embedding.output import Library
from . import MAX_POINTS, ExploreError
from .pages import fill, read_part
from .projection import cluster, project
from .similar import neighbours

NEIGHBOURS = 10
_SEED = 0
_UNLABELLED = "(no label)"
_PLURALS = {"track": "tracks", "window": "windows", "timestamp": "timestamps"}


@dataclass(frozen=True)
class Grouping:
    """One way to colour the points.

    Attributes
    ----------
    name
        "folder", "label" or "cluster".
    groups
        Names of the groups, the largest first.
    members
        (points,) number of each point's group.
    """

    name: str
    groups: list[str]
    members: npt.NDArray[np.intp]


def write_map(
    library: Library,
    output: str | os.PathLike[str],
    *,
    title: str,
    music: str | os.PathLike[str] = "",
    labels: str | os.PathLike[str] | None = None,
    clusters: int | None = None,
    projection: str | None = None,
    max_points: int = MAX_POINTS,
) -> str:
    """Write the page.

    Parameters
    ----------
    library
        From `hear_tune.embedding.output.read_library`.
    output
        The page. It plays the files of the library from where they are; relative paths hold as
        long as page and music are moved together.
    title
        Of the page.
    music
        Folder that relative paths in the library start from.
    labels
        CSV with the columns path and label, to colour by.
    clusters
        So many groups by k-means, to colour by.
    projection
        As of `hear_tune.explore.projection.project`.
    max_points
        Of a larger library, so many rows are drawn at random.

    Returns
    -------
    str
        What the page shows, in words.

    Raises
    ------
    ExploreError
        If no path of the library has a label, or there is no folder to write into.
    ExploreError, TaskError
        If the projection or the clusters cannot be had, or the table of labels is wrong.
    """
    if not Path(output).parent.is_dir():
        raise ExploreError(f"{os.fspath(output)}: there is no such folder")
    chosen = _choose(library, max_points)
    groupings = [_group("folder", _folders(chosen.paths))]
    if labels is not None:
        groupings.append(_group("label", _labels(chosen.paths, Path(labels))))
    if clusters is not None:
        numbers = cluster(chosen.vectors, clusters)
        groupings.append(_group("cluster", [f"cluster {number + 1}" for number in numbers]))
    points, projected = project(chosen.vectors, projection)
    about = _about(library, chosen, projected)
    data = _data(chosen, points, groupings, Path(music), Path(output))
    page = fill(
        "map.html",
        title=html.escape(title),
        about=html.escape(about),
        style=read_part("map.css"),
        program=read_part("map.js"),
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    )
    write_whole(output, page)
    return about


def _choose(library: Library, count: int) -> Library:
    if count < 1:
        raise ExploreError(f"at least one point must be drawn, not {count}")
    if len(library.paths) <= count:
        return library
    generator = np.random.default_rng(_SEED)
    rows = np.sort(generator.choice(len(library.paths), count, replace=False))
    return Library(
        [library.paths[row] for row in rows],
        library.start[rows],
        library.end[rows],
        library.identity,
        library.vectors[rows],
    )


def _folders(paths: Sequence[str]) -> list[str]:
    """The folder of each path, without what is common to all."""
    folders = [os.path.dirname(path) or "." for path in paths]
    if len({os.path.isabs(folder) for folder in folders}) > 1:
        return folders
    common = os.path.commonpath(folders) or "."
    short = {folder: os.path.relpath(folder, common) for folder in set(folders)}
    return [short[folder] for folder in folders] if len(short) > 1 else folders


def _labels(paths: Sequence[str], table: Path) -> list[str]:
    by_path = {row["path"]: row["label"] for row in read_table(table, ["path", "label"])}
    labels = [by_path.get(path, _UNLABELLED) for path in paths]
    if all(path not in by_path for path in paths):
        raise ExploreError(f"{table}: has no label for any path of the library, such as {paths[0]}")
    return labels


def _group(name: str, values: Sequence[str]) -> Grouping:
    groups, members, sizes = np.unique(values, return_inverse=True, return_counts=True)
    order = np.argsort(-sizes, kind="stable")
    rank = np.argsort(order)
    names = [str(groups[number]) for number in order]
    return Grouping(name, names, rank[members])


def _about(library: Library, chosen: Library, projected: str) -> str:
    """What the page shows, in words."""
    identity = library.identity
    rows, tracks = len(chosen.paths), len(set(chosen.paths))
    of = f" of {len(library.paths):,}" if rows < len(library.paths) else ""
    per = f"{rows:,}{of} {_PLURALS[identity['per']]}"
    if identity["per"] != "track":
        per += f" of {tracks:,} files"
    model, _, digest = identity["model"].partition(" sha256:")
    name = f"{model} ({digest[:8]})" if digest else model
    layers = identity["layers"]
    layer = layers[0] if len(layers) == 1 else f"{len(layers)} layers"
    return f"{per} · {name}, {layer}, {library.vectors.shape[1]} dimensions · {projected}"


def _data(
    library: Library, points: Any, groupings: list[Grouping], music: Path, output: Path
) -> dict[str, Any]:
    """What the page's program reads: small things as they are, one value per point in base64."""
    paths = list(dict.fromkeys(library.paths))
    number = {path: position for position, path in enumerate(paths)}
    count = min(NEIGHBOURS, len(points) - 1)
    return {
        "files": [{"path": path, "url": _url(path, music, output)} for path in paths],
        "whole": library.identity["per"] == "track",
        "file": _packed([number[path] for path in library.paths], np.uint32),
        "start": _packed(library.start, np.float32),
        "end": _packed(library.end, np.float32),
        "x": _packed(points[:, 0], np.float32),
        "y": _packed(points[:, 1], np.float32),
        "neighbours": {"count": count, "rows": _packed(_neighbours(library, count), np.uint32)},
        "groupings": [
            {"name": g.name, "groups": g.groups, "members": _packed(g.members, np.uint32)}
            for g in groupings
        ],
    }


def _neighbours(library: Library, count: int) -> npt.NDArray[np.intp]:
    if count == 0:
        return np.empty((1, 0), np.intp)
    with progress_bar(total=len(library.vectors), unit="point", desc="neighbours") as bar:
        chunks = []
        for chunk in neighbours(library.vectors, count):
            chunks.append(chunk)
            bar.update(len(chunk))
    return np.concatenate(chunks)


def _packed(values: npt.ArrayLike, kind: type[np.generic]) -> str:
    """Values as little-endian bytes in base64."""
    array = np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<"))
    return base64.b64encode(array.tobytes()).decode()


def _url(path: str, music: Path, output: Path) -> str:
    """Where a page finds a file: relative to the page if its path is, else from the root."""
    if os.path.isabs(path):
        return Path(path).as_uri()
    relative = os.path.relpath(music / path, output.parent)
    return quote(relative.replace(os.sep, "/"))
