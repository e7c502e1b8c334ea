"""Decides what may be shown of a setting: of a secret one, only parts that are certainly not secret."""

from __future__ import annotations

import re

from smarter_auth_mw.tokens import shortened

SHOWN_CHARS = 200
HIDDEN = "***"

_HOST = r"(?:[\w.-]+|\[[0-9A-Za-z:.%]+\])?(?::\d{0,5})?"
_URL = re.compile(
    rf"(?P<scheme>[a-z][a-z0-9+.-]*://)(?:(?P<user>[^/?#@:\[\]]*)(?P<password>:[^/?#\[\]]*)?@)?"
    rf"(?P<place>(?:{_HOST}(?:,{_HOST})*)?(?:/[\w.~%/-]*)?)(?:\?(?P<query>(?:[\w.%-]+=[\w.,:~%/+ -]*(?:&|$))*))?",
    re.IGNORECASE | re.ASCII,
)
_BUNDLED = re.compile(r"(?:embedded|memory):[^@?#]*")
_PLAIN_USER = re.compile(r"[\w.+~%-]*", re.ASCII)
_SHOWN_OPTIONS = frozenset(
    {"application_name", "connect_timeout", "db", "dbname", "host", "hostaddr", "pgbouncer", "port", "schema"}
    | {"search_path", "ssl", "ssl_cert_reqs", "sslmode", "sslrootcert", "target_session_attrs", "user"}
)
_SECRET_OPTION = re.compile(r"[a-z_]*(?:password|passwd|secret|token)", re.IGNORECASE)
_MAY_BE_SECRET = re.compile(r"@|(?:passw|pwd|secret|token|key|auth)\w*[\"']?\s*[=:]", re.IGNORECASE)


def mask_url(url: str) -> str:
    """Return the URL for printing: without its password, and with harmless options only.

    Only an unambiguous URL is shown at all. In any other, a part of the password may be where a host or a path is
    expected.
    """
    if not url or _BUNDLED.fullmatch(url):
        return url
    parts = _URL.fullmatch(url)
    if parts is None or not _PLAIN_USER.fullmatch(parts["user"] or ""):
        return f"the URL ({_length(url)}, not shown)"
    options = [_option(*pair.partition("=")[::2]) for pair in (parts["query"] or "").split("&") if pair]
    query = f"?{'&'.join(options)}" if options else ""
    return f"{parts['scheme']}{_user(parts)}{parts['place']}{query}"


def withheld(text: str) -> str:
    """Describe a secret setting by its length, at the end of the rule that it breaks."""
    return f"what is set has {_length(text)} and is not shown"


def shown_value(text: str) -> str:
    """Return the value of a setting that should hold no secret, or its length if it may hold one anyway."""
    if "://" in text:
        return mask_url(text)
    return f"{_length(text)}, not shown" if _MAY_BE_SECRET.search(text) else shortened(text, SHOWN_CHARS)


def _user(parts: re.Match[str]) -> str:
    user, password = parts["user"], parts["password"]
    if user is None:
        return ""
    if password is None:  # This may be the only credential, unless the password comes from elsewhere or is not needed.
        return f"{user}@" if parts["scheme"].lower().startswith("postgres") else f"{HIDDEN}@"
    return f"{user}:{HIDDEN}@"


def _option(name: str, value: str) -> str:
    if name in _SHOWN_OPTIONS:
        return f"{name}={value}"
    return f"{name}={HIDDEN}" if _SECRET_OPTION.fullmatch(name) else HIDDEN


def _length(text: str) -> str:
    return "1 character" if len(text) == 1 else f"{len(text)} characters"
