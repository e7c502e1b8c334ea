"""Build what a release consists of, and check it as far as that is possible without publishing: ``make release-check``.

``python -m tests.release STEP …`` runs some of the steps. What is built is left in ``dist/``: wheel, source archive,
SBOM and checksums.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from tests import programs
from tests.test_layout import PUBLIC

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"
TOOLS = Path(sys.executable).parent
CHOOSER = ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml"
DEPLOYMENT = ("tests/docs/test_deploy_files.py", "tests/docs/test_token_pattern.py", "tests/metrics/test_monitoring.py")
PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")
WITHOUT_EXTRAS = (
    ("redis", {"SMARTER_AUTH_CACHE_URL": "redis://127.0.0.1"}),
    ("memcached", {"SMARTER_AUTH_CACHE_URL": "memcached://127.0.0.1"}),
    ("embedded", {"SMARTER_AUTH_DATABASE_URL": "embedded:"}),
    ("metrics", {"SMARTER_AUTH_METRICS_PATH": "/metrics"}),
)
"""Settings that need an extra, which the wheel alone does not bring."""
STARTED = """
import asyncio
from smarter_auth_mw import SmarterAuthMiddleware


async def start():
    messages = asyncio.Queue()
    await messages.put({"type": "lifespan.startup"})
    sent = []

    async def send(message):
        sent.append(message)

    await SmarterAuthMiddleware(None)({"type": "lifespan"}, messages.get, send)
    print(sent)


asyncio.run(start())
"""
LICENCES = (
    *("Apache", "BSD", "ISC", "MIT", "MPL", "PSF", "Python Software Foundation", "PostgreSQL", "Unlicense", "0BSD"),
    *("CC0", "Zlib", "LGPL"),
)
"""What the licence of everything that is installed with the package begins with, or is."""


def build() -> None:
    """Build wheel and source archive, put the SBOM into the wheel (PEP 770), and write the checksums of both."""
    shutil.rmtree(DIST, ignore_errors=True)
    _run(sys.executable, "-m", "build", "--outdir", str(DIST))
    sbom = _sbom()
    _add_to_wheel(_wheel(), "sboms/smarter_auth_mw.cdx.json", sbom)
    DIST.joinpath("smarter_auth_mw.cdx.json").write_bytes(sbom)
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(DIST.iterdir())]
    DIST.joinpath("SHA256SUMS").write_text("\n".join(sums) + "\n")


def metadata() -> None:
    """Check the metadata, the README as an index would show it, and the contents of the wheel."""
    _run(TOOLS / "validate-pyproject", "pyproject.toml")
    _run(TOOLS / "twine", "check", "--strict", *map(str, _archives()))
    # The migrations begin with their number, and are never imported by name.
    _run(TOOLS / "check-wheel-contents", str(_wheel()))
    _run(TOOLS / "pyroma", "--min=8", ".")


def wheel() -> None:
    """Install the wheel without extras on every Python that is here: it imports, and names each extra that it lacks."""
    for python in filter(shutil.which, PYTHONS):
        if subprocess.run([python, "--version"], capture_output=True, check=False).returncode:
            continue
        with tempfile.TemporaryDirectory() as place:
            _run(python, "-m", "venv", place)
            installed = Path(place, "bin", "python")
            _run(installed, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", str(_wheel()))
            _run(installed, "-m", "pip", "check")
            for module, names in PUBLIC.items():
                text = f"from {module} import {', '.join(names)}" if names else f"import {module}"
                _run(installed, "-W", "error", "-c", text, cwd=Path(place))
            said = subprocess.run([installed.with_name("smarter-auth")], capture_output=True, text=True, check=False)
            assert (said.returncode, "smarter_auth_mw[cli]" in said.stderr) == (2, True), said
            for extra, settings in WITHOUT_EXTRAS:
                _check_extra_is_named(installed, extra, settings)


def _check_extra_is_named(python: Path, extra: str, settings: Mapping[str, str]) -> None:
    needed = {"SMARTER_AUTH_DATABASE_URL": "postgresql://localhost/x", "SMARTER_AUTH_ROUTES": "bot /bots/{ref:int}"}
    environment = {"PATH": os.environ["PATH"], **needed, **settings}
    command = (python, "-c", STARTED)
    said = subprocess.run(command, env=environment, cwd=python.parent, capture_output=True, text=True, check=False)
    # The server reads it as the reason of a failed start-up, and as the error that ends the lifespan.
    assert f"smarter_auth_mw[{extra}]" in said.stdout + said.stderr, said


def sdist() -> None:
    """Unpack the source archive, and run ``make test`` in it; ``ARGS="tests/cache"`` names some of the tests."""
    (archive,) = DIST.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as place, tarfile.open(archive) as packed:
        os.chmod(place, 0o755)  # Servers that the tests start as another user read it.
        packed.extractall(place, filter="data")
        (project,) = Path(place).iterdir()
        _run("make", "test", f"PYTHON={sys.executable}", cwd=project)


def workflows() -> None:
    """Check workflows and templates by their schemas and by actionlint, and for what attackers make of workflows."""
    files = sorted(map(str, ROOT.glob(".github/workflows/*.yml")))
    issue_forms = sorted(map(str, {*ROOT.glob(".github/ISSUE_TEMPLATE/*.yml")} - {CHOOSER}))
    schemas = {
        "github-workflows": files,
        "dependabot": [".github/dependabot.yml"],
        "github-issue-forms": issue_forms,
        "github-issue-config": [str(CHOOSER)],
    }
    for schema, checked in schemas.items():
        _run(TOOLS / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *checked)
    if programs.main(["actionlint"]):
        assert "CI" not in os.environ
        print("NOT CHECKED by actionlint.", file=sys.stderr)
    else:
        for file in files:  # The build for Node.js takes one.
            _run(programs.find("actionlint"), file)
    _run(TOOLS / "zizmor", "--offline", "--quiet", ".github")


def deployment() -> None:
    """Check Dockerfile, compose files, manifests, alert rules and scanners' patterns, each by its own program."""
    programs.main(["hadolint", "kubernetes", "promtool"])
    _run(sys.executable, "-m", "pytest", "-q", "--numprocesses=0", *DEPLOYMENT)


