"""Validates user input before it reaches the database: text, labels and references to resources."""

from __future__ import annotations

import re
from collections.abc import Mapping

from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import UsageError, counted

MAX_TEXT = 255
"""The most characters of a name, reference, account or domain; the platform's columns have the same limit."""

MAX_LABELS = 16
"""The most labels of one key."""

_LABEL = re.compile(r"[a-z0-9_.-]{1,63}")
_KIND = re.compile(r"[a-z][a-z0-9_]*")
_UNSTORABLE = re.compile(r"[\0\ud800-\udfff]")


def is_storable(text: str) -> bool:
    """Return whether a UTF-8 database can store the text: no NUL and no lone surrogates."""
    return _UNSTORABLE.search(text) is None


def checked(text: str, what: str, *, shortest: int = 1, longest: int = MAX_TEXT) -> str:
    """Return the text unchanged; raises ``UsageError`` if it is too short, too long, blank, or cannot be stored."""
    if not shortest <= len(text) <= longest:
        raise UsageError(f"The {what} has {counted(len(text), 'character')}: {shortest} to {longest} are allowed.")
    if shortest and text.isspace():
        raise UsageError(f"The {what} consists of blanks only.")
    if not is_storable(text):
        raise UsageError(f"The {what} holds a character that cannot be stored: {text!a}")
    return text


def checked_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Return the labels unchanged; raises ``UsageError`` for too many, or for invalid characters."""
    for part in (*labels, *labels.values()):
        if not _LABEL.fullmatch(part):
            raise UsageError(
                f"{part!a} cannot be part of a label.",
                hint="Name and value have 1 to 63 characters of a-z, 0-9, _, . and -.",
            )
    if len(labels) > MAX_LABELS:
        raise UsageError(f"A key has at most {MAX_LABELS} labels, not {len(labels)}.")
    return labels


def checked_resource(resource: Resource) -> Resource:
    """Return the resource unchanged; raises ``UsageError`` if its kind or its reference is invalid."""
    if not _KIND.fullmatch(checked(resource.kind, "kind")):
        raise UsageError(
            f"{resource.kind!r} is not a kind: write a lower-case letter, then lower-case letters, digits and _."
        )
    checked(resource.ref, "reference")
    return resource
