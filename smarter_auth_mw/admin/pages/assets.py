"""Stylesheet, script and icon, each under a name with its hash, so that browsers cache them without expiry."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent.parent / "static"
MEDIA_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
CACHED = "public, max-age=31536000, immutable"


class Asset(NamedTuple):
    """A static file."""

    body: bytes
    media_type: str


def load() -> tuple[Mapping[str, str], Mapping[str, Asset]]:
    """Return the path of each file by its plain name, and each file by that path."""
    paths: dict[str, str] = {}
    files: dict[str, Asset] = {}
    for file in sorted(FOLDER.iterdir()):
        if file.suffix in MEDIA_TYPES:
            body = file.read_bytes()
            path = f"static/{file.stem}.{hashlib.sha256(body).hexdigest()[:16]}{file.suffix}"
            paths[file.name], files[path] = path, Asset(body, MEDIA_TYPES[file.suffix])
    return paths, files
