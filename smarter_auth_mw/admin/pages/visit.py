"""One request for a page and its response: a page function's argument and its result."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from smarter_auth_mw.admin.bodies import parse_body, parse_query
from smarter_auth_mw.admin.call import Answer, Call
from smarter_auth_mw.admin.operations import OPERATIONS
from smarter_auth_mw.admin.pages.forms import Fields
from smarter_auth_mw.admin.security import Cookie
from smarter_auth_mw.admin.services import Services
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import SmarterAuthError
from smarter_auth_mw.management.operators import Operator, Role, is_allowed

BY_NAME = {operation.name: operation for operation in OPERATIONS}


class Html(NamedTuple):
    """A response that shows a page."""

    template: str
    context: Mapping[str, Any] = MappingProxyType({})
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class SeeOther(NamedTuple):
    """A redirect after an act, to a path without the first slash."""

    path: str
    headers: tuple[tuple[str, str], ...] = ()


Reply = Html | SeeOther


@dataclass
class Visit:
    """An operator's request for a page: the values of its URL and form, and the operations that it may run."""

    services: Services
    operator: Operator
    session_id: str
    cookie: Cookie
    root: str
    network: str
    path: Mapping[str, str] = field(default_factory=dict)
    query: Fields = field(default_factory=Fields)
    form: Fields = field(default_factory=Fields)
    error: SmarterAuthError | None = None
    """Why the form was refused, if it was."""

    async def ask(
        self,
        operation: str,
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, Any] = MappingProxyType({}),
        body: Mapping[str, Any] | None = None,
        if_match: str | None = None,
        opens: Collection[Resource] = (),
    ) -> Answer:
        """Run an operation of the API, with the same checks: role, form, account, existence and state.

        ``opens`` are resources that an admin has confirmed may be opened.
        """
        asked = BY_NAME[operation]
        asked.check_role(self.operator)
        parameters = self.asked(operation, query)
        parsed = None if asked.body is None else parse_body(asked.body, json.dumps(body or {}).encode("ascii"))
        return await asked.handler(replace(self.call(path, parameters, parsed, if_match), opens=opens))

    def asked(self, operation: str, query: Mapping[str, Any]) -> Any:
        """Read the parameters of an operation; raises InvalidError."""
        return parse_query(BY_NAME[operation].query, urlencode(query, doseq=True).encode("ascii"))

    async def document(self, operation: str, **more: Any) -> Mapping[str, Any]:
        """Run an operation, and return its document."""
        return (await self.ask(operation, **more)).document

    def call(
        self, path: Mapping[str, str] | None = None, query: Any = None, body: Any = None, if_match: str | None = None
    ) -> Call:
        """Return the call that the API's handlers take."""
        return Call(self.operator, self.services, self.path if path is None else path, query, body, if_match)

    def may(self, role: Role, *, everywhere: bool = False) -> bool:
        """Return whether the operator has this role, and all accounts if an act needs them."""
        return is_allowed(self.operator, role, everywhere=everywhere)

    @property
    def is_manager(self) -> bool:
        return self.may(Role.MANAGER)

    @property
    def is_admin(self) -> bool:
        return self.may(Role.ADMIN)

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)


def path_of(*parts: str, **query: Any) -> str:
    """Return the path of a page, without the first slash; parameters without a value are left out."""
    path = "/".join(quote(part, safe="") for part in parts)
    given = {name: value for name, value in query.items() if value not in (None, "", [], False)}
    pairs = {name: "true" if value is True else value for name, value in given.items()}
    return f"{path}?{urlencode(pairs, doseq=True)}" if pairs else path
