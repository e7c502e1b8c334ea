"""The site: Sphinx reads MyST Markdown, and what a reference says comes from the code."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from smarter_auth_mw import __version__

importlib.import_module("fastapi")  # Before autodoc does, as type checkers do, which pydantic does not bear.

project = "smarter_auth_mw"
release = version = __version__
html_title = f"{project} {release}"
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "from_code"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"

# Names of other packages and of what is not public are not looked up: the site is built without a network.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!smarter_auth_mw\.(models|signals|fastapi)\.).*"),
    (r"py:.*", r"smarter_auth_mw\.models\.querysets\..*"),
    (r"py:.*", r".*APIKeyModel"),
]
