"""Files that a command creates: what happens if the disk is full."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smarter_auth_mw.cli.new_files import NewFile
from tests.support.cli import Commands, rows
from tests.support.database import Database

KEYS = 60
STATE = "SELECT (SELECT count(*) FROM smarter_auth.key) AS keys, (SELECT count(*) FROM smarter_auth.token) AS tokens"


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every new file is on a disk without space."""
    create = NewFile.__init__

    def on_full_disk(self: NewFile, path: Path) -> None:
        create(self, path)
        device = os.open("/dev/full", os.O_WRONLY)
        os.dup2(device, self.text.fileno())
        os.close(device)

    monkeypatch.setattr(NewFile, "__init__", on_full_disk)


def _csv(path: Path, count: int) -> str:
    """Keys whose names fill more than one buffer of a file."""
    path.write_text("key\n" + "".join(f"{number} {'x' * 200}\n" for number in range(count)))
    return str(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("count", [1, KEYS])
def test_a_full_disk_is_named_and_nothing_is_changed(
    run: Commands,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    count: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not run("import", _csv(tmp_path / "first.csv", count), "--tokens", "first-tokens.csv").exit_code
    before = rows(database.owner, STATE)
    request.getfixturevalue("full_disk")
    _csv(tmp_path / "more.csv", count + KEYS)
    for command in (
        ("key", "rotate", "--account", "default", "--yes", "--tokens", "full.csv"),
        ("import", "more.csv", "--tokens", "full.csv"),
        ("export", "full.csv"),
    ):
        ran = run(*command)
        assert ran.exit_code == 1
        assert "The file 'full.csv' cannot be written: No space left on device. Nothing was changed." in ran.error
        assert not Path("full.csv").exists()
        assert rows(database.owner, STATE) == before
