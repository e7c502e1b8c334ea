"""`smarter-auth doctor` on what is really broken: each finding, made for real, and what to do about it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from smarter_auth_mw.cli.doctor import services as examination
from smarter_auth_mw.cli.doctor.services import check_cache
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.metrics import multiprocess
from smarter_auth_mw.postgres.privileges import Privilege, parse
from tests.support.cli import Commands, rows
from tests.support.database import Database
from tests.support.memcached import memcached
from tests.support.pgbouncer import pgbouncer, through
from tests.support.plain_postgres import PlainPostgres, installed
from tests.support.valkey import Valkey

PROBLEM, UNREACHABLE = 1, 3


def told(run: Commands, exit_code: int, *options: str) -> dict[str, dict[str, Any]]:
    """The findings by what they check, each with something to do; no two of the same kind."""
    ran = run("doctor", "--json", *options)
    assert ran.exit_code == exit_code, ran.out
    found = {finding["check"]: finding for finding in ran.json["findings"]}
    assert len(found) == len(ran.json["findings"]), ran.json
    assert all(finding["hint"] for finding in found.values()), found
    assert "Traceback" not in ran.err
    return found


def only(run: Commands, exit_code: int, check: str) -> str:
    """The message of the only finding."""
    found = told(run, exit_code)
    assert list(found) == [check]
    return str(found[check]["message"])


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is to be heard, there is no need to wait long for it."""
    monkeypatch.setattr(examination, "PATIENCE_S", 2.0)


def execute(database: Database, script: str) -> None:
    rows(database.owner, "SELECT 1", script.replace("RUNTIME", database.runtime_role))


def test_where_nothing_is_wrong_it_says_so(run: Commands) -> None:
    ran = run("doctor")
    assert (ran.exit_code, ran.json if ran.out.startswith("{") else None) == (0, None)
    assert ran.err.splitlines() == ["Checking the database.", "Checking the shared cache.", "No problem was found."]


def test_a_warning_counts_where_it_is_asked_to(run: Commands) -> None:
    run.set(verify_router="true")
    assert list(told(run, 0)) == ["settings"]
    assert list(told(run, PROBLEM, "--strict")) == ["settings"]


# The database


def test_a_database_that_cannot_be_reached(run: Commands) -> None:
    run.set(database_url="postgresql://me:sesame@127.0.0.1:1/none")
    assert "sesame" not in only(run, UNREACHABLE, "database")


def test_a_database_without_our_schema(run: Commands, empty_database: Database) -> None:
    run.set(database_url=empty_database.owner)
    assert "db migrate" in told(run, PROBLEM)["schema"]["hint"]


def test_a_read_only_database_is_one_problem(run: Commands, database: Database) -> None:
    execute(database, f"ALTER ROLE {database.manager_role} SET default_transaction_read_only = on")
    try:
        assert "is read-only" in only(run, UNREACHABLE, "database")
    finally:
        execute(database, f"ALTER ROLE {database.manager_role} RESET default_transaction_read_only")


@pytest.mark.parametrize(
    ("grade", "revoked", "said"),
    [
        ("manager", "UPDATE (is_active) ON smarter_auth.key", "UPDATE (is_active) on smarter_auth.key"),
        ("manager", "USAGE ON SEQUENCE smarter_auth.resource_id_seq", "USAGE on smarter_auth.resource_id_seq"),
        ("manager", "SELECT ON smarter_auth.token", "SELECT on smarter_auth.token"),
        ("runtime", "SELECT ON smarter_auth.token", "SELECT on smarter_auth.token"),
        (
            "runtime",
            "EXECUTE ON FUNCTION smarter_auth.purge_changes(interval)",
            "EXECUTE on smarter_auth.purge_changes(interval)",
        ),
    ],
)
def test_a_role_that_may_do_too_little(run: Commands, database: Database, grade: str, revoked: str, said: str) -> None:
    role, url = getattr(database, f"{grade}_role"), getattr(database, grade)
    run.set(database_url=url)
    execute(database, f"REVOKE {revoked} FROM {role}")
    found = told(run, PROBLEM)["grants"]
    assert f"lacks what a {grade} role needs: {said}." in found["message"]
    advice = found["hint"].partition("smarter-auth ")[2]
    assert advice == f"db migrate --{grade}-role {role}"
    run.set(database_url=database.owner)
    run.json(*advice.split())
    run.set(database_url=url)
    assert told(run, 0) == {}


