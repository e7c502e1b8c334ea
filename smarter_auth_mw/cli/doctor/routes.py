"""Compares an app's routes with ROUTES: which line covers each, and what is open, hidden or refused by mistake."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from starlette.middleware.cors import CORSMiddleware

from smarter_auth_mw.asgi import SmarterAuthMiddleware
from smarter_auth_mw.cli.guards import find_middleware
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.configured import compile_routes
from smarter_auth_mw.decision import Denial
from smarter_auth_mw.domain import Resource, Target
from smarter_auth_mw.routing.app_routes import MAX_DEPTH, PLACEHOLDER, SAMPLES, AppRoute
from smarter_auth_mw.routing.grammar import Pattern
from smarter_auth_mw.routing.resolution import Judgement
from smarter_auth_mw.routing.router_check import none_line
from smarter_auth_mw.routing.routes import Routes

_LITERAL = re.compile(r"[A-Za-z0-9._~-]+")
_SUFFIX = re.compile(r"_?(id|ref|name|slug|uuid|pk|key)$")


Level = Literal["problem", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that needs attention.

    A ``problem`` is certainly wrong, and sets the command's exit code. A ``note`` never does, not even with
    ``--strict``.
    """

    level: Level
    check: str
    message: str
    hint: str
    exit_code: int = 1

    def row(self) -> dict[str, str]:
        """Return the finding as it is printed."""
        message, hint = (" ".join(text.split()) for text in (self.message, self.hint))  # Some have several lines.
        return {"level": self.level, "check": self.check, "message": message, "hint": hint}


@dataclass(frozen=True, slots=True)
class Covered:
    """A route of the app, and how the middleware judges its requests."""

    route: AppRoute
    judgement: Judgement

    @property
    def is_resource(self) -> bool:
        return isinstance(self.judgement.result, Target)


def cover(app_routes: Iterable[AppRoute], routes: Routes, settings: Settings) -> list[Covered]:
    """Return how the middleware judges each route, including those of mounted apps."""
    return [Covered(route, _judge(route, routes, settings)) for route in app_routes]


def _judge(route: AppRoute, routes: Routes, settings: Settings) -> Judgement:
    judgement = _judge_by(route, routes, "")
    for app, prefix in route.inner:
        if judgement.result is None and (found := find_middleware(app)):
            judgement = _judge_by(route, compile_routes(found.settings or settings, found.app), prefix)
    return judgement


def _judge_by(route: AppRoute, routes: Routes, prefix: str) -> Judgement:
    """Judge a route by the most telling sample: one that names a resource, or else one that is refused."""
    judgements = [routes.explain(route.filled(sample, prefix)) for sample in SAMPLES]
    named = [judgement for judgement in judgements if isinstance(judgement.result, Target)]
    refused = [judgement for judgement in judgements if judgement.result is not None]
    return (named or refused or judgements)[0]


def check_routes(covered: Sequence[Covered], routes: Routes) -> Iterator[Finding]:
    """Return the findings from comparing the app's routes with the lines of ROUTES."""
    words = _words(routes.patterns)
    refused = [one.route.path for one in covered if isinstance(one.judgement.result, Denial)]
    for one in covered:
        yield from _of_route(one, routes, words, refused)
    lines = {one.judgement.line for one in covered}
    for pattern in routes.patterns:
        if str(pattern) not in lines:
            yield Finding(
                "warning",
                "idle",
                f"No route of the app matches {pattern}.",
                "Check that it begins with the app's prefix.",
            )


def check_slugs(patterns: Iterable[Pattern]) -> Iterator[Finding]:
    """Yield findings about patterns with one word, whose slugs and names are open below an unknown prefix."""
    for pattern in patterns:
        is_of_ids = pattern.form.placeholder in ("ref:int", "ref:uuid", "ref:hashed")
        if not pattern.is_host and not is_of_ids and len(pattern.literals) == 1:
            yield Finding(
                "warning",
                "slugs",
                f"{pattern} has one literal word: below a prefix that no line contains, requests with an id are "
                "refused, and a slug or name is open.",
                "List every prefix that is removed in or in front of the app in SMARTER_AUTH_MOUNTS, "
                "or write {ref:int} or {ref:uuid} if all references are ids.",
            )


def _of_route(one: Covered, routes: Routes, words: frozenset[str], refused: Sequence[str]) -> Iterator[Finding]:
    route, result = one.route, one.judgement.result
    path = route.filled(SAMPLES[0])["path"]
    if isinstance(result, Denial):
        yield _of_refused(route, result, routes, refused)
    elif isinstance(result, Target):
        value = result.names.ref if isinstance(result.names, Resource) else result.names.value
        if value not in SAMPLES:
            yield Finding("warning", "literal", f"{route} is read as {result.names}.", _none_hint(route))
    elif hidden := none_line(routes, path):
        if _looks_alike(route, words):
            yield Finding(
                "warning", "hidden", f"{route} is open because of the line: {hidden}", "Check that this is intended."
            )
    elif _looks_alike(route, words):
        yield Finding(
            "warning",
            "uncovered",
            f"{route} looks like a resource, and no line of ROUTES covers it: it is open to anyone.",
            f"Add a line for it to SMARTER_AUTH_ROUTES, or mark it as no resource: {_none_line(route)}",
        )


