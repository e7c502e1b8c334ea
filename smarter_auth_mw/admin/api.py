"""The API itself: find the operation, authenticate the operator, check the request, and send the response.

The order is part of the interface: 401, 403 for the role, 413, 415 and 422 for the form, 404 for a missing record,
409 and 412 for its state.
"""

from __future__ import annotations

import json
import re
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from smarter_auth_mw.admin.attempts import count_failure
from smarter_auth_mw.admin.bodies import parse_body, parse_query, read_body
from smarter_auth_mw.admin.call import Answer, Call, Operation
from smarter_auth_mw.admin.operations import BASE, OPERATIONS
from smarter_auth_mw.admin.pages_of_lists import NEXT
from smarter_auth_mw.admin.problems import (
    MEDIA_TYPE,
    MethodError,
    PathError,
    UnauthorizedError,
    document_of,
    headers_of,
    status_of,
)
from smarter_auth_mw.admin.security import HEADERS, Header
from smarter_auth_mw.admin.services import Services
from smarter_auth_mw.errors import SmarterAuthError
from smarter_auth_mw.http.peers import Peers
from smarter_auth_mw.log import log
from smarter_auth_mw.management.operators import Operator
from smarter_auth_mw.tokens import MAX_TOKEN_BYTES, Token


class UnexpectedError(SmarterAuthError):
    """An unexpected error occurred."""

    code = "unexpected"
    default_hint = "The log of this process shows where it failed. Please report it."


class Response(NamedTuple):
    """A response, ready to send."""

    status: int
    headers: Sequence[Header]
    body: bytes


class _Place(NamedTuple):
    pattern: re.Pattern[str]
    operations: dict[str, Operation]


class Api:
    """Answers requests below ``BASE``; ``get_services`` opens what they need on the running loop."""

    def __init__(self, get_services: Callable[[], Awaitable[Services]], peers: Peers) -> None:
        self._get_services = get_services
        self._peers = peers
        self._places = _places(OPERATIONS)
        self.answered: Counter[tuple[str, str]] = Counter()
        """Requests by operation and status."""
        self.refused_tokens = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name, response = await self._answer(scope, receive)
        self.answered[name, str(response.status)] += 1
        await send_response(response, scope, send)

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[str, Response]:
        name = ""
        try:
            operation, path = self._find(scope)
            name = operation.name
            answer = await self._run(operation, path, scope, receive)
            return name, _response(answer, scope)
        except SmarterAuthError as error:
            return name, problem(error)
        except Exception as error:  # Any error: its text may quote anything, so it is not shown.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            log("admin.failed", "%s: %s at %s:%d", name, type(error).__name__, Path(frame.filename).name, frame.lineno)
            return name, problem(UnexpectedError())

    def _find(self, scope: Scope) -> tuple[Operation, Mapping[str, str]]:
        path = scope["path"].removeprefix(scope.get("root_path", "")).removeprefix(BASE)
        for place in self._places:
            if (found := place.pattern.fullmatch(path)) is None:
                continue
            operation = place.operations.get("GET" if scope["method"] == "HEAD" else scope["method"])
            if operation is None:
                raise MethodError([*place.operations, *(["HEAD"] if "GET" in place.operations else [])])
            return operation, found.groupdict()
        raise PathError()

    async def _run(self, operation: Operation, path: Mapping[str, str], scope: Scope, receive: Receive) -> Answer:
        services = await self._get_services()
        operator = await self._operator(services, scope)
        operation.check_role(operator)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        query = parse_query(operation.query, scope["query_string"])
        body = None
        if operation.body is not None:
            body = parse_body(operation.body, await read_body(receive, headers, operation.max_body))
        call = Call(operator, services, path, query, body, _if_match(scope) if operation.is_versioned else None)
        return await operation.handler(call)

    async def _operator(self, services: Services, scope: Scope) -> Operator:
        """Return the operator of the token. Valid tokens are checked first, so others cannot lock an operator out."""
        token = _token_of(scope)
        operator = None if token is None else await services.door.by_token(token)
        if operator is not None:
            return operator
        if token is not None:
            self.refused_tokens += 1
            await count_failure(services, self._peers.network(scope))
        raise UnauthorizedError()


def problem(error: SmarterAuthError) -> Response:
    """Return the problem document of an error."""
    body = json.dumps(document_of(error)).encode("ascii")
    return sent(status_of(error), MEDIA_TYPE, body, headers_of(error))


async def send_response(response: Response, scope: Scope, send: Send) -> None:
    """Send the response, without its body for HEAD."""
    await send({"type": "http.response.start", "status": response.status, "headers": list(response.headers)})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else response.body})


def _if_match(scope: Scope) -> str | None:
    """Return the entity tags of all lines of If-Match, which count as one list."""
    found = [value.decode("latin-1") for name, value in scope["headers"] if name == b"if-match"]
    return ", ".join(found) if found else None


def _token_of(scope: Scope) -> Token | None:
    """Return the bearer token; None without one, and for headers that contradict each other."""
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(found) != 1:
        return None
    scheme, _, value = found[0].partition(b" ")
    value = value.strip(b" ")
    return Token(value) if scheme.lower() == b"bearer" and 0 < len(value) <= MAX_TOKEN_BYTES else None


def _places(operations: Sequence[Operation]) -> list[_Place]:
    """Collect the operations by path, literal paths before those with placeholders."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    paths = sorted(by_path, key=lambda path: "{" in path)
    return [_Place(compile_path(path)[0], by_path[path]) for path in paths]


def _response(answer: Answer, scope: Scope) -> Response:
    headers = [header for header in answer.headers if header[0] != NEXT]
    headers += [("Link", _link(scope, cursor)) for name, cursor in answer.headers if name == NEXT]
    if answer.lines is not None:
        lines = b"".join(json.dumps(line).encode("ascii") + b"\n" for line in answer.lines)
        return sent(answer.status, "application/jsonl", lines, headers)
    return sent(answer.status, "application/json", json.dumps(answer.document).encode("ascii"), headers)


def _link(scope: Scope, cursor: str) -> str:
    """Return the link to the next page: a relative one, which stays right behind any prefix."""
    pairs = [pair for pair in parse_qsl(scope["query_string"].decode("ascii"), True) if pair[0] != "cursor"]
    return f'<?{urlencode([*pairs, ("cursor", cursor)])}>; rel="next"'


def sent(status: int, media_type: str, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> Response:
    own: list[tuple[str, Any]] = [("content-type", media_type), ("content-length", len(body)), *headers]
    encoded = [(name.lower().encode("ascii"), str(value).encode("latin-1")) for name, value in own]
    return Response(status, [*encoded, *HEADERS], body)
