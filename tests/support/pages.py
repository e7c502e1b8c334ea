"""The pages on one database for a whole module, and people who use them as a browser does."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import pytest_asyncio

from smarter_auth_mw.admin import AdminApp
from smarter_auth_mw.admin.security import HEADERS
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.management.operators import Operators, Role
from smarter_auth_mw.postgres.embedded.cluster import Cluster
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.support.admin import settings
from tests.support.asgi import lifespan
from tests.support.database import Database, copied

ORIGIN = "http://localhost:8010"
FORM = "application/x-www-form-urlencoded"


class Person:
    """Somebody with a browser: it keeps cookies, follows no redirect by itself, and names its origin with forms."""

    def __init__(self, app: AdminApp, origin: str = ORIGIN, **transport: Any) -> None:
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app, **transport), base_url=origin)
        self.origin = origin
        self.token = ""
        self.seen: list[str] = []
        """All HTML that was received."""

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return self._checked(await self.client.get(path, **more))

    async def post(
        self, path: str, fields: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send a form as one of our pages does."""
        sent = {"Origin": self.origin, "Sec-Fetch-Site": "same-origin", "Content-Type": FORM} | dict(headers or {})
        body = urlencode(fields or {}, doseq=True)
        return self._checked(await self.client.post(path, content=body, headers=sent))

    async def sign_in(self, token: str, to: str = "") -> httpx.Response:
        self.token = token
        return await self.post("/sign-in", {"token": token, "to": to})

    def _checked(self, response: httpx.Response) -> httpx.Response:
        assert response.status_code < 500, response.text
        assert not response.headers.get("location", "").startswith(("/", "http")), response.headers
        own = {(name.decode(), value.decode()) for name, value in HEADERS if name != b"cache-control"}
        assert own <= set(response.headers.items())
        self.seen.append(response.text)
        return response


class Pages:
    """The app, and people of each role: of all accounts, and of one."""

    def __init__(self, app: AdminApp, store: Store, database: Database) -> None:
        self.app = app
        self.database = database
        self.store = store
        self.operators = Operators(store, "tester")
        self.keys = Management(store, "tester")
        self._people: dict[tuple[Role, str | None], Person] = {}
        self._made = 0

    async def person(self, role: Role = Role.ADMIN, account: str | None = None) -> Person:
        """Return somebody of this role and account, who is signed in."""
        if (role, account) not in self._people:
            self._people[role, account] = await self.new_person(role, account)
        return self._people[role, account]

    async def app_answer(self, path: str) -> httpx.Response:
        """Ask for exactly this path, as nobody."""
        request = httpx.Request("GET", ORIGIN)
        request.url = request.url.copy_with(raw_path=path.encode("ascii"))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app)) as client:
            return await client.send(request)

    async def new_person(self, role: Role = Role.ADMIN, account: str | None = None) -> Person:
        """Make an operator of this role and account, and sign in."""
        self._made += 1
        minted = await self.operators.create(f"{role} {self._made}", role, account=account)
        person = Person(self.app)
        assert (await person.sign_in(minted.token.reveal())).status_code == 303
        return person


@pytest.fixture(scope="module")
def module_database(cluster: Cluster, template: str) -> Iterator[Database]:
    """A migrated database for all tests of a module."""
    yield from copied(cluster, template)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pages(module_database: Database) -> AsyncIterator[Pages]:
    async with open_pool(module_database.owner) as pool, lifespan(AdminApp(settings(module_database))) as app:
        yield Pages(app, Store(pool), module_database)


class Outline(HTMLParser):
    """What a page consists of: links, forms with their fields, headings and text."""

    VOID = frozenset({"meta", "link", "input", "br", "hr", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.forms: list[dict[str, Any]] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == [], f"never closed: {self._open}"
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append((tag, values))
        if tag == "a":
            self.links.append(values["href"])
        if tag == "form":
            self.forms.append({"fields": [], **values})
        if tag in ("input", "select", "textarea") and self.forms:
            self.forms[-1]["fields"].append(values)
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1:] == [tag], f"{tag} closes {self._open}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [values for name, values in self.tags if name == tag]


def token_of(text: str) -> str:
    """Return the token that a page shows."""
    found = re.findall(r'<code id="token"[^>]*>([^<]+)</code>', text)
    assert len(found) == 1, text
    return str(found[0])
