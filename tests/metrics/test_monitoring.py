"""What is written about the metrics, events and attributes is what there is: docs, dashboard and alert rules."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from smarter_auth_mw import Settings, wsgi
from smarter_auth_mw.admin import AdminApp
from smarter_auth_mw.cli.doctor import command as doctor
from smarter_auth_mw.decision import Reason
from smarter_auth_mw.engine import health
from smarter_auth_mw.log import EVENTS, level_of
from smarter_auth_mw.metrics import SmarterAuthCollector
from smarter_auth_mw.metrics import samples as figures
from smarter_auth_mw.metrics.prometheus import PREFIX
from smarter_auth_mw.metrics.samples import METRICS, Metric
from smarter_auth_mw.observers import tracing
from tests.programs import find
from tests.support.admin import ROUTES
from tests.support.asgi import client, guarded, lifespan
from tests.support.database import Database
from tests.support.worker import PATIENCE_S

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "examples" / "monitoring"
HOW_TO = ROOT / "docs" / "how-to"
PAGE = HOW_TO / "metrics.md"
TEXT = PAGE.read_text("utf-8")
DASHBOARD = json.loads((MONITORING / "grafana.json").read_text("utf-8"))
HEAD = ("| metric | type | labels | meaning |", "|---|---|---|---|")
OF_PROMETHEUS = {"job", "instance", "le"}


def targets() -> Iterator[Any]:
    for panel in DASHBOARD["panels"]:
        yield from panel.get("targets", ())


def written() -> dict[str, str]:
    """Where metrics are named, and the text that names them."""
    return {
        "the dashboard": "\n".join(target["expr"] for target in targets()) + json.dumps(DASHBOARD["templating"]),
        "the alerts": (MONITORING / "alerts.yml").read_text("utf-8"),
        "their tests": (MONITORING / "alerts_test.yml").read_text("utf-8"),
        "the tests about keys": (MONITORING / "key_alerts_test.yml").read_text("utf-8"),
        "the page": TEXT,
    }


@pytest.fixture
async def exported(database: Database) -> dict[str, set[str]]:
    """Every series that a serving worker exposes, with its labels."""
    registry = CollectorRegistry()
    registry.register(SmarterAuthCollector())
    management = AdminApp(Settings(database_url=database.manager, routes=ROUTES))
    async with lifespan(guarded(database.runtime)) as app, client(app) as http, lifespan(management):
        await http.get("/bots/2")
        async with client(management) as admin:
            await admin.get("/api/v1/me", headers={"Host": "localhost"})
        async with asyncio.timeout(PATIENCE_S):
            while "smarter_auth_keys_unused{" not in (text := generate_latest(registry).decode()):
                await asyncio.sleep(0.01)  # Until the keys were counted, in the background.
        families = text_string_to_metric_families(text)
        return {sample.name: set(sample.labels) for family in families for sample in family.samples}


async def test_every_metric_that_is_named_anywhere_is_exported(exported: dict[str, set[str]]) -> None:
    for where, text in written().items():
        named = set(re.findall(rf"\b{PREFIX}(?!mw\b)[a-z_]+", text))
        assert len(named) > 2, where
        assert named <= exported.keys() | {PREFIX + metric.name for metric in METRICS.values()}, where


async def test_every_label_that_is_asked_for_is_there(exported: dict[str, set[str]]) -> None:
    for where, text in written().items():
        for name, selector in re.findall(rf"\b({PREFIX}[a-z_]+)\{{([^}}]*)\}}", text.replace('\\"', '"')):
            asked = set(re.findall(r'(\w+) ?=~?"', selector))
            assert asked <= exported[name] | OF_PROMETHEUS, (where, name)


async def test_every_metric_is_shown_on_the_dashboard(exported: dict[str, set[str]]) -> None:
    assert exported.keys() == {name for metric in METRICS.values() for name in series(metric)}
    shown = written()["the dashboard"]
    missing = {metric.name for metric in METRICS.values() if not any(name in shown for name in series(metric))}
    assert missing == set()


def series(metric: Metric) -> list[str]:
    """The names that the metric's samples have."""
    suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
    return [f"{PREFIX}{metric.name}{suffix}" for suffix in suffixes[metric.kind]]


