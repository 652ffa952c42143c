"""Draw the rooms of the package and the imports between them: rooms.py ROOMS.svg."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "hear_tune"
UPSTREAM = PACKAGE.parent / "upstream"

Edges = dict[str, set[str]]

# Lengths in pixels.
_WIDTH, _ROW, _BOX_WIDTH, _BOX_HEIGHT, _MARGIN = 1080, 92, 208, 48, 24


def modules() -> Iterator[tuple[tuple[str, ...], Path]]:
    """Yield each module's name below hear_tune, in parts, and its file."""
    for folder, prefix in ((PACKAGE, ()), (UPSTREAM, ("upstream",))):
        for path in sorted(folder.rglob("*.py")):
            parts = (*prefix, *path.relative_to(folder).with_suffix("").parts)
            if parts not in {("__init__",), ("__main__",)}:
                yield parts, path


def imported_rooms(parts: tuple[str, ...], path: Path) -> set[str]:
    """Return the rooms that a module imports from, also inside functions."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = (alias.name.split(".") for alias in node.names)
            rooms |= {name[1] for name in names if name[0] == "hear_tune" and len(name) > 1}
            continue
        if not isinstance(node, ast.ImportFrom):
            continue
        named = node.module.split(".") if node.module else []
        if node.level:
            named = [*parts[: len(parts) - node.level], *named]
        elif named[:1] == ["hear_tune"]:
            named = named[1:]
        else:
            continue
        rooms |= set(named[:1] or [alias.name for alias in node.names])
    return rooms


def edges() -> Edges:
    """Return the rooms that each room imports from."""
    found: Edges = {}
    for parts, path in modules():
        found.setdefault(parts[0], set()).update(imported_rooms(parts, path) - {parts[0]})
    return {room: {other for other in below if other in found} for room, below in found.items()}


def level(room: str, found: Edges) -> int:
    """Return the length of the longest path down from a room."""
    return 1 + max((level(below, found) for below in found[room]), default=-1)


def reduced(found: Edges) -> Edges:
    """Return the edges that are not implied by longer paths."""

    def beyond(room: str) -> set[str]:
        return {far for below in found[room] for far in found[below] | beyond(below)}

    return {room: below - beyond(room) for room, below in found.items()}


def svg(found: Edges) -> str:
    """Return the figure, with the lowest rooms at the bottom."""
    rows: dict[int, list[str]] = {}
    for room in sorted(found):
        rows.setdefault(level(room, found), []).append(room)
    places = {}
    for number, rooms in rows.items():
        gap = _WIDTH / len(rooms)
        for column, room in enumerate(rooms):
            top = _MARGIN + (len(rows) - 1 - number) * _ROW
            places[room] = (round(gap * (column + 0.5)), top)
    height = 2 * _MARGIN + (len(rows) - 1) * _ROW + _BOX_HEIGHT
    arrows = [
        _arrow(places[room], places[other])
        for room, below in sorted(reduced(found).items())
        for other in sorted(below)
    ]
    boxes = [_box(room, *place) for room, place in places.items()]
    body = "\n".join([*arrows, *boxes])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'aria-label="Rooms of hear_tune and their imports" '
        'font-family="Helvetica, Arial, sans-serif">\n<defs><marker id="tip" viewBox="0 0 8 8" '
        'refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#8a8a8a"/></marker></defs>\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>\n{body}\n</svg>\n'
    )


def _arrow(upper: tuple[int, int], lower: tuple[int, int]) -> str:
    (x, y), (to_x, to_y) = upper, lower
    start, end = y + _BOX_HEIGHT, to_y - 2
    bend = (start + end) / 2
    return (
        f'<path d="M{x} {start} C{x} {bend} {to_x} {bend} {to_x} {end}" fill="none" '
        'stroke="#8a8a8a" marker-end="url(#tip)"/>'
    )


def _box(room: str, x: int, y: int) -> str:
    left = x - _BOX_WIDTH // 2
    return (
        f'<rect x="{left}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="6" '
        f'fill="#eef3f9" stroke="#3b6fb6"/><text x="{x}" y="{y + 21}" text-anchor="middle" '
        f'font-size="15" font-weight="bold" fill="#222">{room}</text>'
        f'<text x="{x}" y="{y + 38}" text-anchor="middle" font-size="10.5" fill="#444">'
        f"{escape(_ROOMS[room])}</text>"
    )


_ROOMS = {
    "audio": "find, decode and resample files",
    "baselines": "MFCC, log-mel, musicnn",
    "benchmarks": "speed on this machine",
    "checkpoints": "read and write weights safely",
    "cli": "one module per command",
    "common": "files, locks, progress, devices",
    "datasets": "labelled data sets and splits",
    "embedding": "arrays, files, folders, streams",
    "explore": "search, maps, reports",
    "hear": "the HEAR interface",
    "hear_benchmark": "heareval's runners and tables",
    "networks": "configurations and encoders",
    "pretrain": "CLMR on Lightning",
    "probe": "protocols, metrics, results",
    "upstream": "the s3prl upstream",
    "weights": "the packaged weights",
}


if __name__ == "__main__":
    if Path(sys.argv[1]).suffix != ".svg":
        sys.exit("rooms.py OUT.svg")
    Path(sys.argv[1]).write_text(svg(edges()), encoding="utf-8")
