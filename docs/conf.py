"""How Sphinx builds the documentation."""

from __future__ import annotations

from trio_tlsnode import __version__

project = "trio_tlsnode"
author = "The trio_tlsnode developers"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
# A single back quote names something of this package, a parameter, or something of Trio; the first is a link.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"

html_theme = "furo"
html_title = f"trio_tlsnode {version}"
