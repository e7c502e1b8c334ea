"""Prefixes that routers remove: the readings of a path, and the prefixes found in a wrapped app."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from starlette.routing import BaseRoute
from starlette.staticfiles import StaticFiles

from smarter_auth_mw.errors import Mistake
from smarter_auth_mw.routing.folding import UnreadableError, fold

VARIABLE = "SMARTER_AUTH_MOUNTS"
MAX_READINGS = 32
"""The most readings of a path; no ordinary path has this many."""
MAX_DEPTH = 32

_SEGMENT = re.compile(r"\{[^/{}]*\}|[^/{}?#%\s]+")
_MOUNT = re.compile(rf"(?:/(?:{_SEGMENT.pattern}))+")
_PLACEHOLDER = re.compile(r"\{[^/{}]*\}")
_END = "/"  # no segment has this name
_MANY_SEGMENTS = re.compile(r"\{[^/{}]*:path\}")

Words = tuple[str | None, ...]
_Tree = dict[str | None, "_Tree"]


class Mounts:
    """Prefixes that the app removes by itself, ``/api`` or ``/u/{user}``: ``{…}`` is one segment."""

    def __init__(self, prefixes: Iterable[str], *, is_folded: bool = False) -> None:
        self._tree: _Tree = {}
        for prefix in prefixes:
            node = self._tree
            for word in words_of(prefix, is_folded=is_folded):
                node = node.setdefault(word, {})
            node[_END] = {}

    def __bool__(self) -> bool:
        return bool(self._tree)

    def starts(self, segments: Sequence[str], hosts: Collection[int] = ()) -> list[int]:
        """Return where readings of these segments begin: at the first one, and after each prefix, repeatedly.

        A URL parser also begins after the ``hosts``. Raises UnreadableError if there are too many.
        """
        if not self._tree and 0 not in hosts:
            return [0]
        found = [0]
        for start in found:
            ends = [*_ends(self._tree, segments, start), *([start + 1] if start in hosts else ())]
            found += [end for end in dict.fromkeys(ends) if end not in found]
            if len(found) > MAX_READINGS:
                raise UnreadableError("its mounts are nested too deeply")
        return found


def _ends(node: _Tree, segments: Sequence[str], at: int) -> Iterator[int]:
    """Yield the end of each prefix that begins at ``at``."""
    if _END in node:
        yield at
    if at < len(segments) and segments[at]:
        for word in (segments[at], None):
            if word in node:
                yield from _ends(node[word], segments, at + 1)


def words_of(prefix: str, *, is_folded: bool = False) -> Words:
    """Return the segments of a prefix, None for each placeholder."""
    segments = [segment for segment in prefix.split("/") if segment]
    return tuple(None if _PLACEHOLDER.fullmatch(one) else _folded(one) if is_folded else one for one in segments)


def _folded(word: str) -> str:
    return "/".join(fold(f"/{word}").reading.words)


def roots_of(root_path: str) -> tuple[str, ...]:
    """Return the spellings of ``root_path`` that routers remove: unchanged, and with exactly one leading slash."""
    bare = root_path.strip("/")
    return tuple(dict.fromkeys((root_path, f"/{bare}"))) if bare else ()


def check(prefixes: Iterable[str]) -> list[Mistake]:
    """Return the mistakes in configured prefixes."""
    rule = "a mount is a path prefix, for example /api or /u/{user}"
    return [Mistake(VARIABLE, prefix, rule) for prefix in prefixes if not _MOUNT.fullmatch(prefix.rstrip("/"))]


def mounts_of(app: Any) -> tuple[str, ...]:
    """Return the prefixes found in ``app``: along ``.app``, its ``root_path`` and its routes' mounts.

    Errors that the app raises during the inspection are ignored.
    """
    found = (usual(prefix) for prefix in _walk(app, "", set(), MAX_DEPTH))
    return tuple(dict.fromkeys(prefix for prefix in found if _MOUNT.fullmatch(prefix)))


def unknown_mounts(app: Any) -> tuple[str, ...]:
    """Return the mounts whose apps cannot be inspected, with the app's name; an empty path is the app itself."""
    return tuple(dict.fromkeys(_unknown(app, "", set(), MAX_DEPTH)))


