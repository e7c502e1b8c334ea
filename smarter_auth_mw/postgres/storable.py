"""What people type, before the database sees it: text that can be stored, and references to resources."""

from __future__ import annotations

import re
from collections.abc import Mapping

from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import UsageError, counted

MAX_TEXT = 255
"""Longest name, reference, account or domain in characters; the platform's columns have the same limit."""

MAX_LABELS = 16
"""Labels of one key, at most."""

_LABEL = re.compile(r"[a-z0-9_.-]{1,63}")
_KIND = re.compile(r"[a-z][a-z0-9_]*")
_UNSTORABLE = re.compile(r"[\0\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Whether a database in UTF-8 can hold the text: it knows no NUL and no half of a surrogate pair."""
    return _UNSTORABLE.search(text) is None


def checked(text: str, what: str, *, shortest: int = 1, longest: int = MAX_TEXT) -> str:
    """The text as it stands; a ``UsageError`` where it is too short, too long, or cannot be stored."""
    if not shortest <= len(text) <= longest:
        raise UsageError(f"The {what} has {counted(len(text), 'character')}: {shortest} to {longest} are possible.")
    if not is_storable(text):
        raise UsageError(f"The {what} holds a character that cannot be stored: {text!a}")
    return text


def checked_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Return the labels as they are; a ``UsageError`` for too many, and for one that is written in other characters."""
    for part in (*labels, *labels.values()):
        if not _LABEL.fullmatch(part):
            raise UsageError(
                f"{part!a} is no part of a label.",
                hint="Name and value have 1 to 63 characters of a-z, 0-9, _, . and -.",
            )
    if len(labels) > MAX_LABELS:
        raise UsageError(f"A key has at most {MAX_LABELS} labels, not {len(labels)}.")
    return labels


def checked_resource(resource: Resource) -> Resource:
    """The resource as it stands; a ``UsageError`` where its kind or its reference can be none."""
    if not _KIND.fullmatch(checked(resource.kind, "kind")):
        raise UsageError(f"{resource.kind!r} is no kind: a lower-case letter, then lower-case letters, digits and _.")
    checked(resource.ref, "reference")
    return resource
