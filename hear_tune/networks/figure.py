"""Draw an encoder from its configuration; time scales get coarser downwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise

from .config import FACTOR, SAMPLE_RATE_HZ, WINDOW_SAMPLES, TuneConfig
from .geometry import Layer, encoder_layers
from .variants import Variant

# Lengths in pixels.
_COLUMN, _ROW = 76, 52
_BOX_WIDTH, _BOX_HEIGHT = 58, 34
_LEFT, _TOP, _BOTTOM = 128, 74, 40

_COLOURS = {
    "contractive": "#3b6fb6",
    "expansive": "#2e8b6f",
    "tail": "#b65c3b",
    "blocks": "#b65c3b",
}
_INK, _FAINT = "#222222", "#8a8a8a"


def network_svg(variant: Variant, notes: Mapping[str, Sequence[str]] | None = None) -> str:
    """Draw a variant as SVG: layers with their channels and frames, and the connections.

    Parameters
    ----------
    variant : Variant
        The encoder.
    notes : mapping of str to sequence of str, optional
        Lines to write below layers, by name.
    """
    layers = encoder_layers(variant.config)
    places = {layer.name: (column, _level(layer)) for column, layer in enumerate(layers)}
    depth = max(level for _, level in places.values())
    width = _LEFT + (len(layers) + 1) * _COLUMN + 40
    height = _TOP + depth * _ROW + _BOX_HEIGHT + _BOTTOM
    body = [
        *_rows(depth, width),
        *(_arrow(places[a], places[b], faint) for a, b, faint in _connections(variant, layers)),
        *(_box(layer, places[layer.name]) for layer in layers),
        *(line for name, lines in (notes or {}).items() for line in _notes(places[name], lines)),
        *_embedding(variant, places[layers[-1].name]),
        _text(_LEFT - 108, 28, variant.name, 20, "start", weight="bold"),
        *_legend(layers),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="Helvetica, Arial, sans-serif" '
        f'role="img" aria-label="Layers of {escape(variant.name)}">\n'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="context-stroke"/></marker>'
        "</defs>\n"
        f'<rect width="{width}" height="{height}" fill="white"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _level(layer: Layer) -> int:
    return next(level for level in range(32) if FACTOR**level == layer.stride)


def _connections(variant: Variant, layers: tuple[Layer, ...]) -> Iterator[tuple[str, str, bool]]:
    """Yield the layers at both ends of each arrow, and whether it is faint."""
    names = [layer.name for layer in layers]
    for source, target in pairwise(names):
        yield source, target, False
    config = variant.config
    if not isinstance(config, TuneConfig):
        return
    for level in range(config.top_level, config.contractive):
        yield f"contractive.{level}", f"expansive.{level}", True
    for level in config.tail_levels if config.extra_connections else ():
        source = f"{'expansive' if level < config.contractive else 'contractive'}.{level}"
        if level <= config.contractive:
            yield source, f"tail.{level}", True


def _centre(place: tuple[int, int]) -> tuple[int, int]:
    column, level = place
    return _LEFT + column * _COLUMN + _BOX_WIDTH // 2, _TOP + level * _ROW + _BOX_HEIGHT // 2


def _arrow(source: tuple[int, int], target: tuple[int, int], faint: bool) -> str:
    (x1, y1), (x2, y2) = _centre(source), _centre(target)
    x1, x2 = x1 + _BOX_WIDTH // 2, x2 - _BOX_WIDTH // 2
    style = f'stroke="{_FAINT}" stroke-dasharray="4 4"' if faint else f'stroke="{_INK}"'
    bend = f"M{x1} {y1} C{x1 + 12} {y1} {x2 - 12} {y2} {x2} {y2}"
    return f'<path d="{bend}" fill="none" stroke-width="1.3" {style} marker-end="url(#tip)"/>'


def _box(layer: Layer, place: tuple[int, int]) -> str:
    x, y = _centre(place)
    colour = _COLOURS[layer.name.split(".")[0]]
    frames = WINDOW_SAMPLES // layer.stride
    return (
        f'<rect x="{x - _BOX_WIDTH // 2}" y="{y - _BOX_HEIGHT // 2}" width="{_BOX_WIDTH}" '
        f'height="{_BOX_HEIGHT}" rx="5" fill="{colour}"/>'
        + _text(x, y - 2, str(layer.channels), 14, "middle", "white", "bold")
        + _text(x, y + 12, f"× {frames:,}", 10, "middle", "white")
    )


def _notes(place: tuple[int, int], lines: Sequence[str]) -> Iterator[str]:
    x, y = _centre(place)
    for number, line in enumerate(lines):
        yield _text(x, y + _BOX_HEIGHT // 2 + 11 * (number + 1), line, 9, "middle")


def _embedding(variant: Variant, last: tuple[int, int]) -> Iterator[str]:
    place = (last[0] + 1, last[1])
    x, y = _centre(place)
    yield _arrow(last, place, False)
    yield _text(x - 22, y - 2, str(variant.config.embedding_size), 14, "start", weight="bold")
    yield _text(x - 22, y + 12, "mean over time", 10, "start")


def _rows(depth: int, width: int) -> Iterator[str]:
    for level in range(depth + 1):
        _, y = _centre((0, level))
        milliseconds = 1000 * FACTOR**level / SAMPLE_RATE_HZ
        yield f'<path d="M{_LEFT - 16} {y} H{width - 16}" stroke="#eeeeee"/>'
        yield _text(_LEFT - 24, y + 4, f"{milliseconds:,.2f} ms", 11, "end", "#555555")
    yield _text(_LEFT - 24, _TOP - 8, "one frame per", 11, "end", "#555555")


def _legend(layers: tuple[Layer, ...]) -> Iterator[str]:
    paths = dict.fromkeys(layer.name.split(".")[0] for layer in layers)
    for index, path in enumerate(paths):
        x = _LEFT + 90 + 150 * index
        yield f'<rect x="{x}" y="16" width="14" height="14" rx="3" fill="{_COLOURS[path]}"/>'
        yield _text(x + 20, 28, path if path == "blocks" else f"{path} path", 13, "start")
    x = _LEFT + 90 + 150 * len(paths)
    yield _text(x, 28, "box: channels × frames of a 2.68 s window", 13, "start", "#555555")


def _text(
    x: int, y: int, text: str, size: int, anchor: str, colour: str = _INK, weight: str = "normal"
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{colour}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
