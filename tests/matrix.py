"""The oldest and the newest of everything that we depend on, each in an environment of its own, on every Python.

``python -m tests.matrix`` sets the environments up in ``.matrix`` and runs the tests there; ``--python`` names
interpreters, ``--only`` the oldest or newest, and what follows ``--`` goes to pytest. The oldest are the lower bounds
in ``pyproject.toml``: a bound that does not install, or on which a test fails, is not true.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLACE = ROOT / ".matrix"
TESTS = (
    *("test_asgi", "test_wsgi", "test_wsgi_environs", "test_fastapi", "http/test_websocket", "routing/test_mounts"),
    *("routing/test_router_check", "whole/test_frameworks", "whole/test_request_url", "config/test_settings"),
    *("config/test_origins", "cli/test_config", "cli/test_serve", "cache/test_shared", "postgres/test_migrations"),
    *("postgres/test_store", "models/test_models", "authentication/test_throttle"),
)
"""Those that touch what others make: frameworks, servers, pydantic, asyncpg, aiocache, Alembic, limits."""
SHOWN = ("starlette", "fastapi", "litestar", "quart", "django", "flask", "uvicorn", "hypercorn", "granian", "gunicorn")
TOOLS = (
    "mypy",
    "ruff",
    "import-linter",
    "sphinx",
    "furo",
    "myst-parser",
    "check-jsonschema",
    "types-",
    "asyncpg-stubs",
)
"""They look at the code and are no part of what runs: the newest serves."""

HANGS_S = 120
PATIENCE_S = 1800

_BOUND = re.compile(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)")


def bounds() -> Iterator[str]:
    """Every lower bound of ``pyproject.toml`` as the very version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in (one for several in lists for one in several):
        found = _BOUND.match(requirement)
        if found and not found[1].startswith(TOOLS):
            yield f"{found[1]}=={found[2]}"


def environment(python: str, age: str) -> Path:
    """The interpreter of an environment with these versions, set up anew where the bounds have changed."""
    script = "import platform; print(platform.python_version())"
    name = f"{subprocess.check_output([python, '-c', script], text=True).strip()}-{age}"
    place, constraints = PLACE / name, PLACE / f"{name}.txt"
    text = "\n".join(bounds() if age == "oldest" else ()) + "\n"
    if not (place / ".ready").exists() or not constraints.exists() or constraints.read_text() != text:
        PLACE.mkdir(exist_ok=True)
        constraints.write_text(text)
        subprocess.run([python, "-m", "venv", "--clear", place], check=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "--constraint", str(constraints), "-e", f"{ROOT}[dev]"], check=True)
        subprocess.run([*pip, "check"], check=True)
        (place / ".ready").touch()
    return place / "bin" / "python"


def versions(python: Path) -> str:
    """What is installed there of what people choose themselves."""
    script = (
        "import sys, importlib.metadata as m;"
        "print('.'.join(map(str, sys.version_info[:3])), *(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
    )
    return subprocess.check_output([python, "-c", script, *SHOWN], text=True).strip()


def passes(python: Path, tests: Sequence[str]) -> bool:
    """Whether the tests pass there, in time: what is too old may well hang."""
    command = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        f"faulthandler_timeout={HANGS_S}",
        *tests,
    ]
    try:
        return subprocess.run(command, cwd=ROOT, timeout=PATIENCE_S).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", nargs="+", default=[sys.executable])
    parser.add_argument("--only", choices=["oldest", "newest"])
    parser.add_argument("pytest", nargs="*")
    options = parser.parse_args(arguments)
    tests = options.pytest or [str(ROOT / "tests" / f"{name}.py") for name in TESTS]
    failed = []
    for python in options.python:
        for age in [options.only] if options.only else ["oldest", "newest"]:
            there = environment(python, age)
            told = f"{age} on {versions(there)}"
            print(f"--- {told}", flush=True)
            failed += [] if passes(there, tests) else [told]
    print("\n".join(f"failed: {told}" for told in failed) or "All of them passed.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
