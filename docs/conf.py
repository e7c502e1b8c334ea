"""The site: Sphinx reads MyST Markdown, and what a reference says comes from the code."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

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


def link_pictures(app: Sphinx, document: nodes.document, page: str) -> None:
    """Link each picture to its full size: on a narrow screen its labels are too small to read."""
    directory = "../" * page.count("/") + "_images"
    for picture in list(document.findall(nodes.image)):
        if not isinstance(picture.parent, nodes.reference):
            _, name = app.env.images[picture["uri"]]
            picture.replace_self(nodes.reference("", "", picture.copy(), internal=True, refuri=f"{directory}/{name}"))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-resolved", link_pictures)
    return {"parallel_read_safe": True}
