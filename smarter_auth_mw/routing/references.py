"""The canonical spellings of references, names, labels and account numbers, for requests and the command line alike.

Other spellings are refused, never repaired: a text that some framework would read as another reference (``042``,
``+42``, ``42.0``, ``{uuid}``) is not a reference.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from math import isinf
from types import MappingProxyType
from uuid import UUID

from smarter_auth_mw.errors import InvalidReferenceError

MAX_REFERENCE_CHARS = 255
MAX_LABEL_CHARS = 63
HASH_FLOOR = 1_000_000
"""The platform adds this to a primary key before it encodes it (``TimestampedModel.HASH_FLOOR``)."""

_INTEGER = re.compile(r"0|[1-9][0-9]{0,18}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SLUG = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_HEX_32 = re.compile(r"[0-9a-f_]{32}")
_EXACT = re.compile(r"(?!\.\.?$)[A-Za-z0-9._~-][A-Za-z0-9._~:-]*")
_NAME = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_ACCOUNT_NUMBER = re.compile(r"[0-9]{4}-[0-9]{4}-[0-9]{4}")
_HASHED = re.compile(r"r[A-Za-z0-9_-]{1,27}x")
_NO_LABEL_CHARS = re.compile(r"[^a-z0-9-]")
_LENIENT_NUMBER = re.compile(r"[+-]?+(?:0++[+-])?+(?:\d++\.?+\d*+|\.\d++)(?:e[+-]?+\d++)?+", re.IGNORECASE)
_HEX_DIGITS = 32
_FORMAT = re.compile(
    r"\.(?:json|jsonp|jsonl|jsonld|ndjson|geojson|api|x?html?|xml|ya?ml|csv|tsv|te?xt|rss|atom|ics|rdf|ttl|xlsx?|cbor"
    r"|msgpack)$",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(r"[:,@!$&'()*=|^~]")
"""A character that may separate an id from a verb, as in ``42:cancel`` (RFC 3986: sub-delims, ``:`` and ``@``)."""


def integer(text: str) -> str | None:
    """Return ``text`` if it is a canonical integer from 0 to 2^63-1, else None."""
    return text if _INTEGER.fullmatch(text) and int(text) < 2**63 else None


def uuid(text: str) -> str | None:
    """Return a hyphenated UUID in lower case, else None; accepting both cases is as safe as refusing one."""
    lowered = text.lower()
    return lowered if _UUID.fullmatch(lowered) else None


def slug(text: str) -> str | None:
    """Return ``text`` if it is a slug; anything that ``uuid.UUID`` can read is not a slug."""
    if not _fits(_SLUG, text) or _HEX_32.fullmatch(text.replace("-", "")):
        return None
    return text


def plain(text: str) -> str | None:
    """Return ``text`` if it is a canonical integer, a lower-case UUID or a slug, else None."""
    return integer(text) or (text if _UUID.fullmatch(text) else slug(text))


def hashed(text: str) -> str | None:
    """Return a hashed id or an integer as a canonical integer, else None."""
    if (number := integer(text)) is not None:
        return number
    return None if (decoded := unhash(text)) is None else str(decoded)


def exact(text: str) -> str | None:
    """Return ``text`` if it has only unreserved characters (RFC 3986 §2.3) and ``:``, no dot segment; else None.

    A colon has one spelling, and no router gives it a meaning within a path. It may not come first.
    """
    return text if _fits(_EXACT, text) else None


def name(text: str) -> str | None:
    """Return ``text`` if it is a name in snake case or kebab case, in lower case, else None."""
    return text if _fits(_NAME, text) else None


def label(text: str) -> str | None:
    """Return ``text`` if it is one host label of at most 63 characters (RFC 1034 §3.5) in lower case, else None."""
    return text if len(text) <= MAX_LABEL_CHARS and _LABEL.fullmatch(text) else None


def account(text: str) -> str | None:
    """Return ``text`` if it is an account number (``####-####-####``), an integer, a UUID or a slug, else None."""
    if _ACCOUNT_NUMBER.fullmatch(text):
        return text
    # Twelve digits would be a second spelling of an account number.
    return None if len(text) == 12 and text.isdecimal() else plain(text)


def hashed_id(number: int) -> str:
    """Return the platform's hashed id of a primary key, ``rMTAwMDA0Mgx`` of 42 (``TimestampedModel.hashed_id``)."""
    encoded = urlsafe_b64encode(str(number + HASH_FLOOR).encode("ascii")).decode("ascii")
    return f"r{encoded.rstrip('=')}x"


def unhash(text: str) -> int | None:
    """Return the number of a hashed id, at least 1, if encoding that number gives ``text`` back."""
    if not _HASHED.fullmatch(text):
        return None
    body = text[1:-1]
    if len(body) % 4 == 1:  # no base64 has this length
        return None
    digits = urlsafe_b64decode(body + "=" * (-len(body) % 4))
    if not digits.isdigit():
        return None
    number = int(digits) - HASH_FLOOR
    return number if 1 <= number < 2**63 and hashed_id(number) == text else None


def rfc1034(text: str) -> str:
    """Return the platform's host label for a name; the conversion is lossy, so two names may share a label.

    Raises InvalidReferenceError if nothing is left of the name (``common/utils/rfc1034_compliance.py``).
    """
    made = _NO_LABEL_CHARS.sub("", text.lower().replace("_", "-")).strip("-")[:MAX_LABEL_CHARS]
    if not made:
        raise InvalidReferenceError(f"No character of the name {text!r} is allowed in a host label.")
    return made


def reads_as_integer(text: str) -> bool:
    """Return whether some framework reads ``text`` as a number: ``042``, ``+42``, ``4_2.0``, ``0-42``, ``4.2e1``.

    It is what Python's ``int``, ``float`` and ``Decimal``, Pydantic and msgspec take for a whole number. A data format
    may follow, as in ``42.json``, or a separator and more, as in ``42:cancel``.
    """
    text = _bare(text).replace("_", "")
    if not text[:1].isdecimal() and text[:1] not in ("+", "-", "."):
        return False
    if not (found := _LENIENT_NUMBER.match(text)):
        return False
    behind = text[found.end() :].lstrip()
    return (not behind or _SEPARATOR.match(behind) is not None) and _is_whole(found[0])


def reads_as_uuid(text: str) -> bool:
    """Return whether ``uuid.UUID``, the most lenient parser, accepts ``text``: without hyphens, in braces, as a URN.

    A separator and more text may follow.
    """
    if len(text) < _HEX_DIGITS:
        return False
    text = _bare(text)
    end = _SEPARATOR.search(text, _HEX_DIGITS)
    return _is_uuid(text) or (end is not None and _is_uuid(text[: end.start()]))


def reads_as_id(text: str) -> bool:
    """Return whether some framework reads ``text`` as an integer or a UUID."""
    return reads_as_integer(text) or reads_as_uuid(text)


def reads_as_hashed(text: str) -> bool:
    """Return whether ``text`` is an integer, or a hashed id for a parser that ignores padding and suffix."""
    if text[:1] != "r":
        return reads_as_integer(text)
    return _decodes_to_digits(_SEPARATOR.split(_bare(text), 1)[0][1:].rstrip("x"))


def _bare(text: str) -> str:
    """Return ``text`` without the suffix of a data format, and without blanks around it or before the suffix."""
    return _FORMAT.sub("", text.strip()).strip()


def _is_whole(text: str) -> bool:
    number = float(re.sub(r"(?<=0)[+-]", "", text))  # Pydantic drops zeros before it looks for a sign.
    return isinf(number) or number.is_integer()


def _is_uuid(text: str) -> bool:
    try:
        UUID(text.lower())
    except ValueError:
        return False
    return True


def _decodes_to_digits(body: str) -> bool:
    try:
        return urlsafe_b64decode(body + "=" * (-len(body) % 4)).strip().isdigit()
    except ValueError:
        return False


def _fits(rule: re.Pattern[str], text: str) -> bool:
    return len(text) <= MAX_REFERENCE_CHARS and rule.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Form:
    """The values that a placeholder accepts: ``parse`` returns the canonical value, or None.

    ``reads_as_id`` returns whether some framework reads a text as an id of this form, canonical or not.
    ``reserved`` are the characters it may contain in addition to the unreserved ones.
    """

    placeholder: str
    parse: Callable[[str], str | None]
    rule: str
    reads_as_id: Callable[[str], bool] = reads_as_id
    reserved: str = ""


FORMS = MappingProxyType(
    {
        form.placeholder: form
        for form in (
            Form("ref", plain, "a canonical integer below 2^63, a lower-case UUID with hyphens, or a slug"),
            Form("ref:int", integer, "a canonical integer below 2^63", reads_as_integer),
            Form("ref:uuid", uuid, "a UUID with its four hyphens", reads_as_uuid),
            Form(
                "ref:hashed",
                hashed,
                "a hashed id as the platform makes it, or a canonical integer",
                reads_as_hashed,
            ),
            Form("ref:exact", exact, "letters, digits and . _ ~ -, and : after the first one", reserved=":"),
            Form("name", name, "a name in lower case: letters and digits joined by single - or _"),
            Form("label", label, "a host label in lower case, at most 63 characters"),
        )
    }
)
"""All placeholders that can be a resource's reference."""

ACCOUNT = Form("account", account, "an account number (1234-5678-9012), a canonical integer, a UUID or a slug")
