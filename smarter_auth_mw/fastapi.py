"""FastAPI dependencies: the grant as a handler's parameter, and the security schemes in OpenAPI.

The middleware decides; a dependency gives the handler its decision, and describes in OpenAPI how to send a token.
FastAPI is imported only here.
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
        """Do nothing: FastAPI calls every dependency of a handler."""


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

    OpenAPI lists ``ways``, which should be some of ``SMARTER_AUTH_CREDENTIALS``; ``realm`` is ``SMARTER_AUTH_REALM``.
    The request fails with ``NoDecisionError`` if the middleware has not decided it.
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
    """Return a dependency that gives the handler its ``Grant``, or None if the resource is open.

    In all else it works like ``require_key_by``.
    """

    def optional_key(connection: HTTPConnection, **_: None) -> Grant | None:
        decision = _decision(connection)
        return decision if isinstance(decision, Grant) else None

    return _shown(optional_key, ways)


def _decision(connection: HTTPConnection) -> Grant | Anonymous:
    decision = connection.scope.get("smarter_auth")
    if not isinstance(decision, Grant | Anonymous):
        raise NoDecisionError(
            f"No decision of SmarterAuthMiddleware came with the request for {connection.scope['path']!r}, so it is"
            " refused. Either the app lacks app.add_middleware(SmarterAuthMiddleware), or no line of"
            " SMARTER_AUTH_ROUTES names this path."
        )
    return decision


def _shown(dependency: Callable[..., Any], ways: tuple[Way, ...]) -> Callable[..., Any]:
    """Return the dependency with the schemes among its parameters, where FastAPI looks for them."""
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
"""``grant: Annotated[Grant, Depends(require_key)]``: a handler that runs only for requests with a valid key."""
optional_key = optional_key_by("bearer", "x-api-key")
"""``grant: Annotated[Grant | None, Depends(optional_key)]``: a handler that uses the key if there is one."""
