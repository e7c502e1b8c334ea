"""The embedded PostgreSQL as one process sees it, run as whoever runs the tests."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from smarter_auth_mw.errors import UnavailableError
from smarter_auth_mw.postgres.embedded import keeper as embedded_keeper
from smarter_auth_mw.postgres.embedded import place as embedded_place
from smarter_auth_mw.postgres.embedded import setup as embedded_setup
from smarter_auth_mw.postgres.embedded.cluster import Cluster
from tests.support.embedded import answers, is_held, is_quiet, removed_afterwards, wait_until_quiet


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One directory for all, so that its data are made once."""
    with removed_afterwards(tmp_path_factory.mktemp("embedded") / "pg") as directory:
        yield directory


def test_progress_tells_what_takes_time(tmp_path: Path) -> None:
    said: list[str] = []
    with removed_afterwards(tmp_path / "pg") as new, Cluster.start(new, progress=said.append) as cluster:
        assert f"Creating a PostgreSQL of your own in {cluster.home}" in said
        assert said[-1] == f"Starting PostgreSQL in {cluster.home}"


def test_server_has_stopped_when_its_last_user_has(directory: Path) -> None:
    with Cluster.start(directory) as cluster:
        assert answers(cluster.url("runtime"))
    assert not is_held(cluster.home / "server.lock")
    assert not answers(cluster.url("runtime"))


def test_keeper_does_not_start_again_what_its_last_user_has_stopped(directory: Path) -> None:
    with Cluster.start(directory) as cluster:
        log = cluster.home / "server.log"
        starts = log.read_text().count("starting PostgreSQL")
    wait_until_quiet(cluster.home)
    assert log.read_text().count("starting PostgreSQL") == starts


def test_each_start_is_a_use_of_its_own_and_stops_once(directory: Path) -> None:
    first, second = Cluster.start(directory), Cluster.start(directory)
    first.stop()
    first.stop()
    assert answers(second.url("runtime"))
    second.stop()
    assert not answers(second.url("runtime"))


def test_threads_may_start_and_stop_at_once(directory: Path) -> None:
    def use(_: int) -> bool:
        with Cluster.start(directory) as cluster:
            return answers(cluster.url("runtime"))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(use, range(16)))


def test_directory_can_be_removed_as_soon_as_the_server_has_stopped(tmp_path: Path) -> None:
    with Cluster.start(tmp_path / "pg") as cluster:
        pass
    shutil.rmtree(cluster.home)
    assert not cluster.home.exists()


def test_start_that_fails_is_no_use(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "/data")

    monkeypatch.setattr(embedded_setup, "_configure", fail)
    with pytest.raises(UnavailableError, match="No space left on device: /data"):
        Cluster.start(directory)
    assert not is_held(embedded_place.home_of(directory) / "users.lock")


def test_keeper_that_does_not_start_is_reported_and_nothing_is_started(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = embedded_place.home_of(directory)
    wait_until_quiet(home)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(sys, "base_prefix", "/nowhere")
    monkeypatch.setattr(shutil, "which", {"python3": "/bin/false"}.get)
    with pytest.raises(UnavailableError, match="keeper of PostgreSQL did not start"):
        Cluster.start(directory)
    monkeypatch.setattr(shutil, "which", {}.get)
    with pytest.raises(UnavailableError, match="no python3"):
        Cluster.start(directory)
    assert is_quiet(home)


def test_process_that_is_no_python_finds_one_for_the_keeper(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_until_quiet(embedded_place.home_of(directory))
    monkeypatch.setattr(sys, "executable", "/usr/sbin/uwsgi")
    with Cluster.start(directory) as cluster:
        assert is_held(cluster.home / "keeper.lock")


@pytest.fixture
def dead(tmp_path: Path) -> embedded_keeper.Server:
    """A server with data and locks that nobody holds."""
    server = embedded_keeper.Server(str(tmp_path), "", "")
    server.make_locks()
    server.data.mkdir()
    return server


def test_relief_takes_over_from_a_keeper_whose_lock_is_free_a_moment_later(
    dead: embedded_keeper.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = embedded_keeper.lock(dead.keeper_lock, fcntl.LOCK_EX, 0.0)

    def attempts(_: float) -> Iterator[None]:
        yield
        os.close(held)
        yield

    monkeypatch.setattr(embedded_keeper, "attempts", attempts)
    taken = embedded_keeper._take_over(dead)
    assert taken is not None
    monkeypatch.setattr(embedded_keeper, "attempts", lambda _: iter([None, None]))
    assert embedded_keeper._take_over(dead) is None
    os.close(taken)


def test_keeper_that_lags_behind_starts_only_a_server_that_is_used(
    dead: embedded_keeper.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[embedded_keeper.Server] = []

    def start(server: embedded_keeper.Server, held: int) -> None:
        os.close(held)
        started.append(server)

    monkeypatch.setattr(embedded_keeper.Server, "start", start)
    assert embedded_keeper._revive(dead)
    stopping = embedded_keeper.lock(dead.users_lock, fcntl.LOCK_EX, 0.0)
    assert embedded_keeper._revive(dead)
    os.close(stopping)
    assert started == []
    assert not is_held(dead.server_lock)
    user = embedded_keeper.lock(dead.users_lock, fcntl.LOCK_SH, 0.0)
    assert embedded_keeper._revive(dead)
    os.close(user)
    assert started == [dead]


def test_last_user_that_leaves_while_a_dead_server_starts_can_stop_it(
    dead: embedded_keeper.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = embedded_keeper.lock(dead.users_lock, fcntl.LOCK_SH, 0.0)
    stopped: list[embedded_keeper.Server] = []

    def leave_meanwhile(server: embedded_keeper.Server, held: int) -> None:
        embedded_setup.leave(server, user)
        os.close(held)

    monkeypatch.setattr(embedded_keeper.Server, "start", leave_meanwhile)
    monkeypatch.setattr(embedded_keeper.Server, "stop", lambda server: stopped.append(server))
    assert embedded_keeper._revive(dead)
    assert stopped == [dead]


def test_server_that_hangs_is_stopped_all_the_same(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_keeper, "_STOPPING", (("INT", 0.1), ("QUIT", 0.1), ("KILL", 30.0)))
    with Cluster.start(directory) as cluster:
        os.kill(int((cluster.home / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGSTOP)
    assert not is_held(cluster.home / "server.lock")


def test_server_that_cannot_be_stopped_is_reported(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster.start(directory)
    with monkeypatch.context() as patience:
        patience.setattr(embedded_keeper, "_STOPPING", ())
        with pytest.raises(UnavailableError, match="does not stop"):
            cluster.stop()
    with Cluster.start(directory):
        pass
