"""The endurance runs count what fails, under every condition that the machine allows."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

from tests.endurance import conditions, endure
from tests.support import shuffled

FAILS = "def test_right():\n    pass\n\ndef test_wrong():\n    assert False\n"


def test_half_of_the_runs_are_beside_busy_loops_and_half_in_another_order() -> None:
    names = [name for name, _ in conditions(20)]
    assert (names.count("busy cores"), len({name for name in names if "shuffled" in name})) == (10, 10)
    assert len(names) == 24


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="busy loops and affinity are tried on Linux")
def test_test_that_fails_is_counted_once_a_run_and_what_it_printed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.joinpath("test_it.py").write_text(FAILS)
    monkeypatch.setattr("tests.endurance.OUTPUTS", tmp_path / "outputs")
    first = next(enumerate(conditions(1), start=7))
    failures = endure([first], ["-c", "/dev/null", "-p", "no:cacheprovider", str(tmp_path / "test_it.py")])
    assert list(failures.values()) == [["7 busy cores"]]
    assert "test_it.py::test_wrong" in next(iter(failures))
    assert "1 failed" in capsys.readouterr().out
    assert "assert False" in (tmp_path / "outputs" / "07 busy cores.txt").read_text()


def test_same_seed_gives_the_same_order_and_files_stay_together(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHUFFLE_SEED", "7")
    once, again = list(request.session.items), list(request.session.items)
    shuffled.pytest_collection_modifyitems(once)
    shuffled.pytest_collection_modifyitems(again)
    assert once == again
    changes_of_file = sum(one.path != other.path for one, other in itertools.pairwise(once))
    assert changes_of_file == len({item.path for item in once}) - 1
