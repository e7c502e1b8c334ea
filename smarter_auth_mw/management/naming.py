"""Resources as people write them, ``KIND:REF``, and the URLs that lead to them, using the same routes as requests."""

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
_ANYWAY = "To accept it anyway: --no-route."


class HiddenResourceError(UsageError):
    """Another line of the routes hides this resource."""

    code = "hidden"
    default_hint = _ANYWAY


async def resource(routes: Routes, text: str, read: Read, *, no_route: bool = False) -> Resource:
    """Return the resource that ``KIND:REF`` names, spelled as requests name it; a name becomes its reference.

    ``read`` looks names up, in the routes' default account. With ``no_route``, no route needs to lead to the resource.
    Raises UnknownKindError, InvalidReferenceError, HiddenResourceError, and RefusedError for an ambiguous name.
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
            raise RefusedError(
                f"Several resources are named {kind}:{name}.", hint="Write the reference of the one that you mean."
            )
        if found.account is not None:
            return found.resource
    return None


def split(text: str) -> tuple[str, str]:
    """Split ``KIND:REF`` at its first colon."""
    kind, colon, ref = text.partition(":")
    if not (kind and colon and ref):
        raise UsageError(f"{text!r} names no resource.", hint="Write KIND:REF, for example bot:42.")
    return kind, ref


def routed(routes: Routes, kind: str, ref: str) -> Resource:
    """Return the resource that requests reach by this reference, in its canonical spelling.

    Raises UnknownKindError, InvalidReferenceError, and HiddenResourceError if a line of ROUTES hides it.
    """
    if kind not in routes.kinds:
        raise UnknownKindError(f"No route has the kind {kind!r}, only {', '.join(routes.kinds)}.", hint=_ANYWAY)
    resource = routes.canonical(kind, ref)
    for url in _written(routes, resource):
        _check_reached(routes, url, *resource)
    return resource


def unrouted(kind: str, ref: str) -> Resource:
    """Return a resource without requiring a route to it; raises InvalidReferenceError."""
    canonical = FORMS["ref"].parse(ref)
    if canonical is None:
        raise InvalidReferenceError(f"{ref!r} is not a reference, which is {FORMS['ref'].rule}.")
    return Resource(kind, canonical)


def check_name(routes: Routes, kind: str, name: str) -> None:
    """Raise HiddenResourceError if a line of ROUTES hides the name."""
    for pattern in _patterns(routes, kind, aliases=True):
        value = pattern.form.parse(name)
        if value is not None:
            _check_reached(routes, _url(pattern, value), kind, value)


def aliases(routes: Routes, kind: str, text: str, account: str) -> list[Alias]:
    """Return the aliases that the text may be, as a name or a host label, in the patterns of the kind."""
    found = []
    for pattern in _patterns(routes, kind, aliases=True):
        value = pattern.form.parse(text)
        if value is not None:
            found.append(Alias(kind, "name" if pattern.form.placeholder == "name" else "label", value, account))
    return list(dict.fromkeys(found))


def urls(routes: Routes, resource: Resource) -> list[str]:
    """Return the URLs that reach the resource by its reference."""
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
        raise HiddenResourceError(f"{url} does not lead to {kind}:{value}: another line of ROUTES matches it.")


def _reaches(routes: Routes, url: str, kind: str, value: str) -> bool:
    """Return whether the URL reaches it: both a `none` line and a more specific pattern may hide it."""
    if not url.startswith("/"):
        return True
    judgement = routes.explain({"type": "http", "method": "GET", "path": url.replace("{account}", ANY_ACCOUNT)})
    if not isinstance(judgement.result, Target):
        return False
    reached = judgement.result.names
    return (reached.kind, reached.ref if isinstance(reached, Resource) else reached.value) == (kind, value)