def test_a_role_of_the_time_before_grades(run: Commands, database: Database) -> None:
    execute(database, "UPDATE smarter_auth.database_role SET is_inherited = true")
    found = told(run, 0)["grade"]
    assert "can write keys" in found["message"]
    run.set(database_url=database.owner)
    run.json(*found["hint"].partition("smarter-auth ")[2].partition(".")[0].split())
    run.set(database_url=database.manager)
    assert told(run, 0) == {}


def test_a_trigger_that_is_missing_or_disabled(run: Commands, database: Database) -> None:
    execute(database, "ALTER TABLE smarter_auth.key DISABLE TRIGGER note_update")
    found = told(run, PROBLEM)["triggers"]
    assert "The trigger key.note_update is missing or disabled" in found["message"]
    advice = found["hint"].partition("Run: ")[2].partition(". ")[0]
    execute(database, advice)
    assert told(run, 0) == {}
    execute(database, "DROP TRIGGER note_update ON smarter_auth.key")
    assert "key.note_update" in only(run, PROBLEM, "triggers")


def test_triggers_that_are_enabled_again_but_not_always_are_set_right_by_a_migration(
    run: Commands, database: Database
) -> None:
    execute(
        database, "ALTER TABLE smarter_auth.key DISABLE TRIGGER ALL; ALTER TABLE smarter_auth.key ENABLE TRIGGER ALL"
    )
    assert "smarter-auth db migrate" in told(run, PROBLEM)["triggers"]["hint"]
    run.set(database_url=database.owner)
    assert run("db", "migrate").exit_code == 0
    run.set(database_url=database.runtime)
    assert told(run, 0) == {}


def test_a_name_that_a_crash_would_leave(run: Commands, database: Database) -> None:
    execute(database, "ALTER TABLE smarter_auth.incarnation SET LOGGED")
    found = told(run, PROBLEM)["incarnation"]
    assert "no longer UNLOGGED" in found["message"]
    execute(database, found["hint"].removeprefix("Run: "))
    assert told(run, 0) == {}


def test_a_name_that_a_crash_took_is_no_fault(run: Commands, database: Database) -> None:
    execute(database, "DELETE FROM smarter_auth.incarnation")
    assert told(run, 0) == {}


def test_a_platform_whose_tables_have_changed(run: Commands, attached: Database) -> None:
    run.set(database_url=attached.runtime, routes="preset:smarter", api_domains="api.example.com")
    assert told(run, 0) == {}
    (trigger, *_) = rows(attached.owner, "SELECT relation, name FROM smarter_auth.platform_trigger ORDER BY 1, 2")
    execute(attached, f"ALTER TABLE {trigger['relation']} DISABLE TRIGGER {trigger['name']}")
    found = told(run, PROBLEM)["platform"]
    assert f"The trigger {trigger['relation']}.{trigger['name']} on the platform's table" in found["message"]
    execute(attached, found["hint"][found["hint"].index("ALTER TABLE") :].partition(",")[0])
    assert told(run, 0) == {}
    execute(attached, f"DROP TRIGGER {trigger['name']} ON {trigger['relation']}")
    found = told(run, PROBLEM)["platform"]
    run.set(database_url=attached.owner)
    run.json(*found["hint"].partition("smarter-auth ")[2].partition(".")[0].split())
    run.set(database_url=attached.runtime)
    assert told(run, 0) == {}
    execute(attached, "ALTER TABLE knox_authtoken RENAME COLUMN expiry TO ends")
    assert "knox_authtoken.expiry is gone" in told(run, PROBLEM)["platform"]["message"]


def test_a_statement_that_serving_needs_and_that_fails(run: Commands, attached: Database) -> None:
    run.set(database_url=attached.runtime, routes="preset:smarter", api_domains="api.example.com")
    execute(
        attached,
        "CREATE OR REPLACE FUNCTION smarter_auth.platform_protected() RETURNS TABLE (kind text, ref text)"
        " LANGUAGE sql STABLE AS $$ SELECT (1 / 0)::text, '42' $$",
    )
    found = told(run, UNREACHABLE)
    assert "The statement list_protected_kinds, which serving needs, fails" in found["statements"]["message"]


