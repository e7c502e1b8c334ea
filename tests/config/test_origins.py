"""Environment, `.env` and TOML: which one wins, and what is told of mistakes in each."""

from __future__ import annotations

from pathlib import Path

import pytest

from smarter_auth_mw import Settings, SmarterAuthMiddleware
from smarter_auth_mw.config.settings import RouteSettings
from smarter_auth_mw.configured import compile_routes
from smarter_auth_mw.errors import ConfigurationError
from tests.support.cli import Commands

DATABASE = "postgresql://me:sesame@db/bots"


@pytest.fixture(autouse=True)
def here(bare: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of the test's own, and nothing in the environment."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dotenv(text: str) -> None:
    Path(".env").write_text(text)


def toml(text: str, name: str = "smarter_auth.toml") -> None:
    Path(name).write_text(text)


def mistakes() -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        compile_routes(Settings())
    assert "sesame" not in str(caught.value)
    return [str(mistake) for mistake in caught.value.mistakes]


def test_each_place_wins_over_those_behind_it(bare: Commands, here: Path) -> None:
    toml(f"database_url = '{DATABASE}'\nroutes = ['bot /bots/{{ref}}']\nrealm = 'toml'\npool_max = 3\npool_min = 2")
    dotenv("SMARTER_AUTH_REALM=dotenv\nSMARTER_AUTH_POOL_MAX=4\nSMARTER_AUTH_AUDIT=all")
    bare.set(realm="environment", pool_max="5")
    settings = Settings(realm="argument")
    assert (settings.realm, settings.pool_max, settings.audit, settings.pool_min) == ("argument", 5, "all", 2)
    places = ["realm", "pool_max", "audit", "pool_min", "require"]
    assert [settings.origin(name) for name in places] == [
        *("arguments", "environment", str(here / ".env"), str(here / "smarter_auth.toml"), "default")
    ]


def test_lists_are_arrays_in_toml_or_text() -> None:
    toml(
        f"database_url = '{DATABASE}'\nroutes = ['bot /bots/{{ref}}  # comma, and ;', 'none /bots/x']\n"
        "mounts = '/a, /b'\ncredentials = ['Bearer']\nhide_credentials = true\nheartbeat_s = 0.5"
    )
    settings = Settings()
    assert compile_routes(settings).kinds == ("bot",)
    assert (settings.mounts, settings.credentials, settings.heartbeat_s) == (("/a", "/b"), ("bearer",), 0.5)


def test_an_empty_value_hides_none_behind_it(bare: Commands) -> None:
    toml("routes = 'bot /bots/{ref}'\nrealm = 'toml'\nfailed_attempts = '3/hour'")
    dotenv("SMARTER_AUTH_REALM=\n")
    bare.set(database_url=DATABASE, realm="", failed_attempts="")
    assert Settings().realm == "toml"
    assert Settings().failed_attempts == ""


def test_dotenv_is_read_as_others_read_it() -> None:
    dotenv(
        f"export SMARTER_AUTH_DATABASE_URL='{DATABASE}'\nOTHERS=1\nWRONG LINE OF OTHERS\nPREFIX=/bots\n"
        'SMARTER_AUTH_ROUTES="bot ${PREFIX}/{ref}"  # a comment\n'
    )
    assert Settings().routes == ("bot /bots/{ref}",)


def test_another_toml_file_is_named_by_the_environment_or_by_dotenv(bare: Commands, here: Path) -> None:
    toml("realm = 'not this one'")
    toml(f"database_url = '{DATABASE}'\nroutes = ['bot /bots/{{ref}}']\nrealm = 'other'", "other.toml")
    dotenv("SMARTER_AUTH_CONFIG_FILE=other.toml")
    assert Settings().realm == "other"
    bare.set(config_file=str(here / "none.toml"))
    assert f"{here}/none.toml: it cannot be read: No such file or directory" in mistakes()


def test_mistakes_of_all_places_are_told_together_as_they_are_spelled_there(
    bare: Commands, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml("pool_max = 'many'\nrouts = ['bot /bots/{ref}']\nSMARTER_AUTH_REALM = 1\nlisten_url = {password = 'sesame'}")
    dotenv("SMARTER_AUTH_HEARTBEAT_S=nan\nSMARTER_AUTH_ROUTE=x\nSMARTER_AUTH_REALM x\n")
    bare.set(database_url=DATABASE.replace("postgresql", "mysql"), pool_mxa="3")
    monkeypatch.setenv("SMARTER_AUTH_realm", "x")
    assert sorted(mistakes()) == sorted(
        [
            f"{here}/.env: line 3 is not NAME=VALUE",
            "SMARTER_AUTH_POOL_MXA: there is no such setting; the nearest is SMARTER_AUTH_POOL_MAX",
            "SMARTER_AUTH_realm: there is no such setting; the nearest is SMARTER_AUTH_REALM",
            f"SMARTER_AUTH_ROUTE in {here}/.env: there is no such setting; the nearest is SMARTER_AUTH_ROUTES",
            f"SMARTER_AUTH_HEARTBEAT_S='nan' in {here}/.env: Input should be a finite number",
            f"SMARTER_AUTH_REALM in {here}/smarter_auth.toml: there is no such setting; the nearest is realm",
            f"routs in {here}/smarter_auth.toml: there is no such setting; the nearest is routes",
            f"listen_url='a table' in {here}/smarter_auth.toml: Input should be a valid string",
            f"pool_max='many' in {here}/smarter_auth.toml: "
            "Input should be a valid integer, unable to parse string as an integer",
            "SMARTER_AUTH_DATABASE_URL: a URL that begins with postgresql:// or embedded:; "
            "what is set has 25 characters and is not shown",
            "SMARTER_AUTH_ROUTES: must be set: which paths are resources, for example  bot /bots/{ref:int}  or  "
            "preset:smarter",
        ]
    )


@pytest.mark.parametrize("value", ["5", "{a = 1}", "[1, [2]]", "true"])
def test_what_is_no_list_is_a_mistake(bare: Commands, value: str) -> None:
    bare.set(database_url=DATABASE, routes="bot /bots/{ref}")
    toml(f"mounts = {value}")
    (told,) = mistakes()
    assert told.endswith("smarter_auth.toml: a string, or a list of strings")


def test_a_mistake_of_the_grammar_of_routes_names_the_file(here: Path) -> None:
    toml(f"database_url = '{DATABASE}'\nroutes = ['bot /bots/{{id}}']")
    (told,) = mistakes()
    assert told.startswith(f"routes='bot /bots/{{id}}' in {here}/smarter_auth.toml: ")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"routes = [", "this is not TOML: "),
        (b"realm = 'sesame", "this is not TOML: "),
        (b"realm = '\xff'", "it is not written in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_mistake(here: Path, content: bytes, told: str) -> None:
    (here / "smarter_auth.toml").write_bytes(content)
    assert any(f"{here}/smarter_auth.toml: {told}" in mistake for mistake in mistakes())


@pytest.mark.parametrize("marker", ["pyvenv.cfg", "conda-meta"])
def test_a_virtual_environment_called_dotenv_is_ignored(bare: Commands, here: Path, marker: str) -> None:
    (here / ".env").mkdir()
    (here / ".env" / marker).touch()
    bare.set(database_url=DATABASE, routes="bot /bots/{ref}")
    assert Settings().origin("routes") == "environment"


def test_files_above_the_working_directory_are_not_read(
    bare: Commands, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml("realm = 'above'")
    dotenv("SMARTER_AUTH_REALM=above")
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    bare.set(database_url=DATABASE, routes="bot /bots/{ref}")
    assert Settings().realm == "smarter"


def test_the_middleware_raises_for_no_mistake_in_any_place(bare: Commands) -> None:
    toml("mounts = 'api'\nunknown = 1")
    bare.set(database_url=DATABASE, routes="bot /bots/{ref}")
    guard = SmarterAuthMiddleware(None)._guard  # type: ignore[arg-type]
    told = str(guard.mistakes)
    assert told.count("mounts='api' in ") == told.count("unknown in ") == 1
    assert guard.routes is None


def test_routes_are_found_where_another_setting_is_wrong(bare: Commands) -> None:
    toml("routes = ['bot /bots/{ref}']\nunknown = 1")
    assert compile_routes(RouteSettings()).kinds == ("bot",)


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SMARTER_AUTH_DATABASE_URL", raising=False)
    tmp_path.joinpath(".env").write_text("SMARTER_AUTH_DATABASE_URL=postgresql://x/y\n", "utf-8-sig")
    tmp_path.joinpath("smarter_auth.toml").write_text('routes = ["bot /bots/{ref}"]\n', "utf-8-sig")
    settings = Settings()
    assert settings.database_url.get_secret_value() == "postgresql://x/y"
    assert settings.routes == ("bot /bots/{ref}",)


@pytest.mark.parametrize("name", [".env", "smarter_auth.toml"])
def test_a_directory_in_the_place_of_a_file_is_a_mistake_unless_it_is_an_environment(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath(name).mkdir()
    asked = {"database_url": "postgresql://x/y", "routes": ["bot /bots/{ref}"]}
    with pytest.raises(ConfigurationError, match="it is a directory, not a file"):
        Settings(**asked)
    tmp_path.joinpath(name, "pyvenv.cfg").touch()
    Settings(**asked)
