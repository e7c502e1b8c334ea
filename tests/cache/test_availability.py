"""A call that fails is a doubt, a probe decides, and a server that is down is left alone ever longer."""

from __future__ import annotations

import asyncio

import pytest
from redis import exceptions

from smarter_auth_mw.cache import availability as module
from smarter_auth_mw.cache.availability import DEADLINE_S, Availability, TooSlowError, cause_of
from smarter_auth_mw.cache.redis import RedisBackend
from tests.support.valkey import Valkey
from tests.support.worker import until


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Server:
    """What is asked, with what was reported of it."""

    def __init__(self) -> None:
        self.probes = 0
        self.error: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()
        self.reported: list[str] = []
        self.clock = Clock()
        self.availability = Availability(self.probe, self.report, clock=self.clock)

    async def probe(self) -> None:
        self.probes += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error

    def report(self, error: Exception | None) -> None:
        self.reported.append("found" if error is None else type(error).__name__)

    async def fail(self) -> None:
        with pytest.raises(OSError, match="gone"):
            await self.availability.answer(self._gone())

    async def _gone(self) -> None:
        raise OSError("gone")

    async def settled(self) -> None:
        await until(lambda: self.availability._probing is None)


async def test_an_answer_is_handed_on_and_asks_for_no_probe() -> None:
    server = Server()

    async def call() -> str:
        return "red"

    assert server.availability.allows_call()
    assert await server.availability.answer(call()) == "red"
    assert server.probes == 0


async def test_calls_wait_for_no_probe_and_one_that_is_answered_reports_nothing() -> None:
    server = Server()
    server.answers.clear()
    await server.fail()
    assert [server.availability.allows_call() for _ in range(100)] == [False] * 100
    server.answers.set()
    await server.settled()
    assert server.availability.allows_call()
    assert (server.reported, server.probes) == ([], 2)


async def test_a_server_that_is_down_is_probed_ever_less_often_and_reported_once() -> None:
    server = Server()
    server.error = OSError("gone")
    await server.fail()
    await server.settled()
    assert server.availability.is_down
    for pause_s in [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]:
        before = server.probes
        server.clock.now_s += pause_s - 0.01
        assert not server.availability.allows_call()
        assert server.availability._probing is None
        server.clock.now_s += 0.02
        assert [server.availability.allows_call() for _ in range(3)] == [False] * 3
        await server.settled()
        assert server.probes == before + 1
    assert server.reported == ["OSError"]
    server.error = None
    server.clock.now_s += 5.0
    server.availability.look()
    await server.settled()
    assert server.availability.allows_call()
    assert server.reported == ["OSError", "found"]


async def test_a_call_may_take_several_of_the_round_trips_that_the_probe_took() -> None:
    server = Server()
    await server.fail()
    await server.settled()
    assert server.availability.deadline_s == DEADLINE_S

    async def slow() -> None:
        await asyncio.sleep(0.05)

    server.availability._probe = slow
    await server.fail()
    await server.settled()
    assert server.availability.deadline_s >= 4 * 0.05


async def test_a_server_that_no_call_could_wait_for_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_DEADLINE_S", 0.0)
    server = Server()
    await server.fail()
    await server.settled()
    assert server.reported == [TooSlowError.__name__]


async def test_closing_ends_a_probe_that_hangs() -> None:
    server = Server()
    server.answers.clear()
    await server.fail()
    await server.availability.close()
    assert server.reported == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (exceptions.AuthenticationError("secret"), "AuthenticationError: it refused the log-in"),
        (exceptions.ResponseError("DB index is out of range"), "ResponseError: it has no database of this number"),
        (exceptions.BusyLoadingError("LOADING"), "BusyLoadingError: it is loading its data"),
        (exceptions.ReadOnlyError(""), "ReadOnlyError: it is a read-only replica"),
        (exceptions.OutOfMemoryError(""), "OutOfMemoryError: it is out of memory (maxmemory)"),
        (exceptions.MovedError("3999 10.0.0.7:6381"), "MovedError: it is a cluster: name a single server"),
        (
            exceptions.ConnectionError("[SSL: CERTIFICATE_VERIFY_FAILED]"),
            "ConnectionError: its certificate is not trusted",
        ),
        (TimeoutError(), "TimeoutError: it did not answer in time"),
        (ValueError("secret"), "ValueError"),
    ],
)
def test_cause_is_said_without_the_words_of_the_server(error: Exception, said: str) -> None:
    assert cause_of(error) == said


async def test_a_real_server_without_that_database_is_understood() -> None:
    with Valkey() as valkey:
        backend = RedisBackend(f"{valkey.url}?db=99")
        with pytest.raises(exceptions.RedisError) as refused:
            await backend.get("key", timeout=0)
        await backend.close()
    assert cause_of(refused.value).endswith(": it has no database of this number")


async def test_values_are_bytes_whatever_the_url_says() -> None:
    with Valkey() as valkey:
        backend = RedisBackend(f"{valkey.url}?decode_responses=true")
        await backend.set("key", b"\xff\x00", timeout=0)
        assert await backend.get("key", timeout=0) == b"\xff\x00"
        await backend.close()
