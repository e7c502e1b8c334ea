"""Scopes as servers make them, for the tests of routing."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from smarter_auth_mw.decision import Denial, Reason
from smarter_auth_mw.domain import Target
from smarter_auth_mw.routing.routes import Routes


def scope(
    target: str = "/", *, root_path: str = "", method: str = "GET", host: str | None = "testserver", **more: Any
) -> dict[str, Any]:
    """What uvicorn hands over for a request line with this target: ``path`` is it decoded once."""
    raw = target.encode("utf-8", "surrogatepass")
    headers = [] if host is None else [(b"host", host.encode("latin-1"))]
    made = {"type": "http", "method": method, "path": unquote(target), "raw_path": raw, "root_path": root_path}
    return {**made, "headers": headers, "client": ("192.0.2.7", 4711), "query_string": b"", "scheme": "http", **more}


def outcome(routes: Routes, target: str, **more: Any) -> str | None:
    """``kind:ref`` (with the account, if the pattern has one), ``kind:form=value@account``, or the reason."""
    found = routes.resolve(scope(target, **more))
    if isinstance(found, Target):
        names = str(found.names) + (f" if also {found.also.names}" if found.also else "")
        return names + (f" of {found.account}" if found.account else "") + " always" * found.always
    return found.reason.value if isinstance(found, Denial) else found


NOT_CANONICAL = Reason.NOT_CANONICAL.value
AMBIGUOUS = Reason.AMBIGUOUS.value
