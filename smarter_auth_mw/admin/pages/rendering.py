"""Templates, and how values are shown: everything is escaped, times are relative and exact."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from smarter_auth_mw.admin.pages import assets
from smarter_auth_mw.admin.pages.visit import path_of
from smarter_auth_mw.log import printable
from smarter_auth_mw.tokens import without_tokens

FOLDER = Path(__file__).parent.parent / "templates"
_TIMES = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(?:\+00:00|Z)")
_UNITS = (("year", 31_536_000), ("month", 2_592_000), ("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


class Renderer:
    """Renders templates as HTML; ``files`` are the static files by their paths."""

    def __init__(self) -> None:
        self._paths, self.files = assets.load()
        # Templates do not change while the process runs, so their files are read once.
        self._environment = Environment(
            loader=FileSystemLoader(FOLDER),
            autoescape=True,
            auto_reload=False,
            undefined=StrictUndefined,
            finalize=_finalized,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "time": time,
            "exact": exact,
            "as_typed": as_typed,
            "as_named": as_named,
            "readable": readable,
            "lines": lines,
        }

    def render(self, template: str, root: str, context: Mapping[str, Any]) -> bytes:
        """Return a page; ``root`` is the relative path from it to the overview."""
        static = {name: root + path for name, path in self._paths.items()}
        url = partial(_url, root)
        text = self._environment.get_template(template).render(root=root, url=url, static=static, **context)
        return text.encode("utf-8", "backslashreplace")


def time(moment: str | datetime | None, otherwise: str = "-") -> Markup:
    """Show a relative time; the exact one is in the title, and in ``datetime`` for programs."""
    if moment is None:
        return escape(otherwise)
    at = _read(moment)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(_machine(at), _exact(at), relative(at))


def exact(moment: str | datetime | None, otherwise: str = "-") -> Markup:
    """Show a time both exactly and relatively."""
    if moment is None:
        return escape(otherwise)
    at = _read(moment)
    return Markup('<time datetime="{}">{}</time> <span class="dim">{}</span>').format(
        _machine(at), _exact(at), relative(at)
    )


def readable(text: str) -> str:
    """Write the times in a text as people read them, to the second."""
    return _TIMES.sub(r"\1 \2 UTC", text)


def relative(at: datetime, now: datetime | None = None) -> str:
    """Say how long ago it was, or in how long it will be."""
    seconds = (at - (now or datetime.now(UTC))).total_seconds()
    if abs(seconds) < 1:
        return "just now"
    unit, size = next((one for one in _UNITS if abs(seconds) >= one[1]), _UNITS[-1])
    count = int(abs(seconds) // size)
    text = f"{count} {unit}{'' if count == 1 else 's'}"
    return f"in {text}" if seconds > 0 else f"{text} ago"


def as_typed(value: object) -> Markup:
    """Put a value back into the field where it was typed, character for character."""
    return escape(value)


def as_named(value: object) -> Markup:
    """Show an id, a reference or a command exactly, but for characters that cannot be seen."""
    return escape(printable(str(value)))


def lines(text: str) -> Markup:
    """Show a text of several lines."""
    return Markup("<br>").join(_visible(line) for line in text.split("\n"))


def _finalized(value: Any) -> Any:
    """Escape invisible characters in everything that is shown, and hide tokens that were written into a name.

    Jinja then escapes the markup.
    """
    if isinstance(value, Markup):
        return value
    return _visible(value) if isinstance(value, str) else value


def _visible(text: str) -> str:
    return printable(without_tokens(text))


def _url(root: str, *parts: str, **query: Any) -> Markup:
    return escape(root + path_of(*parts, **query))


def _read(moment: str | datetime) -> datetime:
    return moment if isinstance(moment, datetime) else datetime.fromisoformat(moment)


def _machine(at: datetime) -> str:
    return at.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def _exact(at: datetime) -> str:
    return _machine(at).replace("T", " ").replace("Z", " UTC")
