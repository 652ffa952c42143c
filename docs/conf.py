"""Configuration of the documentation; computes the numbers on its pages from the package."""

from __future__ import annotations

import posixpath
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.addnodes import pending_xref

from hear_tune.common.markdown import markdown_table
from hear_tune.hear import load_model
from hear_tune.networks.config import SAMPLE_RATE_HZ, TIMESTAMP_STRIDE, WINDOW_SAMPLES
from hear_tune.networks.figure import network_svg
from hear_tune.networks.summary import PROBE_CLASSES, parameter_count, variants_table
from hear_tune.networks.variants import DEFAULT_VARIANT, get_variant
from hear_tune.pretrain.tar_shards import CLIP_SECONDS, CLIPS_PER_SHARD, OPEN_SHARDS
from hear_tune.probe.across import LOGISTIC_C, RAW_C
from hear_tune.probe.protocols import JUKEMIR
from hear_tune.weights import DEFAULT_PRETRAINED, PRETRAINED

if TYPE_CHECKING:
    from docutils.nodes import document
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]

project = "hear-tune"
author = "The hear-tune developers"
version = release = version_of("hear-tune")
html_title = f"hear-tune {version}"
html_show_copyright = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "sphinx_copybutton"]
myst_enable_extensions = ["substitution"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False

# Signatures show the types from the annotations.
default_role = "py:obj"
numpydoc_show_class_members = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_type_aliases = {
    "npt.ArrayLike": "numpy.typing.ArrayLike",
    "LayerChoice": "str | Sequence[str] | None",
}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
add_module_names = False

# Only names of hear_tune must resolve. Those of other libraries would need their inventories, and a
# name in backticks without a dot may be a parameter.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:(class|obj)", r"(collections|lightning|numpy|os|pathlib|requests|torch)\..+"),
    (r"py:class", r"(np|npt)\..+|dict\[.*|Vectors|Tensor"),  # unevaluated annotations
    (r"py:obj", r"\w+"),
]


def _milliseconds(samples: int) -> str:
    return f"{1000 * samples / SAMPLE_RATE_HZ:,.2f}"


def _layers_table() -> str:
    """Return the layers of the default variant as a Markdown table."""
    rows = [["layer", "channels", "a frame every", "receptive field"]]
    rows += [
        [
            f"`{layer.name}`",
            str(layer.channels),
            f"{_milliseconds(layer.stride)} ms",
            f"{_milliseconds(layer.grid.receptive_field)} ms",
        ]
        for layer in _model.encoder.layers
    ]
    return markdown_table(rows, right=True)


def _fenced(kind: str, text: str) -> str:
    return f"```{kind}\n{text.strip()}\n```"


_model = load_model()
_variant = get_variant(DEFAULT_VARIANT)
_weights = PRETRAINED[DEFAULT_PRETRAINED]

myst_substitutions = {
    "sample_rate": f"{SAMPLE_RATE_HZ:,} Hz",
    "weights": f"`{_weights.name}`",
    "weights_mb": f"{_weights.path.stat().st_size / 1e6:.1f} MB",
    "parameters": f"{parameter_count(_variant.config):,}",
    "head_classes": PROBE_CLASSES,
    "embedding_size": _model.scene_embedding_size,
    "embedding_layers": ", ".join(f"`{name}`" for name in _model.layers),
    "layer_count": len(_model.encoder.layers),
    "layers_size": f"{sum(layer.channels for layer in _model.encoder.layers):,}",
    "timestamp_size": f"{_model.timestamp_embedding_size:,}",
    "timestamp_layers": ", ".join(f"`{name}`" for name in _model.timestamp_layers),
    "timestamp_stride": f"{TIMESTAMP_STRIDE} samples ({_milliseconds(TIMESTAMP_STRIDE)} ms)",
    "window": f"{_model.window_samples:,} samples ({_milliseconds(_model.window_samples)} ms)",
    "paper_window": f"{WINDOW_SAMPLES:,} samples ({_milliseconds(WINDOW_SAMPLES)} ms)",
    "store_mb_per_hour": f"{2 * SAMPLE_RATE_HZ * 3600 / 1e6:.0f} MB",
    "clip_seconds": f"{CLIP_SECONDS:.0f} s",
    "clips_per_shard": CLIPS_PER_SHARD,
    "open_shards": OPEN_SHARDS,
    "jukemir_points": len(JUKEMIR.grid),
    "logistic_c": LOGISTIC_C,
    "raw_c": RAW_C,
    "layers_table": _layers_table(),
    "variants_table": _fenced("text", variants_table()),
    "figure": _fenced(
        "{raw} html",
        f'<div class="network" tabindex="0">{network_svg(_variant)}</div>',
    ),
}

# Markdown files of the project that are pages here, and the pages' names. The page of
# recipes/weights/README.md is recipes/weights, so the page's name is the folder of its links.
_PAGES = {"MODEL_CARD.md": "model_card", "CHANGELOG.md": "changelog", "recipes": "recipes/index"}


def lead_links(app: Sphinx, doctree: document) -> None:
    """Resolve links of an included file to pages; links to files without a page become text."""
    page = app.env.docname
    if page not in _PAGES.values() and not page.startswith("recipes/"):
        return
    folder = page.removesuffix("/index") if page.startswith("recipes/") else ""
    for link in list(doctree.findall(pending_xref)):
        if link["reftype"] != "myst":
            continue
        if posixpath.isabs(link["reftarget"]):  # as myst resolves it, relative to the pages
            path = Path(link["reftarget"] + ".md").relative_to(ROOT).as_posix()
        else:
            path = posixpath.normpath(posixpath.join(folder, link["reftarget"]))
        target = _PAGES.get(path, path)
        if target in app.env.found_docs:
            link.attributes |= {"refdomain": "doc", "reftarget": target, "reftargetid": None}
        elif (ROOT / path).is_file():
            link.replace_self(link.children)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the handler of links."""
    app.connect("doctree-read", lead_links)
    return {"parallel_read_safe": True}
