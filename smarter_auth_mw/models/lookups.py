"""Lookups of querysets: the field path and the comparison in a condition's name, and the order of objects."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.models.stored import StoredModel


def _same(found: Any, value: Any) -> bool:
    """Return whether they are equal, or ``value`` is the primary key of the object found."""
    pk = getattr(found, "pk", None)
    return bool(found == value) or (pk is not None and bool(pk == value))


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda found, value: found is not None and compare(found, value)


def _textual(compare: Callable[[str, str], bool], *, folds: bool = False) -> Callable[[Any, Any], bool]:
    def holds(found: Any, value: Any) -> bool:
        text, part = ("" if found is None else str(found)), str(value)
        return found is not None and compare(*((text.casefold(), part.casefold()) if folds else (text, part)))

    return holds


_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "contains": _textual(operator.contains),
    "icontains": _textual(operator.contains, folds=True),
    "startswith": _textual(str.startswith),
    "istartswith": _textual(str.startswith, folds=True),
    "endswith": _textual(str.endswith),
    "iendswith": _textual(str.endswith, folds=True),
    "iexact": _textual(operator.eq, folds=True),
    "range": lambda found, ends: found is not None and bool(ends[0] <= found <= ends[1]),
    "exact": _same,
    "in": lambda found, values: any(_same(found, value) for value in values),
    "isnull": lambda found, value: (found is None) is value,
    "lt": _ordered(operator.lt),
    "lte": _ordered(operator.le),
    "gt": _ordered(operator.gt),
    "gte": _ordered(operator.ge),
}


def _parsed(lookup: str) -> tuple[list[str], Callable[[Any, Any], bool]]:
    *path, last = lookup.split("__")
    if path and last in _OPERATORS:
        return path, _OPERATORS[last]
    return [*path, last], _same


def check(model: type[StoredModel], lookup: str) -> None:
    at: type[StoredModel] | None = model
    for name in _parsed(lookup)[0]:
        if at is None or name not in (*at._fields, "pk"):
            known = ", ".join(at._fields) if at else "none"
            raise UsageError(f"{lookup!r}: {name!r} is not a field. The fields are: {known}.")
        at = at._fields.get(name)


def holds(thing: Any, lookup: str, value: Any) -> bool:
    path, compare = _parsed(lookup)
    return compare(value_of(thing, path), value)


def value_of(thing: Any, path: Sequence[str]) -> Any:
    for name in path:
        thing = getattr(thing, name, None)
    return thing


def sorting(one: Any, field: str) -> tuple[bool, Any]:
    """Return the sort key of an object; None comes last."""
    value = value_of(one, field.removeprefix("-").split("__"))
    return value is None, value if value is not None else 0
