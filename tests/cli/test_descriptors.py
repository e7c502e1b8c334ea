"""A server raises its limit of open files, says where that is too low, and reports when none is left."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import suppress

import pytest

from smarter_auth_mw.cli import failures
from smarter_auth_mw.cli.descriptors import PAUSE_S, ExhaustionReport, raise_limit
from smarter_auth_mw.errors import UsageError

Limits = tuple[int, int]


@pytest.fixture
def limits() -> Iterator[Limits]:
    """The limits of this process, which are restored."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_is_raised_as_far_as_the_process_may(limits: Limits) -> None:
    soft, hard = limits
    if hard != resource.RLIM_INFINITY and hard <= 512:
        pytest.skip("takes a process that may open more files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    raise_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 512


def test_a_limit_that_is_too_low_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 20))
    with pytest.raises(UsageError, match="may open 20 files, and serving needs at least 64") as refused:
        raise_limit()
    assert "ulimit -n" in refused.value.hint


async def test_no_descriptor_left_is_one_line_in_ten_seconds(limits: Limits, caplog: pytest.LogCaptureFixture) -> None:
    now_s = [0.0]
    report = ExhaustionReport(lambda: now_s[0])
    await report()
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, limits[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for now_s[0] in (1.0, 2.0, 1.0 + PAUSE_S):
            await report()
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert [record.getMessage()[:55] for record in caplog.records] == [
        "Connections cannot be accepted: Too many open files. Ra"
    ] * 2


def test_a_command_that_runs_out_of_descriptors_says_what_to_raise() -> None:
    explained = failures.explain(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    assert not isinstance(explained, failures.UnexpectedError | UsageError)
    assert "ulimit -n" in explained.hint
