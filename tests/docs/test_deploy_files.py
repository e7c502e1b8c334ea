"""The files that people deploy with: each is what its own program, or its schema, takes, and says what we know."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from smarter_auth_mw.cli import app
from smarter_auth_mw.config.settings import DatabaseSettings, Settings
from smarter_auth_mw.guard import compile_routes
from tests.programs import find
from tests.support.cli import EXAMPLES
from tests.support.plain_postgres import PASSWORD

COMPOSE = EXAMPLES / "compose.yml"
KUBERNETES = EXAMPLES / "kubernetes" / "smarter_auth.yaml"
UNIT = EXAMPLES / "systemd" / "smarter_auth_gate.service"
DOCKERFILE = EXAMPLES / "Dockerfile"
MOST_EXPOSED = 20
"""Tenths, of a scale to a hundred: what systemd calls well protected ends at 20."""

_VARIABLE = re.compile(r"\$\{(\w+)[^}]*\}")


def documents(path: Path) -> list[dict[str, Any]]:
    """The YAML documents of a file, with merges and anchors resolved."""
    return list(YAML(typ="safe").load_all(path.read_text()))


def check_schema(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", *map(str, arguments)]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_compose_file_is_one_by_its_schema() -> None:
    check_schema("--builtin-schema", "vendor.compose-spec", COMPOSE)


@pytest.mark.parametrize("number", range(len(documents(KUBERNETES))))
def test_kubernetes_takes_each_of_the_manifests(tmp_path: Path, number: int) -> None:
    document = documents(KUBERNETES)[number]
    group, _, version = document["apiVersion"].rpartition("/")
    name = f"io.k8s.api.{group or 'core'}.{version}.{document['kind']}"
    definitions = find("kubernetes") / "_definitions.json"
    (schema := tmp_path / "schema.json").write_text(json.dumps({"$ref": f"{definitions.as_uri()}#/$defs/{name}"}))
    (manifest := tmp_path / "manifest.json").write_text(json.dumps(document))
    check_schema("--schemafile", schema, manifest)


def test_dockerfile_has_nothing_that_its_linter_minds() -> None:
    linted = subprocess.run([find("hadolint"), DOCKERFILE], capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout


def test_what_the_image_copies_is_there_and_not_kept_out() -> None:
    """The build context is the repository, less what ``.dockerignore`` names."""
    root = EXAMPLES.parent
    let_in = {line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert sources <= let_in
    assert all((root / source).exists() for source in sources)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a program that is here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("There is no systemd here, whose systemd-analyze would check the unit.")
    here = Path(sys.prefix, "bin")
    (copy := tmp_path / UNIT.name).write_text(UNIT.read_text().replace("/opt/smarter_auth/bin", str(here)))
    return copy


def test_systemd_takes_the_unit_and_finds_it_well_protected(unit: Path) -> None:
    for check in (["verify"], ["security", "--offline=true", f"--threshold={MOST_EXPOSED}"]):
        checked = subprocess.run(["systemd-analyze", *check, unit], capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout


def commands() -> Iterator[tuple[str, list[str]]]:
    """The arguments that ``smarter-auth`` is started with, and where."""
    services = documents(COMPOSE)[0]["services"]
    yield from (
        (name, one["command"])
        for name, one in services.items()
        if one.get("image") == "smarter_auth_example" and "command" in one
    )
    for document in documents(KUBERNETES):
        for container in _containers(document):
            yield document["metadata"]["name"], container["args"]
    (started,) = re.findall(r"^ExecStart=\S+/smarter-auth (.*)$", UNIT.read_text(), re.MULTILINE)
    yield UNIT.name, started.split()
    (default,) = re.findall(r"^CMD (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    yield DOCKERFILE.name, json.loads(default)


def _containers(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    return document["spec"]["template"]["spec"]["containers"] if "template" in document.get("spec", {}) else []


@pytest.mark.parametrize(("where", "arguments"), [pytest.param(*one, id=one[0]) for one in commands()])
def test_command_line_understands_what_it_is_started_with(where: str, arguments: Sequence[str]) -> None:
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while hasattr(command, "resolve_command"):
        context = command.make_context("smarter-auth", rest, resilient_parsing=True)
        _, command, rest = command.resolve_command(context, rest)
    command.make_context("smarter-auth", rest)


def environments() -> Iterator[tuple[str, dict[str, str]]]:
    """The settings of each container of ours, with something in the place of what is not written down."""
    for name, service in documents(COMPOSE)[0]["services"].items():
        yield name, {key: _VARIABLE.sub(PASSWORD, value) for key, value in service.get("environment", {}).items()}
    found: dict[str, dict[str, str]] = {
        one["metadata"]["name"]: one.get("data") or one.get("stringData") or {} for one in documents(KUBERNETES)
    }
    for document in documents(KUBERNETES):
        for container in _containers(document):
            sources = [next(iter(source.values()))["name"] for source in container["envFrom"]]
            yield document["metadata"]["name"], {key: value for name in sources for key, value in found[name].items()}


OURS = [
    pytest.param(*one, id=one[0]) for one in environments() if any(key.startswith("SMARTER_AUTH_") for key in one[1])
]


@pytest.mark.parametrize(("where", "environment"), OURS)
def test_settings_have_no_mistakes(where: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if "SMARTER_AUTH_ROUTES" in environment:
        compile_routes(Settings())
    else:
        DatabaseSettings()


def test_probes_ask_for_the_pages_that_are_served() -> None:
    (settings,) = (one["data"] for one in documents(KUBERNETES) if one["kind"] == "ConfigMap")
    ((container,),) = (_containers(one) for one in documents(KUBERNETES) if one["kind"] == "Deployment")
    asked = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    live, ready = settings["SMARTER_AUTH_LIVE_PATH"], settings["SMARTER_AUTH_READY_PATH"]
    assert asked == {"startupProbe": live, "livenessProbe": live, "readinessProbe": ready}
    served = documents(COMPOSE)[0]["services"]["app"]
    assert served["environment"]["SMARTER_AUTH_READY_PATH"] in served["healthcheck"]["test"][-1]
