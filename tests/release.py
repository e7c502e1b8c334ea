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
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"
TOOLS = Path(sys.executable).parent
PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")
PUBLIC = (
    *("smarter_auth_mw", "smarter_auth_mw.asgi", "smarter_auth_mw.wsgi", "smarter_auth_mw.signals"),
    *("smarter_auth_mw.models", "smarter_auth_mw.testing", "smarter_auth_mw.decision", "smarter_auth_mw.access_log"),
)
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
    """Install the wheel without extras on every Python that is here: it imports, and names the extra that it lacks."""
    for python in filter(shutil.which, PYTHONS):
        if subprocess.run([python, "--version"], capture_output=True, check=False).returncode:
            continue
        with tempfile.TemporaryDirectory() as place:
            _run(python, "-m", "venv", place)
            installed = Path(place, "bin", "python")
            _run(installed, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", str(_wheel()))
            _run(installed, "-m", "pip", "check")
            for module in PUBLIC:
                _run(installed, "-W", "error", "-c", f"import {module}", cwd=Path(place))
            said = subprocess.run([installed.with_name("smarter-auth")], capture_output=True, text=True, check=False)
            assert (said.returncode, "smarter_auth_mw[cli]" in said.stderr) == (2, True), said


def sdist() -> None:
    """Unpack the source archive, and run the quick tests in it."""
    (archive,) = DIST.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as place, tarfile.open(archive) as packed:
        packed.extractall(place, filter="data")
        (project,) = Path(place).iterdir()
        _run("make", "quick", f"PYTHON={sys.executable}", cwd=project)


def workflows() -> None:
    """Check the workflows by their schema, and for what attackers make of workflows."""
    files = sorted(map(str, ROOT.glob(".github/workflows/*.yml")))
    _run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)
    _run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.dependabot", ".github/dependabot.yml")
    _run(TOOLS / "zizmor", "--offline", "--quiet", ".github")


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
        audit = ["--requirement", str(requirements), "--no-deps", "--disable-pip", "--format=json"]
        found = json.loads(_run(TOOLS / "pip-audit", *audit, "--progress-spinner=off", capture=True))
        options = [f"--python={python}", "--format=json", "--from=mixed", "--with-license-file", "--no-license-path"]
        listed = json.loads(_run(TOOLS / "pip-licenses", *options, capture=True))
    skipped = [one["name"] for one in found["dependencies"] if "skip_reason" in one]
    if skipped:
        message = f"The index knows no vulnerabilities of {len(skipped)} packages: {', '.join(skipped)}"
        assert "CI" not in os.environ, message
        print(f"NOT AUDITED. {message}", file=sys.stderr)
    strange = [row["Name"] for row in listed if not any(known in _licence(row) for known in LICENCES)]
    assert not strange, strange


def _licence(row: dict[str, str]) -> str:
    """Return the licence that the metadata name, or else that of the licence's own text."""
    is_bsd = "Redistribution and use in source and binary forms" in row["LicenseText"]
    return "BSD" if row["License"] == "UNKNOWN" and is_bsd else row["License"]


def typing() -> None:
    """Check an app that uses every public name by both type checkers, as its author would."""
    _run(TOOLS / "mypy", "--strict", "tests/typing")
    _run(TOOLS / "pyright", "--pythonpath", sys.executable, "tests/typing")


STEPS: dict[str, Callable[[], None]] = {
    step.__name__: step for step in (build, metadata, wheel, sdist, workflows, dependencies, typing)
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