def _unknown(app: Any, place: str, seen: set[int], depth: int) -> Iterator[str]:
    if app is None or id(app) in seen or depth == 0:
        return
    routes, inner = _attribute(app, "routes"), _attribute(app, "app")
    within = [inner if _attribute(inner, "__self__") is not app else None, _attribute(app, "router")]
    is_known = isinstance(routes, list) and all(isinstance(route, BaseRoute) for route in routes)
    if not is_known and within == [None, None]:
        yield f"{place} ({_text(app, '__name__') or type(app).__name__})"
        return
    seen.add(id(app))
    for one in within:
        yield from _unknown(one, place, seen, depth - 1)
    for route in _routes(app) if is_known else ():
        if _attribute(route, "endpoint") is None and _is_app(mounted := _attribute(route, "app")):
            yield from _unknown(mounted, place + (_text(route, "path") or _text(route, "host")), seen, depth - 1)


def usual(prefix: str) -> str:
    """Return the prefix with ``{}`` for segments that MOUNTS cannot express, such as ``v{version}`` or ``my app``."""
    return "".join("/" + (segment if _SEGMENT.fullmatch(segment) else "{}") for segment in prefix.split("/") if segment)


def less_roots(text: str, roots: Iterable[str]) -> Iterator[str]:
    """Return ``text`` without each of the ``roots`` that it contains."""
    # Litestar splits at the first root_path anywhere, also inside a segment, and collapses slashes in the rest;
    # Starlette and Django remove it from the front, which gives the same rest.
    for root in roots:
        _, separator, rest = text.partition(root)
        if separator:
            yield "/" + rest.lstrip("/")


def _walk(app: Any, prefix: str, seen: set[int], depth: int) -> Iterator[str]:
    if app is None or id(app) in seen or depth == 0:
        return
    seen.add(id(app))
    yield _text(app, "root_path")
    yield from _walk(_attribute(app, "app"), "", seen, depth - 1)
    yield from _walk(_attribute(app, "router"), prefix, seen, depth - 1)
    mounted = _attribute(app, "mounts")  # the dispatchers of Werkzeug and Hypercorn
    for path, inner in mounted.items() if isinstance(mounted, dict) else ():
        if isinstance(path, str):
            yield prefix + path
            yield from _walk(inner, "", seen, depth - 1)
    for route in _routes(app):
        yield from _walk_route(route, prefix, seen, depth - 1)


def _walk_route(route: Any, prefix: str, seen: set[int], depth: int) -> Iterator[str]:
    included = _attribute(route, "original_router")  # FastAPI keeps an included router as one route
    if included is not None:
        within = prefix + _text(_attribute(route, "include_context"), "prefix")
        yield from _walk(included, within, seen, depth)
    elif _attribute(route, "endpoint") is None and _is_app(_attribute(route, "app")):
        path = _text(route, "path")
        if path:
            yield from _spellings(prefix + path)
        yield from _walk(route, "", seen, depth)


def _is_app(app: Any) -> bool:
    # Static files have no handlers: /static/bots/logo.png is not what the app serves at /bots/.
    kind = type(app)
    return app is not None and not (issubclass(kind, StaticFiles) and kind.__call__ is StaticFiles.__call__)


def _spellings(path: str) -> Iterator[str]:
    yield path
    if _MANY_SEGMENTS.search(path):  # prefixes are removed repeatedly, so this one can remove any number of segments
        yield "/{path}"


def _routes(app: Any) -> list[Any]:
    try:
        return list(_attribute(app, "routes") or ())
    except Exception:
        return []


def _text(app: Any, name: str) -> str:
    value = _attribute(app, name)
    return value if isinstance(value, str) else ""


def _attribute(app: Any, name: str) -> Any:
    try:
        return getattr(app, name, None)
    except Exception:
        return None
