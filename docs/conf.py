"""How Sphinx builds the documentation."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import matplotlib.font_manager  # noqa: F401 - lists the fonts, and would tell so within a notebook
from sphinx.application import Sphinx

from trio_tlsnode import Address, __version__

project = "trio_tlsnode"
author = "The trio_tlsnode developers"
copyright = author
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.intersphinx", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3

# Sphinx reads nothing from outside of its folder.  The notebooks are run each time, as what they show depends
# on the package; what one of them writes to the standard error is a warning.
_notebooks = Path(__file__).parent / "notebooks"
shutil.rmtree(_notebooks, ignore_errors=True)
_notebooks.mkdir()
for _path in Path(__file__).parent.parent.glob("notebooks/*.ipynb"):
    shutil.copy2(_path, _notebooks)
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 120
nb_execution_show_tb = True
nb_output_stderr = "warn"
nb_merge_streams = True
# Their tables are not in CommonMark.
nb_render_markdown_format = "myst"

# A single back quote names something of this package, a parameter, or something of Trio; the first is a link.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"

# Links to others need the network, and without it each of them would be a warning: only who asks has them.
intersphinx_mapping = {}
if "READTHEDOCS" in os.environ or "DOCS_INTERSPHINX" in os.environ:
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3/", None),
        "trio": ("https://trio.readthedocs.io/en/stable/", None),
        "cryptography": ("https://cryptography.io/en/latest/", None),
    }

html_theme = "furo"
html_title = f"trio_tlsnode {version}"
html_static_path = ["_static"]
html_css_files = ["notebooks.css"]


def setup(app: Sphinx) -> None:
    """Leave out what would be said twice: the fields of a named tuple are in the docstring of its class."""
    field = type(Address.host)
    app.connect(
        "autodoc-skip-member", lambda _app, _what, _name, obj, *_: True if type(obj) is field else None
    )
