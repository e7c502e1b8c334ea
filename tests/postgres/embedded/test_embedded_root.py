"""What is different for root: another place, another user, a copy of the programs."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from smarter_auth_mw.errors import UnavailableError, UsageError
from smarter_auth_mw.postgres.embedded import place as embedded_place
from smarter_auth_mw.postgres.embedded.cluster import Cluster
from tests.support.embedded import answers, outfitted, removed_afterwards

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="about root")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In the place of /var/lib/smarter_auth."""
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        monkeypatch.setattr(embedded_place, "ROOTS_PLACE", Path(parent, "smarter_auth"))
        yield Path(parent, "smarter_auth")


@pytest.fixture
def private_wheel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The installed programs, where only root can read them."""
    source = embedded_place.programs()
    with tempfile.TemporaryDirectory() as parent:
        for tree in (source, *source.parents[1].glob(f"{source.parent.name}.libs")):
            shutil.copytree(tree, Path(parent, tree.relative_to(source.parents[1])), symlinks=True)
        for path in Path(parent).rglob("*"):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o700)
        monkeypatch.setattr(embedded_place, "programs", lambda: Path(parent, source.parent.name, source.name))
        yield Path(parent)


@pytest.mark.usefixtures("private_wheel")
def test_default_of_root_is_run_by_an_unprivileged_user_with_a_copy_of_the_programs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_place, "SERVER_USERS", ("no-such-user", "nobody"))
    said: list[str] = []
    before = os.umask(0o077)
    try:
        with Cluster.start(progress=said.append) as cluster:
            assert answers(cluster.url("runtime"))
    finally:
        os.umask(before)
    assert cluster.home == place / "default"
    assert {path.owner() for path in (cluster.home / "data", cluster.home / "socket")} == {"nobody"}
    assert {path.stat().st_uid for path in place.glob("pixeltable*/**/*")} == {0}
    assert sum("Copying" in line for line in said) == 1

    monkeypatch.setattr(embedded_place, "SERVER_USERS", ("daemon",))
    with Cluster.start(progress=said.append) as cluster:
        assert answers(cluster.url("owner")), "the data still belong to nobody, who runs the server therefore"
    assert sum("Copying" in line for line in said) == 1


def test_directory_that_root_names_lies_elsewhere_out_of_the_reach_of_others(tmp_path: Path) -> None:
    said: list[str] = []
    connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    with (
        removed_afterwards(tmp_path / "pg") as directory,
        Cluster.start(directory, progress=said.append) as cluster,
        outfitted("daemon") as outfit,
    ):
        stranger = outfit.popen("-c", connect, f"{cluster.home}/socket/.s.PGSQL.5432", shell="exec 2>&1")
        answer, _ = stranger.communicate()
    assert "PermissionError" in answer
    assert f"Root's data for {tmp_path}/pg will be in {cluster.home}" in said[0]
    assert cluster.home.parent == Path("/var/lib/smarter_auth")
    assert not (tmp_path / "pg").exists()


def test_place_that_others_can_write_to_is_refused(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(UsageError, match="only root can write"):
        Cluster.start()
    place.chmod(0o755)
    os.chown(place, pwd.getpwnam("daemon").pw_uid, -1)
    with pytest.raises(UsageError, match="only root can write"):
        Cluster.start()


def test_machine_without_a_user_for_the_server_is_told_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_place, "SERVER_USERS", ("no-such-user",))
    with pytest.raises(UnavailableError, match="no user to run it: no-such-user"):
        Cluster.start()
