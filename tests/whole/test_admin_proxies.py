"""The pages behind real nginx and Caddy with TLS, by the shipped files: on a host of their own, and below a prefix."""

from __future__ import annotations

import re
import ssl
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
import pytest_asyncio
import trustme

from smarter_auth_mw import Settings
from smarter_auth_mw.admin import AdminApp
from smarter_auth_mw.management.operators import Operators, Role
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from tests.programs import find, libraries
from tests.support.browser import served
from tests.support.cli import EXAMPLES
from tests.support.database import Database
from tests.support.pages import Outline
from tests.support.proxy import COMMANDS, running
from tests.support.tour import ROUTES, populated
from tests.support.valkey import free_port

PLACES = ("admin.example.com", "tools.example.com")
CADDY = "{\n\tadmin off\n\tauto_https disable_redirects\n\tpersist_config off\n}\n"
PATIENCE_S = 30


@contextmanager
def behind(proxy: str, directory: Path, database: Database) -> Iterator[tuple[str, str, ssl.SSLContext]]:
    """Both places of the shipped file: a host of its own, and a prefix; and whom to trust."""
    find(proxy)
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(directory / "cert.pem")
    certificate.private_key_pem.write_to_path(directory / "key.pem")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    ports = free_port(), free_port()
    with ExitStack() as stack:
        served_at = [stack.enter_context(_admin(database, port)) for port in ports]
        text = EXAMPLES.joinpath("admin", "Caddyfile" if proxy == "caddy" else "nginx.conf").read_text()
        for shipped, own in zip(("127.0.0.1:8010", "127.0.0.1:8011"), served_at, strict=True):
            text = text.replace(f"{shipped}", own.removeprefix("http://"))
        write = _write_caddy if proxy == "caddy" else _write_nginx
        write(directory, text, ports)
        environment = {**libraries(proxy), "HOME": str(directory)}
        command = COMMANDS[proxy](directory)
        stack.enter_context(running(command, ports[0], environment, directory, speaks_http=False))
        own, shared = (f"https://localhost:{port}/" for port in ports)
        yield own, f"{shared}smarter-auth/", trusting


def _admin(database: Database, port: int) -> AbstractContextManager[str]:
    origin = f"https://localhost:{port}"
    settings = Settings(database_url=database.manager, routes=ROUTES, failed_attempts="", admin_origin=origin)
    return served(AdminApp(settings))


def _write_nginx(directory: Path, text: str, ports: tuple[int, int]) -> None:
    for place, listen, port in zip(PLACES, ("443", "444"), ports, strict=True):
        text = text.replace(f"listen {listen} ssl", f"listen 127.0.0.1:{port} ssl").replace(
            f"server_name {place}", "server_name localhost"
        )
        text = text.replace(f"/etc/ssl/{place}.pem", "cert.pem").replace(f"/etc/ssl/{place}.key", "key.pem")
    directory.joinpath("smarter_auth.conf").write_text(text)


def _write_caddy(directory: Path, text: str, ports: tuple[int, int]) -> None:
    for place, port in zip(PLACES, ports, strict=True):
        tls = f"tls {directory}/cert.pem {directory}/key.pem"
        text = text.replace(f"https://{place} {{\n", f"https://localhost:{port} {{\n\tbind 127.0.0.1\n\t{tls}\n")
    directory.joinpath("Caddyfile").write_text(CADDY + text)


@pytest_asyncio.fixture
async def token(database: Database) -> str:
    """The token of an admin, on a database with something in it."""
    async with open_pool(database.owner) as pool:
        await populated(Store(pool))
        return (await Operators(Store(pool), "tester").create("alice", Role.ADMIN)).token.reveal()


@pytest.mark.parametrize("proxy", ["nginx", "caddy"])
def test_every_link_and_form_leads_somewhere_on_a_host_and_below_a_prefix(
    proxy: str, database: Database, token: str, tmp_path: Path
) -> None:
    with behind(proxy, tmp_path, database) as (own, prefixed, trusting):
        for first in (own, prefixed):
            crawler = Crawler(first, token, trusting)
            with crawler.http:
                crawler.sign_in()
                crawler.crawl()
            assert crawler.wrong == []
            assert {"keys", "resources", "usage", "audit", "check", "account", "keys/new"} <= crawler.pages


class Crawler:
    """Follows every link, and sends every form as it comes, below one address."""

    def __init__(self, first: str, token: str, trusting: ssl.SSLContext) -> None:
        self.http = httpx.Client(verify=trusting, follow_redirects=True, timeout=PATIENCE_S)
        self.wrong: list[str] = []
        self.pages: set[str] = set()
        self._first = first
        self._token = token
        self._origin = str(httpx.URL(first).copy_with(path="/")).rstrip("/")

    def sign_in(self) -> None:
        shown = self.http.get(self._first)
        (form,) = Outline(shown.text).forms
        answer = self._send(urljoin(str(shown.url), form["action"]), {**_typed(form), "token": self._token})
        assert str(answer.url) == self._first, answer.text
        assert "__Host-smarter_auth" in self.http.cookies

    def crawl(self) -> None:
        waiting, seen = deque([self._first]), {self._first}
        while waiting:
            url = waiting.popleft()
            answer = self._checked(self.http.get(url), url)
            if "text/html" not in answer.headers["content-type"]:
                continue
            self.pages.add(str(answer.url).removeprefix(self._first).partition("?")[0])
            outline = Outline(answer.text)
            for link in (urljoin(str(answer.url), link).partition("#")[0] for link in outline.links):
                if _shape(link) not in seen:
                    seen.add(_shape(link))
                    waiting.append(link)
            for form in outline.forms:
                self._try_form(str(answer.url), form, seen)

    def _try_form(self, url: str, form: dict[str, Any], seen: set[str]) -> None:
        action = urljoin(url, form.get("action") or url)
        if (shape := f"form {_shape(action)}") in seen or "sign-out" in action:
            return
        seen.add(shape)
        fields = _typed(form)
        if form.get("method") == "post":
            self._checked(self._send(action, fields), action)
        else:
            self._checked(self.http.get(action, params=fields), action)

    def _send(self, url: str, fields: dict[str, str]) -> httpx.Response:
        return self.http.post(url, data=fields, headers={"Origin": self._origin, "Sec-Fetch-Site": "same-origin"})

    def _checked(self, answer: httpx.Response, url: str) -> httpx.Response:
        if not str(answer.url).startswith(self._first):
            self.wrong.append(f"{url} leads out of {self._first}")
        if answer.status_code in (400, 404, 405, 421) or answer.status_code >= 500:
            self.wrong.append(f"{url}: {answer.status_code}")
        return answer


def _typed(form: dict[str, Any]) -> dict[str, str]:
    """What is sent by somebody who changes nothing."""
    chosen = [field for field in form["fields"] if field.get("type") != "checkbox" or "checked" in field]
    return {field["name"]: field.get("value", "") for field in chosen}


def _shape(url: str) -> str:
    """A page once for each kind of thing that it shows: ids and queries aside."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|(?<=bot/)\d+", "ID", url.partition("?")[0])
