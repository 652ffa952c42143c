"""Configuration of the documentation."""

from __future__ import annotations

import posixpath
import re
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.addnodes import pending_xref
from sphinx.errors import ExtensionError

from hear_tune.networks.figure import network_svg
from hear_tune.networks.variants import DEFAULT_VARIANT, get_variant

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

# The figure of the network, which the site draws in its own colours.
_FIGURE = re.compile(r"^!\[[^]]*\]\(\.\./figures/tune-plus\.svg\)$", re.MULTILINE)

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


def inline_figure(_: Sphinx, page: str, source: list[str]) -> None:
    """Put the figure itself in place of its image on the page of the network."""
    if page == "network":
        drawing = network_svg(get_variant(DEFAULT_VARIANT))
        html = f'<div class="network" tabindex="0">{drawing.strip()}</div>'
        source[0], found = _FIGURE.subn(lambda _: f"```{{raw}} html\n{html}\n```", source[0])
        if found != 1:
            raise ExtensionError(f"{page} should show the figure of the network, and once")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the handlers of figures and links."""
    app.connect("source-read", inline_figure)
    app.connect("doctree-read", lead_links)
    return {"parallel_read_safe": True}
