"""OpenTelemetry: spans and attributes where the process has a provider, and nothing at all where it has none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.tokens import Token
from tests.support.asgi import KEYED, OTHER
from tests.support.database import Database

PROGRAM = """
import asyncio, json, os, sys
from tests import test_wsgi
from tests.support.asgi import client, guarded, lifespan

URL, HEADERS = os.environ["URL"], {"Authorization": "Token " + os.environ["TOKEN"]}
ASKED = [("/bots/1", HEADERS)] * 2 + [(path, {}) for path in ("/bots/1", "/bots/2", "/bots/9", "/bots/01")]

if sys.argv[1] != "none":
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("server")

async def asgi():
    global app
    app = guarded(URL)
    async with lifespan(app), client(app) as http:
        for path, headers in ASKED:
            if sys.argv[1] == "none":
                await http.get(path, headers=headers)
            else:
                with tracer.start_as_current_span("server"):
                    await http.get(path, headers=headers)

def wsgi():
    app = test_wsgi.guarded(URL)
    with test_wsgi.client(app) as http:
        http.get("/bots/2")  # opens what it needs
        exporter.clear()
        for path, headers in ASKED:
            with tracer.start_as_current_span("server"):
                http.get(path, headers=headers)
    app.close()

wsgi() if sys.argv[1] == "wsgi" else asyncio.run(asgi())
if sys.argv[1] == "none":
    print(json.dumps([app._guard._is_traced, app._guard._usage._lets_count]))
else:
    print(json.dumps([
        {"name": span.name, "has_parent": span.parent is not None, "attributes": dict(span.attributes)}
        for span in exporter.get_finished_spans()
    ]))
"""


@pytest.fixture
async def named(keys: Management) -> Token:
    minted = await keys.create("laptop", bind=[KEYED])
    await keys.add_resource(OTHER)
    return minted.token


def ran(mode: str, database: Database, token: Token) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode],
        env=os.environ | {"URL": database.runtime, "TOKEN": token.reveal()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert token.reveal() not in done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("mode", ["asgi", "wsgi"])
def test_spans_tell_what_was_decided(mode: str, database: Database, named: Token) -> None:
    spans = ran(mode, database, named)
    servers = [span["attributes"] for span in spans if span["name"] == "server"]
    told = {name.removeprefix("smarter_auth."): value for name, value in servers[0].items()}
    assert told == {
        "decision": "grant",
        "resource.kind": "bot",
        "resource.ref": "1",
        "account": "default",
        "key.id": told["key.id"],
    }
    assert servers[1] == servers[0]
    assert servers[2]["smarter_auth.reason"] == "missing_credentials"
    assert servers[3]["smarter_auth.decision"] == "anonymous"
    assert "smarter_auth.resource.ref" not in servers[4]  # a stranger chose it
    assert servers[5] == {"smarter_auth.decision": "deny", "smarter_auth.reason": "not_canonical"}
    waited = [span for span in spans if span["name"] == "smarter_auth.authenticate"]
    assert 2 <= len(waited) < len(servers)  # What is warm is not waited for.
    assert all(span["has_parent"] for span in waited)
    assert waited[0]["attributes"] in servers


def test_without_a_provider_a_request_is_only_counted(database: Database, named: Token) -> None:
    assert ran("none", database, named) == [False, True]
