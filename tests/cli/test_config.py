"""`smarter-auth config`: what counts, where it comes from, and the schema and the page that say what there is."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import jsonschema
import pytest
from annotated_types import Ge, Gt
from pydantic.fields import FieldInfo

from smarter_auth_mw import Settings
from smarter_auth_mw.cli.commands.config import schema_of_toml, shown
from smarter_auth_mw.config.origins import PREFIX
from tests.support.cli import Commands

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "reference" / "configuration.md"
SCHEMA = DOCS / "smarter_auth.schema.json"
TABLE = re.compile(r"(?<=test_config.py -->\n\n).*", re.DOTALL)
BLOCKS = dict(re.findall(r"^```(toml|ini)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))


@pytest.fixture
def here(bare: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the page's example."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smarter_auth.toml").write_text(BLOCKS["toml"])
    (tmp_path / ".env").write_text(BLOCKS["ini"].replace("…", "sesame"))
    return tmp_path


def test_every_setting_is_shown_with_its_value_and_where_it_comes_from(bare: Commands, here: Path) -> None:
    bare.set(pool_max="32", cache_url="rediss://:sesame@cache/0?password=sesame")
    found = {row["setting"]: (row["value"], row["source"]) for row in bare.json("config")}
    assert found.keys() == Settings.model_fields.keys()
    assert found["database_url"] == ("postgresql://app:***@localhost/app", f"{here}/.env")
    assert found["cache_url"] == ("rediss://:***@cache/0?password=***", "environment")
    assert found["routes"] == (["bot /bots/{ref:int}", "none /bots/help"], f"{here}/smarter_auth.toml")
    assert found["pool_max"] == (32, "environment")
    assert found["realm"] == ("smarter", "default")


def test_people_get_a_line_for_each_and_no_password(bare: Commands, here: Path) -> None:
    ran = bare("config")
    assert len(ran.out.splitlines()) == len(Settings.model_fields) + 1
    assert re.search(rf"^hide_credentials +yes +{here}/smarter_auth.toml$", ran.out, re.MULTILINE)
    assert re.search(r"^routes +bot /bots/\{ref:int\}; none /bots/help ", ran.out, re.MULTILINE)
    assert "sesame" not in ran.out + ran.err


def test_mistakes_are_told_instead(bare: Commands, here: Path) -> None:
    (here / ".env").write_text("SMARTER_AUTH_ROUTE=x")
    ran = bare("config", "--json")
    assert ran.exit_code == 2
    message = ran.json["error"]["message"]
    assert f"SMARTER_AUTH_ROUTE in {here}/.env: there is no such setting" in message
    assert "SMARTER_AUTH_DATABASE_URL: must be set" in message


def test_settings_of_an_app_are_its_own(bare: Commands, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(here))
    (here / "configured_app.py").write_text(
        "from smarter_auth_mw import Settings, SmarterAuthMiddleware\n"
        "app = SmarterAuthMiddleware(None, settings=Settings(realm='own'))\n"
    )
    found = {row["setting"]: row for row in bare.json("config", "--app", "configured_app:app")}
    assert (found["realm"]["value"], found["realm"]["source"]) == ("own", "arguments")


def test_check_says_that_routes_come_from_the_file(bare: Commands, here: Path) -> None:
    assert bare.json("check", "/elsewhere")["routes_from"] == f"{here}/smarter_auth.toml"


def test_the_schema_is_printed_as_it_stands_in_the_docs(bare: Commands) -> None:
    printed = bare("config", "--schema").out
    if "UPDATE_GOLDEN" in os.environ:
        SCHEMA.write_text(printed)
    assert json.loads(SCHEMA.read_text()) == json.loads(printed), "UPDATE_GOLDEN=1 writes it anew"
    assert json.loads(printed)["properties"].keys() == Settings.model_fields.keys()


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        (BLOCKS["toml"], True),
        ("routes = 'bot /bots/{ref}'\nheartbeat_s = 0.5", True),
        ("pool_mxa = 3", False),
        ("routes = 5", False),
        ("audit = 'some'", False),
        ("pool_max = 0", False),
    ],
)
def test_the_schema_takes_what_the_settings_take(text: str, is_right: bool) -> None:
    schema = schema_of_toml()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert jsonschema.Draft202012Validator(schema).is_valid(tomllib.loads(text)) == is_right


def test_the_page_has_a_row_for_every_setting() -> None:
    rows = ["| setting | type | default | meaning |", "|---|---|---|---|", *map(row_of, Settings.model_fields)]
    table = "\n".join(rows) + "\n"
    text = PAGE.read_text()
    if "UPDATE_GOLDEN" in os.environ:
        PAGE.write_text(TABLE.sub(lambda _: table, text))
        text = PAGE.read_text()
    found = TABLE.search(text)
    assert found is not None
    assert found[0] == table, "UPDATE_GOLDEN=1 writes it anew"


def row_of(name: str) -> str:
    field = Settings.model_fields[name]
    default: Any = shown(field.default)
    text = ", ".join(default) if isinstance(default, list) else str(default).lower()
    cells = (f"`{name}`", type_of(name, field), f"`{text}`" if text else "", str(field.description))
    return f"| {' | '.join(cells)} |".replace("  ", " ")


def type_of(name: str, field: FieldInfo) -> str:
    """The type as people write it, with its unit and the allowed values."""
    if get_origin(field.annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(field.annotation))
    if get_origin(field.annotation) is tuple:
        return "list"
    words = {bool: "`true` or `false`", int: "whole number", float: "seconds" if name.endswith("_s") else "number"}
    bounds = {Ge: lambda bound: f"at least {bound.ge}", Gt: lambda bound: f"more than {bound.gt}"}
    kind = words.get(field.annotation, "text") if isinstance(field.annotation, type) else "text"
    return ", ".join([kind, *(bounds[type(one)](one) for one in field.metadata if type(one) in bounds)])


def test_a_variable_has_the_same_name_in_upper_case() -> None:
    assert PREFIX + "POOL_MAX" in PAGE.read_text()


@pytest.mark.parametrize(
    "command",
    [["config"], ["gate", "--port", "0"], ["serve", "tests.support.asgi:APP", "--port", "0"], ["admin"]],
)
def test_mistakes_of_routes_and_of_other_settings_are_reported_together(bare: Commands, command: list[str]) -> None:
    bare.set(database_url="postgresql:///app", routes="bot /bots/{oops}", pool_max="0", heartbeat_s="-1")
    ran = bare(*command)
    assert ran.exit_code == 2
    assert [name for name in ("ROUTES", "POOL_MAX", "HEARTBEAT_S") if f"SMARTER_AUTH_{name}" not in ran.err] == []
