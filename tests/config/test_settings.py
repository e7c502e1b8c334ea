"""Configuration: text in, everything wrong with it told at once, and no secret in what is told."""

from __future__ import annotations

import pytest

from smarter_auth_mw.config.settings import DatabaseSettings, Settings
from smarter_auth_mw.errors import ConfigurationError

GOOD = {"DATABASE_URL": "postgresql://me:sesame@db/bots", "ROUTES": "bot /bots/{ref:int}"}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("SMARTER_AUTH_"):
            monkeypatch.delenv(name)


def environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in (GOOD | values).items():
        monkeypatch.setenv(f"SMARTER_AUTH_{name}", value)


def mistakes_of(**values: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Settings(**values)
    return str(caught.value)


def test_two_variables_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch)
    settings = Settings()
    assert settings.routes == ("bot /bots/{ref:int}",)
    assert settings.database_url.get_secret_value() == "postgresql://me:sesame@db/bots"
    assert (settings.max_staleness_s, settings.heartbeat_s, settings.credentials) == (
        5,
        1,
        ("token", "bearer", "x-api-key"),
    )


def test_lists_are_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(
        monkeypatch,
        ROUTES="bot /bots/{ref:int};\n none /bots/help\n",
        CREDENTIALS="Bearer, X-API-Key",
        TRUSTED_PROXIES="10.0.0.0/8;::1\n127.0.0.1",
        MOUNTS="/api/,/v1",
    )
    settings = Settings()
    assert settings.routes == ("bot /bots/{ref:int};", "none /bots/help")
    assert settings.credentials == ("bearer", "x-api-key")
    assert settings.trusted_proxies == ("10.0.0.0/8", "::1", "127.0.0.1")
    assert settings.mounts == ("/api", "/v1")


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, REALM="one")
    assert Settings(realm="two").realm == "two"


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, POOL_MAX="", FAILED_ATTEMPTS="")
    assert Settings().pool_max == 8
    assert Settings().failed_attempts == ""


def test_nothing_is_assumed_about_database_and_routes() -> None:
    told = mistakes_of()
    assert "SMARTER_AUTH_DATABASE_URL: must be set" in told
    assert "SMARTER_AUTH_ROUTES: must be set" in told
    assert "bot /bots/{ref:int}" in told
    assert "preset:smarter" in told


def test_database_commands_need_no_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMARTER_AUTH_DATABASE_URL", "embedded:")
    assert DatabaseSettings().routes == ()


def test_all_mistakes_are_told_together_with_variable_value_and_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(
        monkeypatch,
        DATABASE_URL="mysql://me:sesame@db/bots",
        POOL_MAX="many",
        HEARTBEAT_S="nan",
        TRUSTED_PROXIES="10.0.0.0/8,here",
        CREDENTIALS="cookie",
        REALM='a"b',
        REQUIRE="sometimes",
        FAILED_ATTEMPTS="lots",
        MOUNTS="api",
        CACHE_URL="file:///tmp",
    )
    with pytest.raises(ConfigurationError) as caught:
        Settings()
    assert {mistake.variable.removeprefix("SMARTER_AUTH_") for mistake in caught.value.mistakes} == {
        "DATABASE_URL", "POOL_MAX", "HEARTBEAT_S", "TRUSTED_PROXIES", "CREDENTIALS", "REALM", "REQUIRE",
        "FAILED_ATTEMPTS", "MOUNTS", "CACHE_URL",
    }  # fmt: skip
    assert "SMARTER_AUTH_POOL_MAX='many'" in str(caught.value)
    assert "sesame" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert caught.value.exit_code == 2


def test_a_misspelt_variable_is_a_mistake_that_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, ROUTE="bot /b/{ref}")
    assert "SMARTER_AUTH_ROUTE: there is no such setting; the nearest is SMARTER_AUTH_ROUTES" in mistakes_of()


def test_a_misspelt_argument_is_a_mistake_too(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch)
    assert "pool_mix: there is no such setting; the nearest is pool_min" in mistakes_of(pool_mix=3)


@pytest.mark.parametrize("name", ["DB_SERVICE_HOST", "DB_SERVICE_PORT", "DB_PORT", "DB_PORT_5432_TCP_ADDR", "PORT"])
def test_what_kubernetes_sets_by_itself_is_no_mistake(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    environment(monkeypatch, **{name: "tcp://10.0.0.1:5432"})
    assert Settings().routes


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"pool_min": 9}, "SMARTER_AUTH_POOL_MAX='8': must be at least SMARTER_AUTH_POOL_MIN=9"),
        ({"heartbeat_s": 5}, "SMARTER_AUTH_MAX_STALENESS_S='5': must be more than SMARTER_AUTH_HEARTBEAT_S=5"),
        ({"heartbeat_s": 10, "pool_min": 9, "pool_max": 0}, "SMARTER_AUTH_POOL_MAX='0': Input should be greater"),
        ({"heartbeat_s": 10, "pool_min": 9, "pool_max": 0}, "SMARTER_AUTH_MAX_STALENESS_S='5': must be more than"),
        ({"heartbeat_s": 10, "pool_min": 9}, "SMARTER_AUTH_POOL_MAX='8': must be at least"),
        ({"heartbeat_s": 10, "pool_min": 9}, "SMARTER_AUTH_MAX_STALENESS_S='5': must be more than"),
        ({"max_staleness_s": 0}, "greater than 0"),
        ({"stale_if_error_s": -1}, "greater than or equal to 0"),
        ({"pool_max": 0}, "greater than or equal to 1"),
        ({"cache_ttl_s": float("inf")}, "finite"),
    ],
)
def test_bounds(monkeypatch: pytest.MonkeyPatch, values: dict[str, float], rule: str) -> None:
    environment(monkeypatch)
    assert rule in mistakes_of(**values)


def test_settings_hide_their_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, CACHE_URL="redis://:sesame@cache/0", LISTEN_URL="postgresql://me:sesame@primary/bots")
    assert "sesame" not in repr(Settings())