def dependencies() -> None:
    """Look for known vulnerabilities in what is installed with the package, and for licences that nobody expects."""
    with tempfile.TemporaryDirectory() as place:
        python = _installed(place)
        names = subprocess.run(
            [python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
        ).stdout
        wanted = [line for line in names.splitlines() if not line.startswith(("smarter_auth_mw", "smarter-auth-mw"))]
        requirements = Path(place, "requirements.txt")
        requirements.write_text("\n".join(wanted) + "\n")
        skipped = _audit(requirements)
        options = [f"--python={python}", "--format=json", "--from=mixed", "--with-license-file", "--no-license-path"]
        listed = json.loads(_run(TOOLS / "pip-licenses", *options, capture=True))
    DIST.joinpath("licences.json").write_text(json.dumps([_row(row) for row in listed], indent=1) + "\n")
    if skipped:
        message = f"NOT AUDITED, neither by the package index nor by OSV: {', '.join(skipped)}"
        assert "CI" not in os.environ, message
        print(f"{message}. To audit them: run this step where pypi.org or api.osv.dev can be reached.", file=sys.stderr)
    strange = [row["Name"] for row in listed if not any(known in _licence(row) for known in LICENCES)]
    assert not strange, strange


def _audit(requirements: Path) -> list[str]:
    """Look for known vulnerabilities in these packages; return those that no source knows anything about."""
    options = [
        "--requirement",
        str(requirements),
        "--no-deps",
        "--disable-pip",
        "--format=json",
        "--progress-spinner=off",
    ]
    skipped: list[str] = []
    for service in ("pypi", "osv"):
        command = [str(TOOLS / "pip-audit"), *options, f"--vulnerability-service={service}"]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        found = json.loads(ran.stdout)["dependencies"] if ran.stdout else []
        vulnerable = [one for one in found if one.get("vulns")]
        assert not vulnerable, json.dumps(vulnerable, indent=1)
        skipped = [one["name"] for one in found if "skip_reason" in one]
        if found and not skipped:
            return []
    return skipped or sorted(line.partition("==")[0] for line in requirements.read_text().splitlines())


def _row(row: dict[str, str]) -> dict[str, str]:
    return {"name": row["Name"], "version": row["Version"], "licence": _licence(row)}


def _licence(row: dict[str, str]) -> str:
    """Return the licence that the metadata name, or else that of the licence's own text."""
    is_bsd = "Redistribution and use in source and binary forms" in row["LicenseText"]
    return "BSD" if row["License"] == "UNKNOWN" and is_bsd else row["License"]


def typing() -> None:
    """Check an app that uses every public name by both type checkers, as its author would."""
    _run(TOOLS / "mypy", "--strict", "tests/typing")
    _run(TOOLS / "pyright", "--pythonpath", sys.executable, "tests/typing")


STEPS: dict[str, Callable[[], None]] = {
    step.__name__: step for step in (build, metadata, wheel, workflows, deployment, dependencies, typing, sdist)
}


def main(names: Sequence[str]) -> int:
    """Run the steps of these names, or all of them."""
    for name in names or STEPS:
        print(f"-- {name}: {(STEPS[name].__doc__ or '').strip()}", file=sys.stderr, flush=True)
        STEPS[name]()
    return 0


def _archives() -> list[Path]:
    return [*DIST.glob("*.whl"), *DIST.glob("*.tar.gz")]


def _wheel() -> Path:
    (built,) = DIST.glob("*.whl")
    return built


def _installed(place: str) -> Path:
    """An environment with the wheel, all extras and nothing else."""
    venv.create(place, with_pip=True)
    python = Path(place, "bin", "python")
    _run(python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", f"{_wheel()}[all]")
    return python


def _sbom() -> bytes:
    """The components that the wheel and its extras install, as CycloneDX; without the paths of this machine."""
    with tempfile.TemporaryDirectory() as place:
        python = _installed(place)
        told = _run(TOOLS / "cyclonedx-py", "environment", str(python), "--output-reproducible", capture=True)
    document = json.loads(told)
    document["components"] = [one for one in document["components"] if one["name"] not in {"pip", "setuptools"}]
    for component in document["components"]:
        component.pop("externalReferences", None)
    return json.dumps(document, indent=1, sort_keys=True).encode()


def _add_to_wheel(path: Path, name: str, content: bytes) -> None:
    """Put a file into the wheel's metadata, and note it in RECORD."""
    grown = path.with_suffix(".new")
    with ZipFile(path) as old, ZipFile(grown, "w", ZIP_DEFLATED) as new:
        record = next(entry for entry in old.namelist() if entry.endswith(".dist-info/RECORD"))
        target = record.replace("RECORD", name)
        for entry in old.infolist():
            if entry.filename != record:
                new.writestr(entry, old.read(entry))
        new.writestr(target, content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        new.writestr(record, old.read(record) + f"{target},sha256={digest},{len(content)}\n".encode())
    grown.replace(path)


def _run(*command: str | Path, cwd: Path = ROOT, capture: bool = False) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE if capture else None, check=False)
    if ran.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed ({ran.returncode})")
    return ran.stdout or ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
