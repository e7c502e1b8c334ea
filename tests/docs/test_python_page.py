"""The Python reference names what is public, and the app that type checkers read uses all of it."""

from __future__ import annotations

import ast
import inspect
import re

from smarter_auth_mw import errors
from tests.support.documents import ROOT
from tests.test_layout import PUBLIC

PAGE = (ROOT / "docs" / "reference" / "python.md").read_text("utf-8")
APP = ast.parse((ROOT / "tests" / "typing" / "app.py").read_text("utf-8"))


def documented() -> set[str]:
    names = set(re.findall(r"auto(?:class|function):: [\w.]+\.(\w+)", PAGE))
    members = re.findall(r"automodule:: .*\n   :members: (.+)", PAGE)
    own = {name for name, one in vars(errors).items() if inspect.isclass(one) and one.__module__ == errors.__name__}
    return names.union(own, *(line.split(", ") for line in members))


def imported() -> set[str]:
    imports = [node for node in ast.walk(APP) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if (node.module or "").startswith("smarter_auth_mw")]
    return {one.name for node in ours for one in node.names}


def test_the_app_for_type_checkers_uses_every_public_name() -> None:
    public = documented().union(*PUBLIC.values())
    used = {node.id for node in ast.walk(APP) if isinstance(node, ast.Name)}
    assert public - imported() == set()
    assert public - used == set()
