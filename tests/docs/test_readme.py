"""The README says what is so, where running it (``test_documents``) does not tell."""

from __future__ import annotations

import re
from pathlib import Path

from smarter_auth_mw import Settings
from smarter_auth_mw.domain import Target
from smarter_auth_mw.routing.routes import Routes

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]


def test_the_app_is_ten_lines() -> None:
    lines = [line for line in PYTHON[0].splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 10


def test_the_routes_compile_as_printed() -> None:
    (text,) = [text for language, text in BLOCKS if language == "text"]
    routes = Routes.parse(text.splitlines())
    assert routes.kinds == ("bot", "agent")
    for path, found in (("/bots/42/chat", "bot:42"), ("/bots/help", None), ("/orgs/acme/agents/x", "agent:x")):
        target = routes.resolve({"type": "http", "method": "GET", "path": path, "headers": []})
        assert (str(target.names) if isinstance(target, Target) else target) == found


def test_every_setting_that_is_named_exists() -> None:
    known = {name.upper() for name in Settings.model_fields}
    quoted = re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", README)
    named = {name.removeprefix("SMARTER_AUTH_") for name in quoted}
    assert named
    assert named <= known
