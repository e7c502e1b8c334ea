"""The files that people deploy with: each is what its own program, or its schema, takes, and says what we know."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
import typer
from ruamel.yaml import YAML

from smarter_auth_mw.cli import app
from smarter_auth_mw.config.settings import DatabaseSettings, Settings
from smarter_auth_mw.configured import compile_routes
from tests.programs import find
from tests.support.cli import EXAMPLES
from tests.support.plain_postgres import PASSWORD

COMPOSE = sorted(EXAMPLES.glob("compose*.yml"))
KUBERNETES = sorted(EXAMPLES.glob("kubernetes/*.yaml"))
UNIT = EXAMPLES / "systemd" / "smarter_auth_gate.service"
SOCKET = UNIT.with_suffix(".socket")
DOCKERFILE = EXAMPLES.parent / "Dockerfile"
IMAGES = ("smarter_auth", "smarter_auth_example")
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


MANIFESTS = [document for path in KUBERNETES for document in documents(path)]
SERVICES = [service for path in COMPOSE for service in documents(path)[0]["services"].items()]


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_file_is_one_by_its_schema(path: Path) -> None:
    check_schema("--builtin-schema", "vendor.compose-spec", path)


def _name(document: Mapping[str, Any]) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


@pytest.mark.parametrize("document", MANIFESTS, ids=_name)
def test_kubernetes_takes_each_of_the_manifests(tmp_path: Path, document: dict[str, Any]) -> None:
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
    (tmp_path / SOCKET.name).write_text(SOCKET.read_text())
    (copy := tmp_path / UNIT.name).write_text(UNIT.read_text().replace("/opt/smarter_auth/bin", str(here)))
    return copy


def test_systemd_takes_the_unit_and_finds_it_well_protected(unit: Path) -> None:
    for check in (["verify"], ["security", "--offline=true", f"--threshold={MOST_EXPOSED}"]):
        checked = subprocess.run(["systemd-analyze", *check, unit], capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, ""), checked.stdout


def commands() -> Iterator[tuple[str, list[str]]]:
    """The arguments that ``smarter-auth`` is started with, and where."""
    yield from ((name, one["command"]) for name, one in SERVICES if one.get("image") in IMAGES and "command" in one)
    for document in MANIFESTS:
        for container in _containers(document):
            yield document["metadata"]["name"], container["args"]
    (started,) = re.findall(r"^ExecStart=\S+/smarter-auth (.*)$", UNIT.read_text(), re.MULTILINE)
    yield UNIT.name, started.split()
    for default in re.findall(r"^CMD (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE):
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


_SOURCES = {"configMapRef": "ConfigMap", "secretRef": "Secret"}


def environments() -> Iterator[tuple[str, dict[str, str]]]:
    """The settings of each container of ours, with something in the place of what is not written down."""
    for name, service in SERVICES:
        yield name, {key: _VARIABLE.sub(PASSWORD, value) for key, value in service.get("environment", {}).items()}
    found: dict[tuple[str, str], dict[str, str]] = {
        (one["kind"], one["metadata"]["name"]): one.get("data") or one.get("stringData") or {} for one in MANIFESTS
    }
    for document in MANIFESTS:
        for container in _containers(document):
            sources = [
                (_SOURCES[kind], source["name"]) for each in container["envFrom"] for kind, source in each.items()
            ]
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


@pytest.mark.parametrize("name", ["smarter-auth", "smarter-auth-gate", "smarter-auth-admin"])
def test_probes_ask_for_the_pages_that_are_served(name: str) -> None:
    (settings,) = (one["data"] for one in MANIFESTS if (one["kind"], one["metadata"]["name"]) == ("ConfigMap", name))
    containers = [container for one in MANIFESTS if one["kind"] == "Deployment" for container in _containers(one)]
    (container,) = (one for one in containers if {"configMapRef": {"name": name}} in one["envFrom"])
    asked = {
        probe: container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    live, ready = settings["SMARTER_AUTH_LIVE_PATH"], settings["SMARTER_AUTH_READY_PATH"]
    assert asked == {"startupProbe": live, "livenessProbe": live, "readinessProbe": ready}


def test_health_is_asked_where_the_image_serves_it() -> None:
    variables = dict(re.findall(r"(?:^ENV|^ +)(?: )?(\w+)=(\S+)", DOCKERFILE.read_text(), re.MULTILINE))
    assert urlsplit(variables["HEALTH_URL"]).path == variables["SMARTER_AUTH_LIVE_PATH"]
    asked = [one["environment"] for _, one in SERVICES if "HEALTH_URL" in one.get("environment", {})]
    assert len(asked) == 2
    for environment in asked:
        assert urlsplit(environment["HEALTH_URL"]).path == environment["SMARTER_AUTH_READY_PATH"]


def test_health_check_needs_no_shell_and_fails_with_the_server(tmp_path: Path) -> None:
    (found,) = re.findall(r"^    CMD (\[.*\])$", DOCKERFILE.read_text(), re.MULTILINE)
    command = [sys.executable, *json.loads(found)[1:]]
    with HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        for path, exit_code in (("/", 0), ("/nothing", 1)):
            thread = Thread(target=server.handle_request)
            thread.start()
            environment = {"HEALTH_URL": f"http://127.0.0.1:{server.server_port}{path}"}
            assert (
                subprocess.run(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE).returncode == exit_code
            )
            thread.join()


def test_nginx_of_the_compose_file_asks_the_gate_and_the_service() -> None:
    """What its build writes into nginx's example are the names and ports of the services."""
    services = dict(documents(EXAMPLES / "compose.gate.yml")[0]["services"])
    text = (EXAMPLES / "nginx" / "smarter_auth.conf").read_text()
    for old, new in re.findall(r"-e 's/([^/]+)/([^/]+)/'", services["nginx"]["build"]["dockerfile_inline"]):
        assert old in text
        text = text.replace(old, new)
    assert re.findall(r"^ +(?:server|listen) (\S+);", text, re.MULTILINE) == ["gate:8000", "service:8000", "8080"]
    assert "127.0.0.1:" not in text
    assert {"gate", "service"} <= services.keys()
    address = services["nginx"]["networks"]["inner"]["ipv4_address"]
    assert services["gate"]["environment"]["SMARTER_AUTH_TRUSTED_PROXIES"] == address
