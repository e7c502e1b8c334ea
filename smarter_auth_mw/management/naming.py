"""Resources as people write them, ``KIND:REF``, and the URLs that lead to them, by the same routes as requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from smarter_auth_mw.domain import Alias, Bindings, Resource, Target
from smarter_auth_mw.errors import InvalidReferenceError, RefusedError, UnknownKindError, UsageError
from smarter_auth_mw.routing.grammar import Pattern
from smarter_auth_mw.routing.references import FORMS
from smarter_auth_mw.routing.routes import Routes

ALIAS_FORMS = ("name", "label")
ANY_ACCOUNT = "default"
Read = Callable[[Target], Awaitable[Bindings]]
_ANYWAY = "If that is meant: --no-route."


class HiddenResourceError(UsageError):
    """Another line of the routes hides it."""

    code = "hidden"
    default_hint = _ANYWAY


async def resource(routes: Routes, text: str, read: Read, *, no_route: bool = False) -> Resource:
    """Return the resource that ``KIND:REF`` names, spelled as requests name it; a name becomes its reference.

    ``read`` looks names up, in the routes' default account. With ``no_route`` no route has to lead to the resource.
    Raises UnknownKindError, InvalidReferenceError, HiddenResourceError, and RefusedError for a name of several.
    """
    kind, ref = split(text)
    try:
        return routed(routes, kind, ref)
    except (UnknownKindError, HiddenResourceError):
        if not no_route:
            raise
    except InvalidReferenceError:
        found = await _named(routes, kind, ref, read)
        if found is None:
            raise
        return found
    return unrouted(kind, ref)


async def _named(routes: Routes, kind: str, name: str, read: Read) -> Resource | None:
    """Return the one resource of this name or host label."""
    for alias in aliases(routes, kind, name, routes.default_account):
        found = await read(Target(alias))
        if found.account is not None and not found.resource.ref:
            raise RefusedError(f"Several resources are called {kind}:{name}.", hint="Write the reference of one.")
        if found.account is not None:
            return found.resource
    return None


def split(text: str) -> tuple[str, str]:
    """``KIND:REF`` at its first colon."""
    kind, colon, ref = text.partition(":")
    if not (kind and colon and ref):
        raise UsageError(f"{text!r} names no resource.", hint="Write KIND:REF, for example bot:42.")
    return kind, ref


def routed(routes: Routes, kind: str, ref: str) -> Resource:
    """The resource that requests reach by this reference, in its canonical spelling.

    Raises UnknownKindError, InvalidReferenceError, and HiddenResourceError where a line of ROUTES hides it.
    """
    if kind not in routes.kinds:
        raise UnknownKindError(f"No route names the kind {kind!r}, but {', '.join(routes.kinds)}.", hint=_ANYWAY)
    resource = routes.canonical(kind, ref)
    for url in _written(routes, resource):
        _check_reached(routes, url, *resource)
    return resource


def unrouted(kind: str, ref: str) -> Resource:
    """A resource that no route has to lead to; raises InvalidReferenceError."""
    canonical = FORMS["ref"].parse(ref)
    if canonical is None:
        raise InvalidReferenceError(f"{ref!r} is no reference: that is {FORMS['ref'].rule}.")
    return Resource(kind, canonical)


def check_name(routes: Routes, kind: str, name: str) -> None:
    """Raise HiddenResourceError where a line of ROUTES hides the name."""
    for pattern in _patterns(routes, kind, aliases=True):
        value = pattern.form.parse(name)
        if value is not None:
            _check_reached(routes, _url(pattern, value), kind, value)


def aliases(routes: Routes, kind: str, text: str, account: str) -> list[Alias]:
    """Return what the text may be as a name or a host label, by the patterns of the kind."""
    found = []
    for pattern in _patterns(routes, kind, aliases=True):
        value = pattern.form.parse(text)
        if value is not None:
            found.append(Alias(kind, "name" if pattern.form.placeholder == "name" else "label", value, account))
    return list(dict.fromkeys(found))


def urls(routes: Routes, resource: Resource) -> list[str]:
    """The URLs by whose reference requests reach the resource."""
    return [url for url in _written(routes, resource) if _reaches(routes, url, *resource)]


def _written(routes: Routes, resource: Resource) -> Iterator[str]:
    for pattern in _patterns(routes, resource.kind, aliases=False):
        if pattern.form.parse(resource.ref) == resource.ref:
            yield _url(pattern, resource.ref)


def _patterns(routes: Routes, kind: str, *, aliases: bool) -> Iterator[Pattern]:
    for pattern in routes.patterns:
        if pattern.kind == kind and (pattern.form.placeholder in ALIAS_FORMS) is aliases:
            yield pattern


def _url(pattern: Pattern, value: str) -> str:
    text = pattern.text.removeprefix("host:")
    return text.replace(f"{{{pattern.form.placeholder}}}", value)


def _check_reached(routes: Routes, url: str, kind: str, value: str) -> None:
    if not _reaches(routes, url, kind, value):
        raise HiddenResourceError(f"{url} is no way to {kind}:{value}: another line of the routes decides about it.")


def _reaches(routes: Routes, url: str, kind: str, value: str) -> bool:
    """Ask the routes themselves, since a `none` line and a more specific pattern hide it alike."""
    if not url.startswith("/"):
        return True
    judgement = routes.explain({"type": "http", "method": "GET", "path": url.replace("{account}", ANY_ACCOUNT)})
    if not isinstance(judgement.result, Target):
        return False
    reached = judgement.result.names
    return (reached.kind, reached.ref if isinstance(reached, Resource) else reached.value) == (kind, value)