def test_more_connections_than_the_database_has(run: Commands) -> None:
    run.set(pool_max="5000")
    assert "connections left, and a worker may take 5001" in only(run, 0, "connections")


@pytest.mark.parametrize(("ahead_s", "said"), [(90, "90.0 s behind this"), (-3, "3.0 s ahead of this")])
def test_a_clock_that_is_wrong(run: Commands, monkeypatch: pytest.MonkeyPatch, ahead_s: float, said: str) -> None:
    class Clock:
        monotonic = time.monotonic

        @staticmethod
        def time() -> float:
            return time.time() + ahead_s

    monkeypatch.setattr(examination, "time", Clock)
    assert said in only(run, 0, "clock")


# What is heard of changes


def test_without_listen_revocations_take_longer(run: Commands) -> None:
    run.set(statement_cache_size="0", heartbeat_s="3")
    assert "takes up to HEARTBEAT_S (3 s)" in only(run, 0, "listen")


def test_a_listening_connection_that_cannot_be_had(run: Commands) -> None:
    run.set(listen_url="postgresql://127.0.0.1:1/none")
    assert list(told(run, UNREACHABLE)) == ["listen", "heartbeat"]


@pytest.mark.usefixtures("_impatient")
def test_two_urls_that_lead_to_two_databases(run: Commands, other_database: Database) -> None:
    run.set(listen_url=other_database.runtime)
    found = told(run, PROBLEM)
    assert list(found) == ["listen", "heartbeat"]
    assert "lead to different databases" in found["heartbeat"]["message"]


def test_a_heartbeat_that_takes_longer_than_the_time_between_two(run: Commands) -> None:
    run.set(heartbeat_s="0.000001")
    assert "and HEARTBEAT_S is 0.001 ms" in only(run, 0, "heartbeat")


@pytest.fixture(scope="module")
def newest() -> Iterator[PlainPostgres]:
    with PlainPostgres([*installed().values()][-1]).made() as server:
        yield server


@pytest.mark.usefixtures("_impatient")
def test_a_transaction_pooler_that_nobody_told_us_of(run: Commands, newest: PlainPostgres) -> None:
    url = asyncio.run(newest.database())
    tolerant = (
        "ignore_startup_parameters = jit, plan_cache_mode, random_page_cost, default_transaction_isolation,"
        " statement_timeout, lock_timeout"
    )
    with pgbouncer(newest, "transaction", more=tolerant) as port:
        run.set(database_url=through(url, port))
        ran = run("doctor", "--json")  # Sometimes it works by chance, but for LISTEN.
        assert ran.exit_code in (PROBLEM, UNREACHABLE)
        assert "SMARTER_AUTH_STATEMENT_CACHE_SIZE=0" in ran.json["findings"][0]["hint"]
        run.set(statement_cache_size="0")
        assert list(told(run, 0)) == ["listen"]
        run.set(listen_url=url)
        assert told(run, 0) == {}  # Heard at once.
        run.set(listen_url=through(url, port))
        assert "did not arrive" in told(run, PROBLEM)["listen"]["message"]
    with pgbouncer(newest, "transaction") as port:
        run.set(database_url=through(url, port), statement_cache_size="100", listen_url="")
        assert "SMARTER_AUTH_STATEMENT_CACHE_SIZE=0" in told(run, UNREACHABLE)["database"]["hint"]


# The shared cache


