"""Sends hostile requests over raw sockets, and finds those that reached the app."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from smarter_auth_mw.cli.attack.cases import Case, ResourceUrl

TIMEOUT_S = 5.0
LINGER_S = 0.25
"""The time to read after a response: a smuggled request would cause a second one."""
MAX_ANSWER_BYTES = 65_536
AT_ONCE = 4
SWITCHED, FAILED = 101, 500

NOT_TRIED = (
    "HTTP/2 and HTTP/3: the list is HTTP/1 only",
    "the host patterns of other resources: one URL is attacked",
    "races with revocation, and outages of the database",
)
"""The attacks that a report does not cover."""

_STATUS_LINE = re.compile(rb"HTTP/\d(?:\.\d)? (\d{3})[^\n]*\n")


@dataclass(frozen=True, slots=True)
class RawResponse:
    """One response; ``status`` is None if the bytes are not HTTP."""

    status: int | None
    head: bytes = b""
    body: bytes = b""
    is_complete: bool = False


@dataclass(frozen=True, slots=True)
class Marker:
    """The sign of a response from the resource: a header's value, or a pattern in the body.

    Without either, it is any success, or a 500, which only an app sends, except with the body ``elsewhere``, with which
    the app answers unknown paths.
    """

    header: tuple[str, str] | None = None
    body: re.Pattern[bytes] | None = None
    elsewhere: frozenset[bytes] = frozenset()

    def shows(self, response: RawResponse) -> bool:
        """Return whether the response is the resource's own."""
        if self.header is None and self.body is None:
            return _is_of_an_app(response) and response.body not in self.elsewhere
        return self._is_in_head(response) or (self.body is not None and self.body.search(response.body) is not None)

    def _is_in_head(self, response: RawResponse) -> bool:
        if self.header is None:
            return False
        name, value = self.header
        lines = [line.partition(":") for line in response.head.decode("latin-1").splitlines()]
        return any(key.lower() == name.lower() and value in found for key, _, found in lines)


def _is_of_an_app(response: RawResponse) -> bool:
    """Return whether an app sent the response: a 2xx, a 500, or a WebSocket, but not a switch to HTTP/2."""
    if response.status == SWITCHED:
        return re.search(rb"(?im)^upgrade:[ \t]*websocket", response.head) is not None
    return response.status is not None and (response.status // 100 == 2 or response.status == FAILED)


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a case: its responses, none if the connection was closed or stayed silent."""

    case: Case
    answers: tuple[RawResponse, ...]
    has_reached: bool

    @property
    def outcome(self) -> str:
        """The statuses, in the order they came, or ``none``."""
        return " ".join(str(answer.status or "unreadable") for answer in self.answers) or "none"


@dataclass(slots=True)
class Report:
    """All results, counted."""

    results: list[Result] = field(default_factory=list)

    @property
    def reached(self) -> list[Result]:
        return [result for result in self.results if result.has_reached]

    @property
    def outcomes(self) -> dict[str, int]:
        return dict(sorted(Counter(result.outcome for result in self.results).items()))


async def attack(site: ResourceUrl, cases: Iterable[Case], marker: Marker, timeout_s: float = TIMEOUT_S) -> Report:
    """Send every case, a few at once, each on its own connection; raises OSError if none can be opened."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def sent(case: Case) -> Result:
        async with slots:
            answers = await ask(site, case.request, timeout_s)
        return Result(case, answers, any(map(marker.shows, answers)))

    return Report(list(await asyncio.gather(*map(sent, cases))))


async def ask(site: ResourceUrl, request: bytes, timeout_s: float = TIMEOUT_S) -> tuple[RawResponse, ...]:
    """Send these bytes and return the responses; raises OSError if nothing listens."""
    context = ssl.create_default_context() if site.is_tls else None
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(
            site.address or site.host, site.port, ssl=context, server_hostname=site.host if site.is_tls else None
        )
    try:
        heard = bytearray()
        with suppress(TimeoutError, ConnectionError, ssl.SSLError):
            async with asyncio.timeout(timeout_s) as deadline:
                writer.write(request)
                await _hear(reader, heard, deadline, has_body=not request.startswith(b"HEAD "))
        return tuple(_answers(bytes(heard), has_body=not request.startswith(b"HEAD "))) if heard else ()
    finally:
        writer.transport.abort()


async def _hear(reader: asyncio.StreamReader, heard: bytearray, deadline: asyncio.Timeout, *, has_body: bool) -> None:
    while len(heard) < MAX_ANSWER_BYTES and (piece := await reader.read(MAX_ANSWER_BYTES)):
        heard += piece
        *_, last = _answers(bytes(heard), has_body=has_body)
        if last.status == SWITCHED:
            return
        if last.is_complete:
            deadline.reschedule(min(deadline.when() or 0, asyncio.get_running_loop().time() + LINGER_S))


def _answers(heard: bytes, *, has_body: bool) -> Iterator[RawResponse]:
    """Yield the responses in the received bytes; an interim response counts if no other follows."""
    while True:
        found = _STATUS_LINE.match(heard)
        if found is None:
            yield RawResponse(None, body=heard)
            return
        head, end, rest = heard[found.end() :].partition(b"\r\n\r\n")
        status = int(found[1])
        if status < 200 and rest and status != SWITCHED:
            heard = rest
            continue
        length = _body_bytes(head, rest) if has_body and status >= 200 else 0
        yield RawResponse(status, head, rest[:length], is_complete=bool(end) and length is not None)
        if length is None or not rest[length:] or status == SWITCHED:
            return
        heard = rest[length:]


def _body_bytes(head: bytes, rest: bytes) -> int | None:
    """Return the length of the body, or None while its end is missing."""
    announced = re.search(rb"(?im)^content-length:[ \t]*(\d+)", head)
    if announced is not None:
        return int(announced[1]) if len(rest) >= int(announced[1]) else None
    if re.search(rb"(?im)^transfer-encoding:[ \t]*chunked", head):
        at = rest.find(b"0\r\n\r\n")
        return None if at < 0 else at + 5
    return None
