"""What people type, before the database sees it: text that can be stored, and references to resources."""

from __future__ import annotations

import re

from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import UsageError

MAX_TEXT = 255
"""How many characters a name, a reference, an account or a domain has at the most; the platform's columns too."""

_KIND = re.compile(r"[a-z][a-z0-9_]*")
_UNSTORABLE = re.compile(r"[\0\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Whether a database in UTF-8 can hold the text: it knows no NUL and no half of a surrogate pair."""
    return _UNSTORABLE.search(text) is None


def checked(text: str, what: str, *, shortest: int = 1, longest: int = MAX_TEXT) -> str:
    """The text as it stands; a ``UsageError`` where it is too short, too long, or cannot be stored."""
    if not shortest <= len(text) <= longest:
        raise UsageError(f"The {what} has {len(text)} characters: {shortest} to {longest} are possible.")
    if not is_storable(text):
        raise UsageError(f"The {what} holds a character that cannot be stored: {text!a}")
    return text


def checked_resource(resource: Resource) -> Resource:
    """The resource as it stands; a ``UsageError`` where its kind or its reference can be none."""
    if not _KIND.fullmatch(checked(resource.kind, "kind")):
        raise UsageError(f"{resource.kind!r} is no kind: a lower-case letter, then lower-case letters, digits and _.")
    checked(resource.ref, "reference")
    return resource
