"""Whatever the settings say, nothing answers 500: either the start fails with a mistake, or requests get 503."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from smarter_auth_mw import Settings, SmarterAuthMiddleware
from smarter_auth_mw.errors import ConfigurationError
from tests.support.asgi import APP, client
from tests.support.database import Database

HUGE = 10**30
WRONG: list[dict[str, Any]] = [
    *({"database_url": url} for url in (
        "postgresql://app@127.0.0.1:543310/app",
        "postgresql://app@h..x/app",
        "postgresql://app@" + "x" * 300 + "/app",
        "postgresql://app@[::1%25nowhere]:1/app",
        "postgresql://app@\u2100.example/app",
        "postgresql://app@127.0.0.1:1/" + "d" * 5000,
        "postgresql:///app?host=/nowhere/" + "s" * 300,
        "postgresql:///app?host=/dev/null",
        "postgresql://app@127.0.0.1:1/app?options=%FF",
        "postgresql://app@127.0.0.1:1/app?connect_timeout=999999999",
        "postgresql://app@127.0.0.1:1/app?krbsrvname=x&gsslib=sspi",
        "postgresql://app@127.0.0.1:1/app?ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2&sslmode=require",
        "postgresql://app@127.0.0.1:1/app?passfile=/dev/null/x",
        "postgresql://app@,/app",
        "postgresql://@@@/",
        "postgresql://",
        "embedded:///" + "d/" * 500,
    )),
    {"listen_url": "postgresql://app@127.0.0.1:1/app"},
    {"pool_min": 0},
    {"pool_min": HUGE, "pool_max": HUGE},
    {"pool_max": HUGE},
    {"statement_cache_size": HUGE},
    {"query_timeout_s": 1e308},
    {"query_timeout_s": 1e-300},
    {"heartbeat_s": 1e307, "max_staleness_s": 1e308},
    {"heartbeat_s": 1e-300},
    {"cache_ttl_s": 1e308},
    {"negative_ttl_s": 1e-300},
    {"stale_if_error_s": 1e308},
    {"usage_flush_s": 1e308},
    {"usage_flush_s": 1e-300},
    {"max_entries": HUGE, "max_bindings": HUGE},
    {"failed_attempts": "9999999/day"},
]  # fmt: skip


VALUES = {"database_url": "postgresql://app@127.0.0.1:1/app", "routes": ["bot /bots/{ref}"], "ready_path": "/readyz"}


async def answers(values: dict[str, Any]) -> set[int]:
    """The statuses of a resource and of readiness; empty where the settings are refused, naming which."""
    try:
        settings = Settings(**(VALUES | values))
    except ConfigurationError as error:
        return set() if "SMARTER_AUTH_" in str(error) else {500}
    app = SmarterAuthMiddleware(APP, settings)
    async with asyncio.timeout(60), client(app) as http:
        statuses = {(await http.get(path)).status_code for path in ("/bots/1", "/readyz", "/bots/1")}
        assert (await http.get("/health")).status_code == 200
        await app._guard.close()
    return statuses


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: str(wrong)[:60])
async def test_no_configuration_however_wrong_gives_a_500(
    wrong: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert await answers(wrong) <= {503}
    assert not [record for record in caplog.records if record.exc_info], caplog.text


@pytest.mark.parametrize("odd", [one for one in WRONG if "database_url" not in one], ids=lambda odd: str(odd)[:60])
async def test_settings_at_the_end_of_what_there_is_work_or_are_refused(
    odd: dict[str, Any], database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    assert await answers({"database_url": database.runtime} | odd) <= {200, 503}
    assert not [record for record in caplog.records if record.exc_info], caplog.text
