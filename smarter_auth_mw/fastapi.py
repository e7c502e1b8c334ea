"""FastAPI dependencies: who asks, as a handler's parameter, and how to authorize, in OpenAPI and on the docs page.

The middleware decides; these tell the handler what it decided, and OpenAPI how to send a token. FastAPI is imported
here and nowhere else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import HTTPException, Security, WebSocketException
from fastapi.openapi.models import APIKey, HTTPBearer
from fastapi.openapi.models import SecurityBase as SecurityModel
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from smarter_auth_mw.decision import Anonymous, Grant
from smarter_auth_mw.errors import UsageError
from smarter_auth_mw.http.rejections import DETAILS, challenges

__all__ = ["Grant", "NoDecisionError", "optional_key", "optional_key_by", "require_key", "require_key_by"]

Way = Literal["token", "bearer", "x-api-key"]

POLICY_VIOLATION = 1008


class NoDecisionError(UsageError):
    """No decision of SmarterAuthMiddleware came with this request."""

    code = "no_decision"


class KeyScheme(SecurityBase):
    """One way to send a token, as OpenAPI describes it. It reads nothing: the middleware has done so."""

    def __init__(self, scheme_name: str, model: SecurityModel) -> None:
        self.scheme_name = scheme_name
        self.model = model

    def __call__(self) -> None:
        """FastAPI calls whatever a handler depends on."""


def _in_header(name: str, description: str) -> SecurityModel:
    return APIKey.model_validate({"in": "header", "name": name, "description": description})


_TOKEN = "The token of a key that is bound to the resource."
SCHEMES: dict[Way, KeyScheme] = {
    "token": KeyScheme("Token", _in_header("Authorization", f"The word Token and a space, then: {_TOKEN}")),
    "bearer": KeyScheme("Bearer", HTTPBearer(description=_TOKEN)),
    "x-api-key": KeyScheme("X-API-Key", _in_header("X-API-Key", _TOKEN)),
}


def require_key_by(*ways: Way, realm: str = "smarter") -> Callable[..., Grant]:
    """Return a dependency that gives the handler its ``Grant`` and refuses requests without one, on open resources too.

    ``ways`` are what OpenAPI names, some of ``SMARTER_AUTH_CREDENTIALS``; ``realm`` is ``SMARTER_AUTH_REALM``. The
    handler's request fails with ``NoDecisionError`` where the middleware has decided nothing.
    """
    asked_for = ", ".join(value.decode("ascii") for _, value in challenges(ways, realm))

    def require_key(connection: HTTPConnection, **_: None) -> Grant:
        decision = _decision(connection)
        if isinstance(decision, Grant):
            return decision
        if connection.scope["type"] == "websocket":
            raise WebSocketException(POLICY_VIOLATION, DETAILS[401])
        raise HTTPException(401, DETAILS[401], {"WWW-Authenticate": asked_for, "Cache-Control": "no-store"})

    return _shown(require_key, ways)


def optional_key_by(*ways: Way) -> Callable[..., Grant | None]:
    """A dependency that gives the handler its ``Grant``, and None where the resource is open to everyone.

    The same as ``require_key_by`` in all else.
    """

    def optional_key(connection: HTTPConnection, **_: None) -> Grant | None:
        decision = _decision(connection)
        return decision if isinstance(decision, Grant) else None

    return _shown(optional_key, ways)


def _decision(connection: HTTPConnection) -> Grant | Anonymous:
    decision = connection.scope.get("smarter_auth")
    if not isinstance(decision, Grant | Anonymous):
        raise NoDecisionError(
            f"No decision of SmarterAuthMiddleware came with a request for {connection.scope['path']!r}, so that it is"
            " refused. Either the app lacks app.add_middleware(SmarterAuthMiddleware), or no line of"
            " SMARTER_AUTH_ROUTES names this path."
        )
    return decision


def _shown(dependency: Callable[..., Any], ways: tuple[Way, ...]) -> Callable[..., Any]:
    """The dependency with the schemes among its parameters, where FastAPI looks for them."""
    connection, _ = inspect.signature(dependency, eval_str=True).parameters.values()
    schemes = [
        inspect.Parameter(
            SCHEMES[way].scheme_name.replace("-", "_"),
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[None, Security(SCHEMES[way])],
        )
        for way in ways
    ]
    annotated: Any = dependency
    annotated.__signature__ = inspect.Signature([connection, *schemes])
    return dependency


require_key = require_key_by("bearer", "x-api-key")
"""``grant: Annotated[Grant, Depends(require_key)]``: a handler that runs for holders of a key only."""
optional_key = optional_key_by("bearer", "x-api-key")
"""``grant: Annotated[Grant | None, Depends(optional_key)]``: a handler that wants to know who asks, if anybody."""
