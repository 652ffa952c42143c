"""Map a library as one HTML page that needs nothing but the music."""

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

from ..audio.reading import is_url
from ..common.files import write_whole
from ..common.progress import progress_bar
from ..common.ranges import at_least
from ..datasets.tables import read_table
from ..embedding.library import Library
from . import MAX_POINTS, ExploreError
from .pages import check_page, fill, read_part
from .projection import Points, approximate_graph, check_method, cluster, project
from .similar import ExactSearch, FileSearch, neighbours

NEIGHBOURS = 10
_SEED = 0
_UNLABELLED = "(no label)"
_PLURALS = {"track": "tracks", "window": "windows", "timestamp": "timestamps"}


@dataclass(frozen=True)
class Grouping:
    """One way to colour the points.

    Attributes
    ----------
    name : str
        "folder", "label" or "cluster".
    groups : list of str
        Names of the groups, the largest first.
    members : ndarray
        (points,), the index of each point's group.
    """

    name: str
    groups: list[str]
    members: npt.NDArray[np.intp]


def write_map(
    library: Library | str | os.PathLike[str],
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
    library : Library or path-like
        From `hear_tune.embedding.library.read_library`, or its file, of which only the vectors of
        the sample are held.
    output : path-like
        HTML page to write. It plays the library's files in place; relative paths remain valid as
        long as page and music move together.
    title : str
        Title of the page.
    music : path-like
        Base folder of relative paths in the library.
    labels : path-like, optional
        CSV file with the columns path and label, to colour by.
    clusters : int, optional
        Number of k-means clusters to colour by.
    projection : str, optional
        As for `hear_tune.explore.projection.project`.
    max_points : int
        Larger libraries are reduced to a random sample of this size. Of more than
        ``hear_tune.explore.projection.EXACT_POINTS``, neighbours are approximate if umap-learn is
        installed.

    Returns
    -------
    str
        Description of the page's content.

    Raises
    ------
    FileNotFoundError, StoreError
        If the library's file cannot be read.
    ExploreError
        If no path of the library has a label, the folder of the output or the music does not exist,
        the output's name does not end in .html, projection or clusters are not available, or the
        library's file changes while it is read.
    TaskError
        If the table of labels is invalid.
    ValueError
        If there is no such projection.
    """
    check_page(output)
    if not Path(music).is_dir():
        raise ExploreError(f"{os.fspath(music)}: no folder of music; relative paths start there")
    check_method(projection)
    total, chosen = _choose(library, max_points)
    groupings = [_group("folder", _folders(chosen.paths))]
    if labels is not None:
        groupings.append(_group("label", _labels(chosen.paths, Path(labels))))
    if clusters is not None:
        numbers = cluster(chosen.vectors, clusters)
        groupings.append(_group("cluster", [f"cluster {number + 1}" for number in numbers]))
    graph = approximate_graph(chosen.vectors)
    points, projected = project(chosen.vectors, projection, graph)
    about = _about(chosen, total, projected)
    count = min(NEIGHBOURS, len(points) - 1)
    nearest = graph.neighbours(count) if graph else _neighbours(chosen, count)
    data = _data(chosen, points, nearest, groupings, Path(music), Path(output))
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


def _choose(library: Library | str | os.PathLike[str], count: int) -> tuple[int, Library]:
    """Return the number of rows, and at most `count` of them, at random but in order."""
    at_least(1, count=count)
    search = ExactSearch(library) if isinstance(library, Library) else FileSearch(library)
    rows = search.library
    total = len(rows.paths)
    generator = np.random.default_rng(_SEED)
    sample = np.sort(generator.choice(total, min(count, total), replace=False))
    vectors = search.vectors(sample)
    paths = [rows.paths[row] for row in sample]
    return total, Library(paths, rows.start[sample], rows.end[sample], rows.identity, vectors)


def _folders(paths: Sequence[str]) -> list[str]:
    """Return the folder of each path relative to their common parent."""
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


def _about(chosen: Library, total: int, projected: str) -> str:
    """Describe the page's content."""
    identity = chosen.identity
    rows, tracks = len(chosen.paths), len(set(chosen.paths))
    of = f" of {total:,}" if rows < total else ""
    per = f"{rows:,}{of} {_PLURALS[identity['per']]}"
    if identity["per"] != "track":
        per += f" of {tracks:,} files"
    model, _, digest = identity["model"].partition(" sha256:")
    name = f"{model} ({digest[:8]})" if digest else model
    layers = identity["layers"]
    layer = layers[0] if len(layers) == 1 else f"{len(layers)} layers"
    return f"{per} · {name}, {layer}, {chosen.vectors.shape[1]} dimensions · {projected}"


def _data(
    library: Library,
    points: Points,
    nearest: npt.NDArray[np.intp],
    groupings: list[Grouping],
    music: Path,
    output: Path,
) -> dict[str, Any]:
    """Collect the data of the page's script; arrays of one value per point are in base64."""
    paths = list(dict.fromkeys(library.paths))
    number = {path: position for position, path in enumerate(paths)}
    return {
        "files": [{"path": path, "url": _url(path, music, output)} for path in paths],
        "whole": library.identity["per"] == "track",
        "file": _packed([number[path] for path in library.paths], np.uint32),
        "start": _packed(library.start, np.float32),
        "end": _packed(library.end, np.float32),
        "x": _packed(points[:, 0], np.float32),
        "y": _packed(points[:, 1], np.float32),
        "neighbours": {"count": nearest.shape[1], "rows": _packed(nearest, np.uint32)},
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
    """Encode values as little-endian bytes in base64."""
    array = np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<"))
    return base64.b64encode(array.tobytes()).decode()


def _url(path: str, music: Path, output: Path) -> str:
    """URL of a file: relative to the page if the path is relative, else absolute."""
    if is_url(path):
        return quote(path, safe=":/?&=%#")
    if os.path.isabs(path):
        return Path(path).as_uri()
    relative = os.path.relpath(music / path, output.parent)
    return quote(relative.replace(os.sep, "/"))
