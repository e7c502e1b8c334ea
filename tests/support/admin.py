"""The management API on a database of the test's own, and operators who call it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from smarter_auth_mw import Settings
from smarter_auth_mw.admin import AdminApp
from smarter_auth_mw.admin.api import Api
from smarter_auth_mw.admin.openapi import document
from smarter_auth_mw.admin.operations import BASE, OPERATIONS
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.operators import Operators, Role
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.asgi import lifespan
from tests.support.database import Database

ROUTES = ["bot /bots/{ref:int}", "cat /cats/{ref}"]
OWN, FOREIGN = "acme", "other"
DOCUMENT = document(OPERATIONS)
_VALIDATORS: dict[str, Draft202012Validator] = {}


def validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    """What checks a document against a schema of the OpenAPI document."""
    key = json.dumps(schema, sort_keys=True)
    if key not in _VALIDATORS:
        _VALIDATORS[key] = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    return _VALIDATORS[key]


class Caller:
    """An operator with a client; every answer has to be one that the OpenAPI document describes."""

    def __init__(self, client: httpx.AsyncClient, token: str = "") -> None:
        self.client = client
        self.token = token
        self.answered: list[httpx.Response] = []

    async def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """Send a request below the base path, with a JSON body if there is one."""
        headers = {**({"Authorization": f"Bearer {self.token}"} if self.token else {}), **more.pop("headers", {})}
        if body is not None:
            more["content"] = json.dumps(body)
            headers = {"Content-Type": "application/json"} | headers
        response = await self.client.request(method, f"{BASE}{path}", headers=headers, **more)
        self.answered.append(response)
        check_described(method, response)
        return response

    async def json(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """Send a request that succeeds; returns its document."""
        response = await self(method, path, body, **more)
        assert response.is_success, response.text
        return response.json()

    async def code(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, str]:
        """Send a request that is refused; returns its status and its code."""
        response = await self(method, path, body, **more)
        assert not response.is_success, response.text
        return response.status_code, response.json()["code"]


def check_described(method: str, response: httpx.Response) -> None:
    """Hold an answer to the OpenAPI document."""
    assert response.status_code < 500, response.text
    path = response.request.url.path.removeprefix(BASE)
    found = [place for place in _API._places if place.pattern.fullmatch(path)]
    operation = found[0].operations.get(method) if found else None
    if operation is None or method == "HEAD":
        assert response.status_code in (404, 405, 421, 200, 401, 403, 422), response.text
        return
    described = DOCUMENT["paths"][operation.path][method.lower()]["responses"]
    assert str(response.status_code) in described, (operation.name, response.status_code, response.text)
    content = described[str(response.status_code)]["content"]
    media_type = response.headers["content-type"]
    assert media_type in content, (operation.name, media_type)
    if media_type != "application/jsonl":
        validator(content[media_type]["schema"]).validate(response.json())


_API = Api(None, None)  # type: ignore[arg-type]  # for its table of paths alone


class Site:
    """The API, and operators of each role: of all accounts, and of one."""

    def __init__(self, app: AdminApp, client: httpx.AsyncClient, store: Store, operators: Operators) -> None:
        self.app = app
        self.client = client
        self.store = store
        self.operators = operators
        self.callers: dict[tuple[Role, str | None], Caller] = {}

    async def caller(self, role: Role = Role.ADMIN, account: str | None = None) -> Caller:
        """Return an operator of this role and account, who is made if need be."""
        if (role, account) not in self.callers:
            minted = await self.operators.create(f"{role} of {account}", role, account=account)
            self.callers[role, account] = Caller(self.client, minted.token.reveal())
        return self.callers[role, account]


def settings(database: Database, **more: Any) -> Settings:
    return Settings(**{"database_url": database.manager, "routes": ROUTES, "failed_attempts": ""} | more)


@pytest.fixture
async def site(database: Database) -> AsyncIterator[Site]:
    async with (
        open_pool(database.owner) as pool,
        lifespan(AdminApp(settings(database))) as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8010") as client,
    ):
        store = Store(pool)
        yield Site(app, client, store, Operators(store, "tester"))


@pytest.fixture
async def admin(site: Site) -> Caller:
    """An admin of all accounts."""
    return await site.caller()


@pytest.fixture
def writes(site: Site) -> Management:
    """The write side itself."""
    return Management(site.store, "tester")
