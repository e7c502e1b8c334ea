"""The JavaScript of the page about minting keys, run by node against the real API."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.cli import PROGRAM, environment, program, serving
from tests.support.database import Database
from tests.support.documents import ROOT

PAGE = (ROOT / "docs" / "how-to" / "minting.md").read_text("utf-8")
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="There is no node on this machine.")
def test_the_page_s_javascript_mints_a_key(database: Database, tmp_path: Path) -> None:
    assert NODE is not None
    made = program(
        *("operator", "create", "--name", "signup", "--role", "manager", "--json"),
        env=environment(database_url=database.owner),
    )
    script = re.search(r"```js\n(.*?)```", PAGE, re.DOTALL)
    assert script is not None
    env = environment(database_url=database.manager, routes="bot /bots/{ref:int}")
    with serving([*PROGRAM, "admin", "--port", "0"], env) as server:
        file = tmp_path / "signup.mjs"
        file.write_text(script[1].replace("http://localhost:8010", server.url))
        run = subprocess.run([NODE, file], env=env | {"OPERATOR": made.json["token"]}, capture_output=True, timeout=60)
    assert (run.returncode, run.stdout) == (0, b"sm_" + run.stdout[3:4] + b"\n"), run.stderr
