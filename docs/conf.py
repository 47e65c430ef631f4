"""How Sphinx makes these pages: scripts/docs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import verbs

import pageowner

project = "pageowner"
author = "the authors of pageowner"
copyright = author
version = release = pageowner.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
nitpicky = False
default_role = "code"  # `x` in docstrings
smartquotes = False  # two dashes begin an option

myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_member_order = "bysource"

html_theme = "furo"  # all that a reader's browser wants is in the pages
html_title = f"pageowner {version}"
html_show_copyright = False
html_copy_source = False


def setup(app):  # type: ignore[no-untyped-def]
    """Verbs are written from the code as pages are read."""
    app.connect("source-read", _fill)


def _fill(app, name, text):  # type: ignore[no-untyped-def]
    text[0] = text[0].replace("<!-- verbs -->", verbs.reference())