def _of_refused(route: AppRoute, denial: Denial, routes: Routes, refused: Sequence[str]) -> Finding:
    found = next(filter(None, map(routes.further_back, route.samples())), None)
    if found is None:
        return Finding("warning", "refused", f"{route} is refused: {denial.detail}.", _none_hint(route))
    remedies = found.remedies(route.path)
    if any(_may_cover(remedies.none, path) for path in refused if path.rstrip("/") != route.path.rstrip("/")):
        remedies = remedies._replace(none=_none_line(route))
    why = (
        f"{route} is refused: after a prefix it matches {found.pattern}, but no line of ROUTES matches the whole path."
    )
    return Finding("warning", "refused", why, str(remedies))


def _may_cover(none: str, path: str) -> bool:
    """Return whether a request to this route of the app may be in the subtree of the line."""
    words = none.removeprefix("none /").removesuffix("/**").split("/")
    segments = path.removeprefix("/").split("/")
    if any(":path" in segment for segment in segments[: len(words)]):
        return True
    return len(segments) >= len(words) and all(
        word == "{}" or "{" in segment or word == segment for word, segment in zip(words, segments, strict=False)
    )


def _words(patterns: Iterable[Pattern]) -> frozenset[str]:
    """Return the words for resources: the kinds, and the words before references."""
    named = [word for pattern in patterns for word in (pattern.kind, *pattern.literals[-1:])]
    return frozenset(map(_singular, named))


def _looks_alike(route: AppRoute, words: frozenset[str]) -> bool:
    """Return whether a placeholder follows such a word, or is named after one."""
    segments = route.path.split("/")
    for before, segment in pairwise(segments):
        found = PLACEHOLDER.fullmatch(segment)
        if found and not words.isdisjoint({_singular(before), _singular(_SUFFIX.sub("", found[1].lower()))}):
            return True
    return False


def _singular(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower()).removesuffix("s")


def _none_hint(route: AppRoute) -> str:
    return f"If it is not a resource, add to SMARTER_AUTH_ROUTES: {_none_line(route)}"


def _none_line(route: AppRoute) -> str:
    """Return the `none` line for this route only; a subtree if a placeholder may have several segments."""
    before, path, _ = route.path.partition(":path}")
    segments = before.split("/")[:-1] if path else before.split("/")
    words = ["{}" if "{" in segment or not _LITERAL.fullmatch(segment) else segment for segment in segments if segment]
    return f"none /{'/'.join([*words, '**'] if path else words)}"


def check_preflights(covered: Iterable[Covered], middlewares: Sequence[type], settings: Settings) -> Iterator[Finding]:
    """Yield findings about CORS preflights: what answers them, and whether they get through."""
    passes = settings.preflight == "pass"
    if _is_cors_inside(middlewares):
        preflights = "" if passes else "preflights, which carry no token, get 401, and "
        yield Finding(
            "warning",
            "cors",
            f"CORSMiddleware is inside SmarterAuthMiddleware: {preflights}refusals lack Access-Control-Allow-Origin"
            ", so that a page in a browser sees a failed fetch instead of the status.",
            "Add SmarterAuthMiddleware to the app and then CORSMiddleware, so that it is outside and adds its headers"
            " to refusals too.",
        )
    for one in covered:
        if one.is_resource and one.route.takes_options:
            effect = "runs for preflights without a token" if passes else "gets no preflight, which would need a token"
            yield Finding(
                "warning", "options", f"{one.route} answers OPTIONS, and {effect}.", "Let CORSMiddleware answer them."
            )


def check_pages(covered: Iterable[Covered], settings: Settings) -> Iterator[Finding]:
    """Yield findings about routes that are never reached because a page of the middleware has their path."""
    own = {path for path in (settings.live_path, settings.ready_path, settings.metrics_path) if path}
    for one in covered:
        if one.route.path in own and not one.route.host:
            yield Finding(
                "warning",
                "pages",
                f"{one.route} is never reached: a page of the middleware has the same path.",
                "Give one of the two another path.",
            )


def check_forwarding(app: Any) -> Iterator[Finding]:
    """Yield findings about middleware that trusts forwarded headers from any peer."""
    for _ in range(MAX_DEPTH):
        if getattr(getattr(app, "trusted_hosts", None), "always_trust", False):
            yield Finding(
                "warning",
                "proxies",
                f"{type(app).__name__} around the app trusts every peer: any client can claim any address in a header.",
                "List only the addresses of your proxies in its trusted_hosts.",
            )
        app = getattr(app, "app", None)


def _is_cors_inside(middlewares: Sequence[type]) -> bool:
    """Return whether refusals bypass CORSMiddleware; `serve` wraps an app without SmarterAuthMiddleware."""
    ours = [place for place, cls in enumerate(middlewares) if issubclass(cls, SmarterAuthMiddleware)]
    cors = [place for place, cls in enumerate(middlewares) if issubclass(cls, CORSMiddleware)]
    return bool(cors and (not ours or cors[-1] > ours[0]))


def row(one: Covered) -> dict[str, Any]:
    """Return a route as it is printed."""
    result = one.judgement.result
    verdict = "refused" if isinstance(result, Denial) else "resource" if result else "open"
    return {"route": str(one.route), "is": verdict, "line": one.judgement.line or None}
