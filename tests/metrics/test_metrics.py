"""The metrics: what was counted anyway, under names that stay, with few labels and no secret among them."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from smarter_auth_mw import Settings
from smarter_auth_mw.cache.lag import Lag
from smarter_auth_mw.configured import compile_routes
from smarter_auth_mw.domain import Resource
from smarter_auth_mw.errors import ConfigurationError
from smarter_auth_mw.http import status_pages as pages
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.metrics import SmarterAuthCollector
from smarter_auth_mw.metrics import multiprocess as exchange
from smarter_auth_mw.metrics import samples as figures
from smarter_auth_mw.metrics.samples import Figures
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.tokens import Token, mint
from tests import test_wsgi
from tests.support.asgi import KEYED, OTHER, bearer, client, guarded, lifespan
from tests.support.cli import PROGRAM, ROUTES, environment, serving
from tests.support.database import Database
from tests.support.lists import used
from tests.support.worker import PATIENCE_S

FEW = {"kind", "decision", "reason", "of", "state", "result", "le", "within", "for"}
"""All labels that there are."""
HEARTBEAT_S = 0.05

Samples = Mapping[tuple[str, ...], float]


@pytest.fixture(autouse=True)
def nobody_else() -> Iterator[None]:
    """What other tests have left is not counted."""
    watched = list(figures._watched)
    for source in watched:
        figures._watched.discard(source)
    yield
    for source in watched:
        figures._watched.add(source)


@asynccontextmanager
async def running(url: str, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    values = {"metrics_path": "/metrics", "heartbeat_s": HEARTBEAT_S} | settings
    async with lifespan(guarded(url, **values)) as app, client(app) as http:
        yield http


def samples(text: str) -> Samples:
    """Every sample, by its name and the values of its labels."""
    return {
        (sample.name.removeprefix("smarter_auth_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scraped(http: httpx.AsyncClient) -> Samples:
    answer = await http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return samples(answer.text)


async def comes_to(http: httpx.AsyncClient, expected: Mapping[tuple[str, ...], float]) -> None:
    found: Samples = {}
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not expected.items() <= (found := await scraped(http)).items():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError({name: found.get(name) for name in expected}) from None


async def test_decisions_are_counted_by_kind_and_reason(database: Database, keys: Management, token: Token) -> None:
    await keys.add_resource(OTHER)
    async with running(database.runtime, routes=["bot /bots/{ref}", "llm /llms/{ref}"]) as http:
        for path, headers, times in (
            ("/bots/1", bearer(token), 5),
            ("/bots/1", bearer(mint()), 3),
            ("/bots/1", {}, 2),
            ("/bots/2", {}, 4),
            ("/llms/9", {}, 1),
            ("/bots/01", {}, 1),
            ("/health", {}, 7),
        ):
            for _ in range(times):
                await http.get(path, headers=headers)
        found = await scraped(http)
        assert {name[1:]: value for name, value in found.items() if name[0] == "decisions_total"} == {
            ("grant", "bot", ""): 5,
            ("deny", "bot", "unknown_token"): 3,
            ("deny", "bot", "missing_credentials"): 2,
            ("anonymous", "bot", ""): 4,
            ("anonymous", "llm", ""): 1,
            ("deny", "", "not_canonical"): 1,
        }
        assert found["refused_spellings_total",] == 1
        assert found["cache_fills_total",] >= 3  # more where a change overtook one
        assert found["cache_hits_total",] >= 4 + 2 + 2 + 3
        assert (found["cache_entries", "known"], found["cache_entries", "unknown"], found["cache_bindings",]) == (
            2,
            1,
            2,
        )


async def test_no_secret_and_no_reference_is_in_them(database: Database, keys: Management) -> None:
    minted = await keys.create("laptop", bind=[Resource("bot", "sales-bot")])
    async with running(database.runtime) as http:
        for token in (minted.token, mint()):
            await http.get("/bots/sales-bot", headers=bearer(token))
        text = (await http.get("/metrics")).text
        for secret in (minted.token.reveal(), minted.token.token_key, str(minted.key.key_id), "sales", "laptop"):
            assert secret not in text
        ours = [line for line in text.splitlines() if line.startswith("smarter_auth_")]
        assert set(re.findall(r'(\w+)="', "".join(ours))) <= FEW
        assert len(ours) < 100


async def test_keys_that_need_attention_are_counted_in_the_background(database: Database, keys: Management) -> None:
    minted = await keys.create("laptop", expires_at=datetime.now(UTC) + timedelta(days=3))
    await keys.rotate(minted.key.key_id)
    async with running(database.runtime) as http:
        await comes_to(
            http,
            {
                ("keys_expiring", "1d"): 0,
                ("keys_expiring", "7d"): 1,
                ("keys_expiring", "30d"): 1,
                ("keys_unused", "30d"): 0,
                ("keys_unused", "90d"): 0,
                ("rotations_overlapping",): 1,
            },
        )


async def test_what_was_counted_never_falls(database: Database, keys: Management) -> None:
    await keys.add_resource(OTHER)
    app = guarded(database.runtime, metrics_path="/metrics")
    fills = 0.0
    for turn in (1, 2, 3):
        async with lifespan(app), client(app) as http:  # parts of their own, which are closed in between
            await http.get("/bots/2")
            found = await scraped(http)
            assert found["decisions_total", "anonymous", "bot", ""] == turn
            assert found["cache_fills_total",] > fills  # by one, or more where a change overtook it
            fills = found["cache_fills_total",]
            assert found["cache_entries", "known"] == 1


async def test_a_scrape_takes_nothing_away_from_usage_nor_a_flush_from_the_metrics(
    database: Database, store: Store, token: Token
) -> None:
    async def written() -> int:
        return sum(total.count for total in await used(store))

    async with running(database.runtime, usage_flush_s=0.02) as http:
        for _ in range(30):
            await http.get("/bots/1", headers=bearer(token))
            await scraped(http)
        async with asyncio.timeout(PATIENCE_S):
            while await written() < 30:
                await scraped(http)
        assert await written() == 30
        assert (await scraped(http))["decisions_total", "grant", "bot", ""] == 30


@pytest.mark.parametrize("listens", [True, False])
async def test_how_long_a_change_takes_to_be_heard_is_told(
    database: Database, keys: Management, *, listens: bool
) -> None:
    minted = await keys.create("laptop", bind=[KEYED])
    async with running(database.runtime, statement_cache_size=100 if listens else 0) as http:
        while not (await scraped(http))["heartbeats_total",]:
            await asyncio.sleep(0.01)
        before = (await scraped(http))["change_lag_seconds_count",]
        await keys.revoke(minted.key.key_id)
        await comes_to(http, {("change_lag_seconds_count",): before + 1})
        found = await scraped(http)
        assert found["change_lag_seconds_bucket", "10.0"] == before + 1
        assert 0 <= found["change_lag_seconds_sum",] < 10


def test_the_lag_is_a_histogram() -> None:
    lag = Lag()
    for seconds in (-0.001, 0.004, 0.005, 0.03, 2, 99):
        lag.note(seconds)
    assert dict(lag.buckets()) | {"0.005": 3, "0.025": 3, "0.05": 4, "2.5": 5, "10.0": 5, "+Inf": 6} == dict(
        lag.buckets()
    )
    assert round(lag.sum_s, 3) == 101.039


async def test_an_app_adds_them_to_a_registry_of_its_own(database: Database) -> None:
    registry = CollectorRegistry()
    registry.register(SmarterAuthCollector())
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(SmarterAuthCollector())
    async with running(database.runtime) as http, running(database.runtime) as other:
        await http.get("/bots/2")
        await other.get("/bots/2")
    found = samples(generate_latest(registry).decode())
    assert found["decisions_total", "anonymous", "bot", ""] == 2  # of both middlewares, and after their end


def test_under_wsgi_they_are_the_same(database: Database) -> None:
    app = test_wsgi.guarded(database.runtime, metrics_path="/metrics")
    with test_wsgi.client(app) as http:
        for _ in range(3):
            http.get("/bots/2")
        found = samples(http.get("/metrics").text)
        assert found["decisions_total", "anonymous", "bot", ""] == 3
        assert found["pool_connections", "idle"] >= 1
    app.close()


def test_without_the_client_the_path_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "find_spec", lambda _: None)
    settings = Settings(database_url="postgresql://x/y", routes=["bot /bots/{ref}"], metrics_path="/metrics")
    with pytest.raises(ConfigurationError, match=r"pip install 'smarter_auth_mw\[metrics\]'"):
        compile_routes(settings)


# Workers that share a port


def test_whichever_worker_is_scraped_tells_for_all(database: Database, tmp_path: Path) -> None:
    env = environment(database_url=database.runtime, routes=ROUTES, metrics_path="/metrics")
    env[exchange.VARIABLE] = str(tmp_path)
    started = re.compile(r"running on (http://\S+)(?s:.*startup complete){2}")
    command = [*PROGRAM, "serve", "existing_service:app", "--port", "0", "--workers", "2"]
    with serving(command, env, started) as server:
        for _ in range(20):
            assert httpx.get(f"{server.url}/bots/2").status_code == 200
        deadline_s = time.monotonic() + PATIENCE_S
        while _told(server.url) != {20.0}:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        assert len(list(tmp_path.glob("*.json"))) == 2
        server.stop()
    assert sum(_counted(path) for path in tmp_path.glob("*.json")) == 20


def test_serve_lets_its_workers_meet_where_nobody_named_a_place(database: Database, tmp_path: Path) -> None:
    env = environment(database_url=database.runtime, routes=ROUTES, metrics_path="/metrics")
    env |= {"TMPDIR": str(tmp_path)}
    started = re.compile(r"running on (http://\S+)(?s:.*startup complete){2}")
    with serving([*PROGRAM, "serve", "existing_service:app", "--port", "0", "--workers", "2"], env, started) as server:
        for _ in range(20):
            assert httpx.get(f"{server.url}/bots/2").status_code == 200
        deadline_s = time.monotonic() + PATIENCE_S
        while _told(server.url) != {20.0}:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        assert len(list(tmp_path.glob("smarter_auth_*/*.json"))) == 2
        server.stop()
    assert list(tmp_path.glob("smarter_auth_*")) == []


def test_a_worker_that_shows_its_own_figures_alone_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exchange, "_is_warned", [])
    exchange.warn_of_one_worker()
    assert caplog.text == ""  # This process was started by nobody's server.
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "a server")
    for _ in range(2):
        exchange.warn_of_one_worker()
    assert caplog.text.count("metrics.one_worker") == 1


def test_a_worker_that_meets_others_has_nothing_to_warn_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exchange, "_is_warned", [])
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "a server")
    monkeypatch.setenv(exchange.VARIABLE, str(tmp_path))
    exchange.warn_of_one_worker()
    assert caplog.text == ""


def _told(url: str) -> set[float]:
    """What several scrapes say, each of them by a connection of its own."""
    return {
        samples(httpx.get(f"{url}/metrics").text).get(("decisions_total", "anonymous", "bot", ""), 0) for _ in range(8)
    }


def _counted(path: Path) -> float:
    return exchange._read(path.read_text())["decisions"].get(("bot", "anonymous", ""), 0)


def test_a_worker_that_is_gone_leaves_what_it_has_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(exchange.VARIABLE, str(tmp_path))
    other: Figures = {"flushes": {(): 3.0}, "cache_bindings": {(): 5.0}, "heartbeat_age_seconds": {(): 0.5}}
    monkeypatch.setattr(exchange, "_name", lambda: "smarter_auth_1_a.json")
    exchange.publish(other)
    monkeypatch.setattr(exchange, "_name", lambda: "smarter_auth_2_b.json")
    own: Figures = {"flushes": {(): 1.0}, "cache_bindings": {(): 1.0}, "heartbeat_age_seconds": {(): 0.1}}
    both = {"flushes": {(): 4.0}, "cache_bindings": {(): 6.0}, "heartbeat_age_seconds": {(): 0.5}}
    assert exchange.with_others(own) == both
    path = tmp_path / "smarter_auth_1_a.json"
    long_ago_s = time.time() - exchange.GONE_AFTER_S - 1
    os.utime(path, (long_ago_s, long_ago_s))
    assert exchange.with_others(own) == own | {"flushes": {(): 4.0}}
    path.write_text(path.read_text()[:20])
    assert exchange.with_others(own) == own


async def test_a_directory_that_cannot_be_written_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(exchange.VARIABLE, str(tmp_path / "none"))
    monkeypatch.setattr(exchange, "EVERY_S", 0)
    with suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await exchange.publishing()
    assert caplog.text.count("metrics.not_shared") == 1
