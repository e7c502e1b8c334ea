"""Names, host labels and custom domains: what they stand for, and that none of them opens a protected bot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from smarter_auth_mw.domain import Alias, Resource, Target
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.tokens import Token
from tests.support.asgi import Conversation, client, guarded, lifespan, scope, speak_lifespan
from tests.support.database import Database

ACCOUNT = "3141-5926-5359"
ROUTES = ["bot /bots/{ref}", "bot /named/{account}/{name}", "bot host:{label}.{account}.api.example.com"]
HR = Resource("bot", "7")


async def empty_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await speak_lifespan(receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})


@pytest.fixture
async def token(keys: Management) -> Token:
    await keys.add_resource(HR, name="hr_bot", account=ACCOUNT, domain="sales.example.net")
    return (await keys.create("laptop", account=ACCOUNT, bind=[HR])).token


@pytest.fixture
async def http(database: Database, token: Token) -> AsyncIterator[httpx.AsyncClient]:
    settings = {"routes": ROUTES, "api_domains": ["api.example.com"], "platform_domains": ["platform.example.com"]}
    async with lifespan(guarded(database.runtime, empty_app, heartbeat_s=0.05, **settings)) as app, client(app) as http:
        yield http


async def statuses(http: httpx.AsyncClient, url: str, token: Token) -> tuple[int, int]:
    """Without the token and with it."""
    headers = {"Authorization": f"Token {token.reveal()}"}
    return (await http.get(url)).status_code, (await http.get(url, headers=headers)).status_code


@pytest.mark.parametrize(
    "url",
    [
        "/bots/7",
        f"/named/{ACCOUNT}/hr_bot",
        f"/named/{ACCOUNT}/hr-bot/chat",
        f"http://hr-bot.{ACCOUNT}.api.example.com/chat",
        f"http://HR-Bot.{ACCOUNT}.API.example.com.:8080/chat",
        "http://sales.example.net/anything",
        "http://hr.sales.example.net/",
    ],
)
async def test_every_way_to_name_a_bot_asks_for_its_token(http: httpx.AsyncClient, token: Token, url: str) -> None:
    assert await statuses(http, url, token) == (401, 200)


@pytest.mark.parametrize(
    ("url", "status"),
    [
        (f"/named/{ACCOUNT}/nobody", 404),
        ("/named/1111-2222-3333/hr_bot", 404),
        (f"http://nobody.{ACCOUNT}.api.example.com/", 404),
        ("http://hr-bot.1111-2222-3333.api.example.com/", 404),
        (f"http://a.hr-bot.{ACCOUNT}.api.example.com/", 400),
        ("http://platform.example.com/welcome", 200),
        ("http://other.example.net/welcome", 200),
        ("http://notsales.example.net/welcome", 200),
    ],
)
async def test_what_stands_for_nothing_is_not_found_and_other_hosts_are_no_bots(
    http: httpx.AsyncClient, token: Token, url: str, status: int
) -> None:
    assert await statuses(http, url, token) == (status, status)


async def test_two_claimants_of_a_name_are_ambiguous(http: httpx.AsyncClient, keys: Management, token: Token) -> None:
    await keys.add_resource(Resource("bot", "8"), name="hr-bot", account=ACCOUNT)
    assert await statuses(http, f"/named/{ACCOUNT}/hr_bot", token) == (400, 400)
    assert await statuses(http, "/bots/7", token) == (401, 200)


async def test_a_bot_named_twice_by_host_and_path_is_one_only_if_both_agree(
    http: httpx.AsyncClient, token: Token
) -> None:
    for host in ("http://sales.example.net", f"http://hr-bot.{ACCOUNT}.api.example.com"):
        for path, expected in (("/bots/7", (401, 200)), ("/bots/8", (400, 400)), ("/bots/07", (400, 400))):
            assert await statuses(http, host + path, token) == expected
        assert await statuses(http, f"{host}/named/{ACCOUNT}/hr_bot", token) == (401, 200)
        assert await statuses(http, f"{host}/named/{ACCOUNT}/nobody", token) == (400, 400)


async def test_a_rename_reaches_what_was_cached(http: httpx.AsyncClient, keys: Management, token: Token) -> None:
    old, new = f"/named/{ACCOUNT}/hr_bot", f"/named/{ACCOUNT}/people"
    assert await statuses(http, old, token) == (401, 200)
    assert await statuses(http, new, token) == (404, 404)
    await keys.set_resource(HR, name="people")
    await reaches(http, old, token, (404, 404))
    await reaches(http, new, token, (401, 200))


async def test_a_name_that_is_given_to_another_bot_leads_there(
    http: httpx.AsyncClient, keys: Management, token: Token
) -> None:
    url = f"/named/{ACCOUNT}/hr_bot"
    assert await statuses(http, url, token) == (401, 200)
    await keys.set_resource(HR, name=None)
    await keys.add_resource(Resource("bot", "9"), name="hr_bot", account=ACCOUNT, protect=True)
    await reaches(http, url, token, (401, 401))


async def test_a_custom_domain_is_known_when_it_is_given(
    http: httpx.AsyncClient, keys: Management, token: Token
) -> None:
    url = "http://jobs.example.org/"
    assert await statuses(http, url, token) == (200, 200)
    await keys.set_resource(HR, domain="jobs.example.org")
    await reaches(http, url, token, (401, 200))
    await reaches(http, "http://sales.example.net/", token, (200, 200))


async def test_random_hosts_cost_no_query(http: httpx.AsyncClient, owner: asyncpg.Connection, token: Token) -> None:
    await owner.execute("ALTER TABLE smarter_auth.alias RENAME TO out_of_reach")  # any look-up would be a 503
    for number in range(50):
        assert (await http.get(f"http://random{number}.example.org/")).status_code == 200


async def reaches(http: httpx.AsyncClient, url: str, token: Token, expected: tuple[int, int]) -> None:
    async with asyncio.timeout(10):
        while await statuses(http, url, token) != expected:
            await asyncio.sleep(0.02)


async def test_until_the_domains_are_known_a_host_that_may_be_one_is_refused(database: Database) -> None:
    app = guarded(
        "postgresql://nobody@127.0.0.1:1/none", empty_app, routes=ROUTES, platform_domains=["platform.example.com"]
    )
    async with client(app) as http:
        assert (await http.get("http://sales.example.net/")).status_code == 503
        for own in ("http://platform.example.com/", "http://127.0.0.1/", "http://localhost/", "http://web/"):
            assert (await http.get(own)).status_code == 200


async def test_forwarded_hosts_of_strangers_reach_neither_us_nor_the_app(database: Database, token: Token) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append(dict(scope["headers"]))
        await empty_app(scope, receive, send)

    forwarded = ((b"host", b"platform.example.com"), (b"x-forwarded-host", b"sales.example.net"))
    asked = scope("/", *forwarded)
    for trusted, status in (([], 200), (["127.0.0.1"], 401)):
        async with lifespan(guarded(database.runtime, app, routes=ROUTES, trusted_proxies=trusted)) as guard:
            talk = Conversation()
            await guard(asked, talk.receive, talk.send)
            assert talk.sent[0]["status"] == status
    assert seen == [{b"host": b"platform.example.com"}]


async def test_an_alias_and_its_bindings_are_one_read(store: Store, token: Token) -> None:
    read = await store.read(Target(Alias("bot", "name", "hr-bot", ACCOUNT), account=ACCOUNT))
    assert read.bindings.resource == HR
    assert len(read.bindings.bindings) == 1
    assert read.sources[0] == "directory:bot"
    assert {"resource:bot:7", f"account:{ACCOUNT}"} <= set(read.sources)


async def test_what_was_deleted_and_made_again_is_another_bot(
    http: httpx.AsyncClient, keys: Management, token: Token
) -> None:
    await keys.add_resource(Resource("bot", "20"), name="other", account=ACCOUNT)
    url = f"/named/{ACCOUNT}/other"
    await reaches(http, url, token, (200, 200))
    await keys.remove_resource(Resource("bot", "20"))
    await reaches(http, url, token, (404, 404))
    await keys.add_resource(Resource("bot", "21"), name="other", account=ACCOUNT, protect=True)
    await reaches(http, url, token, (401, 401))