def row(metric: Metric) -> str:
    name = PREFIX + metric.name + ("_total" if metric.kind == "counter" else "")
    return f"| `{name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.help} |"


def test_the_page_describes_every_metric() -> None:
    begin, end = (re.search(rf"<!-- {word}.*-->\n", TEXT) for word in ("metrics:", "end of metrics"))
    assert begin is not None
    assert end is not None
    table = "".join(f"{line}\n" for line in ("", *HEAD, *map(row, METRICS.values()), ""))
    if "UPDATE_GOLDEN" in os.environ:
        PAGE.write_text(TEXT[: begin.end()] + table + TEXT[end.start() :], "utf-8")
        return
    assert TEXT[begin.end() : end.start()] == table


def rows(page: str, title: str = "") -> dict[str, list[str]]:
    """The rows of a page's tables, or below one heading, by the words in backquotes in the first column."""
    text = (HOW_TO / f"{page}.md").read_text("utf-8")
    section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0] if title else text
    found = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {name: cells for cells in found for name in re.findall(r"`([^`]+)`", cells[0])}


def test_the_page_names_every_event_with_its_level() -> None:
    told = {event: cells[1] for event, cells in rows("logs", "Logs").items()}
    assert told == {event: logging.getLevelName(level_of(event)) for event in EVENTS}


def test_the_page_names_every_reason_of_readiness() -> None:
    reasons = {value for name, value in vars(health).items() if name.isupper() and isinstance(value, str)}
    reasons.update(json.loads(wsgi.NO_ANSWER.body)["reasons"])
    assert rows("probes").keys() == reasons


def test_the_page_names_every_attribute_and_every_reason() -> None:
    source = Path(tracing.__file__).read_text("utf-8")
    assert rows("logs", "Traces").keys() == set(re.findall(r'yield "(smarter_auth\.[a-z.]+)"', source))
    assert all(f"`{reason}`" in (HOW_TO / "metrics.md").read_text("utf-8") for reason in Reason)


def test_the_page_names_every_check_of_doctor() -> None:
    modules = Path(str(doctor.__file__)).parent.glob("*.py")
    texts = "".join(module.read_text("utf-8") for module in modules)
    checks = set(re.findall(r'(?:Finding|KeyFinding)\(\s*"(?:problem|warning|note)",\s*"(\w+)"', texts)) | {
        "database",
        "schema",
    }
    assert rows("doctor").keys() == checks


def test_every_alert_is_explained_and_leads_somewhere() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", written()["the alerts"]))
    assert len(alerts) > 10
    assert {name for name in rows("metrics") if name.startswith("SmarterAuth")} == alerts
    assert written()["the alerts"].count("description:") == len(alerts)


def test_the_dashboard_is_sound() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert taken.isdisjoint(cells), panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)\}?", json.dumps(DASHBOARD)))
    assert used == variables
    assert all(panel["description"] for panel in panels if panel["type"] != "row")


@pytest.fixture(scope="module")
def promtool() -> Path:
    return find("promtool")


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml", "key_alerts_test.yml"),
        ("check", "config", "prometheus.yml"),
    ],
    ids=" ".join,
)
def test_prometheus_takes_the_files_and_the_alerts_fire_as_they_should(promtool: Path, arguments: tuple[str]) -> None:
    ran = subprocess.run([promtool, *arguments], cwd=MONITORING, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_alert_about_keys_is_seen_to_fire_and_not_to_fire() -> None:
    alerts = set(re.findall(r"- alert: (SmarterAuth(?:Key|Rotation)\w+)", written()["the alerts"]))
    tests = written()["the tests about keys"]
    assert alerts == set(re.findall(r"alertname: (\w+)\n +exp_alerts:", tests))


def test_prometheus_takes_what_the_dashboard_asks(promtool: Path, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": target["expr"].replace("$__rate_interval", "1m").replace("$", "")}
        for number, target in enumerate(targets())
    ]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # YAML too
    ran = subprocess.run([promtool, "check", "rules", tmp_path / "rules.json"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(rules)} rules found" in ran.stdout


def test_figures_name_no_metric_twice() -> None:
    assert len(METRICS) == len(figures.OF_A_MIDDLEWARE) + len(figures.OF_AN_ADMIN) + len(figures.OF_AN_ENGINE)