def test_a_shared_cache_that_is_down_hangs_or_asks_for_another_password(
    run: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Valkey(password="simsim") as valkey:
        run.set(cache_url=valkey.url)
        assert told(run, 0) == {}
        run.set(cache_url=valkey.url.replace("simsim", "sesame"))
        assert "sesame" not in only(run, UNREACHABLE, "cache")
        run.set(cache_url=valkey.url)
        with monkeypatch.context() as impatient:
            impatient.setattr(examination, "PATIENCE_S", 0.3)
            valkey.freeze()
            assert "did not answer in time" in only(run, UNREACHABLE, "cache")
        valkey.kill()
        assert "cannot be reached" in only(run, UNREACHABLE, "cache")


def test_a_shared_cache_that_is_too_slow_or_runs_no_scripts(run: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    with Valkey() as valkey:
        run.set(cache_url=valkey.url)
        with redis.Redis.from_url(valkey.url) as raw:
            raw.acl_setuser("default", enabled=True, nopass=True, commands=["-@scripting"], reset_keys=False)
        assert "each worker counts by itself" in told(run, 0)["throttle"]["message"]
        run.set(failed_attempts="")
        assert told(run, 0) == {}
        monkeypatch.setattr(examination, "LONGEST_DEADLINE_S", 0.0)
        assert "Workers do not use it" in only(run, PROBLEM, "cache")


async def test_memcached_is_looked_at_too() -> None:
    async with memcached() as server:
        settings = Settings(database_url="postgresql://x/y", routes=["bot /bots/{ref}"], cache_url=server.url)
        assert [finding async for finding in check_cache(settings)] == []
        server.hangs_up = True
        assert [finding.check async for finding in check_cache(settings)] == ["cache"]


# Proxies and pages


def test_proxies_that_are_everybody(run: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    run.set(trusted_proxies="10.0.0.0/8, ::/0")
    assert "SMARTER_AUTH_TRUSTED_PROXIES=::/0 trusts every peer" in only(run, PROBLEM, "proxies")
    run.set(trusted_proxies="10.0.0.0/8")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    assert "FORWARDED_ALLOW_IPS=*" in only(run, 0, "proxies")


APP = """
from starlette.applications import Starlette
from starlette.routing import Route
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from smarter_auth_mw import SmarterAuthMiddleware

def handler(request): ...

app = Starlette(routes=[Route("/bots/{id:int}", handler), Route("/livez", handler)])
app.add_middleware(SmarterAuthMiddleware)
app = ProxyHeadersMiddleware(app, trusted_hosts=%s)
"""


@pytest.mark.parametrize(("trusted", "found"), [('"*"', ["pages", "proxies"]), ('["10.0.0.1"]', ["pages"])])
def test_an_app_that_believes_everybody_or_has_a_route_that_nobody_reaches(
    run: Commands, written: Callable[[str], str], trusted: str, found: list[str]
) -> None:
    run.set(live_path="/livez")
    findings = told(run, 0, "--app", written(APP % trusted))
    assert list(findings) == found
    assert "GET /livez is never reached" in findings["pages"]["message"]


# What a role is to be granted


@pytest.mark.parametrize(
    ("grant", "privileges"),
    [
        ("USAGE ON SCHEMA s", [Privilege("USAGE", "schema", "s")]),
        ("INSERT ON s.a, s.b", [Privilege("INSERT", "table", "s.a"), Privilege("INSERT", "table", "s.b")]),
        (
            "UPDATE (x, y) ON s.a",
            [Privilege("UPDATE", "column", "s.a", "x"), Privilege("UPDATE", "column", "s.a", "y")],
        ),
        (
            "EXECUTE ON FUNCTION s.f(bigint, text[]), s.g()",
            [Privilege("EXECUTE", "function", "s.f(bigint, text[])"), Privilege("EXECUTE", "function", "s.g()")],
        ),
    ],
)
def test_a_grant_is_read_as_its_single_privileges(grant: str, privileges: list[Privilege]) -> None:
    assert list(parse(grant)) == privileges


def test_every_grant_of_the_schema_can_be_read(database: Database) -> None:
    granted = [row["privilege"] for row in rows(database.owner, "SELECT privilege FROM smarter_auth.privilege")]
    assert len(granted) > 10
    assert all(list(parse(one)) for one in granted)


@pytest.mark.parametrize(("place", "warned"), [("", True), ("/run/metrics", False)])
def test_metrics_of_one_worker_are_warned_of(place: str, warned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(multiprocess.VARIABLE, place)
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    settings = Settings(database_url="postgresql://x/y", routes=["bot /bots/{ref}"], metrics_path="/metrics")
    assert [finding.check for finding in examination.check_metrics(settings)] == ["metrics"] * warned
