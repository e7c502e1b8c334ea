"""Finds the primary among several hosts: all are asked in parallel, and the newest timeline wins."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from smarter_auth_mw.config.database_urls import Host
from smarter_auth_mw.errors import SchemaError, SmarterAuthError, UnavailableError
from smarter_auth_mw.log import log
from smarter_auth_mw.postgres.faults import READ_ONLY_HINT, AwayError, explained
from smarter_auth_mw.postgres.queries import QUERIES

GRACE_S = 1.0
"""The time to wait for other hosts after one has answered as the primary: another may have been promoted."""
HEAD_START_S = 0.5
"""The time for which only the last known primary is tried."""

Open = Callable[[Host], Awaitable[Any]]
Asked = asyncio.Task["Candidate"]

READ_ONLY_BY_DEFAULT = "default_transaction_read_only is on"

_primaries: dict[Sequence[Host], Host] = {}
"""The last known primary of each list of hosts, only used to ask it first."""


class Candidate(NamedTuple):
    """A host that answered: whether it is a primary, its system, and its timeline."""

    host: Host
    connection: Any
    is_primary: bool
    system: str
    timeline: int
    is_standby: bool = False


async def elect(hosts: Sequence[Host], open_host: Open, where: str) -> Any:
    """Return a connection to the primary among the hosts; raises UnavailableError with the result of each host."""
    last = _primaries.get(hosts)
    asked: dict[Host, Asked] = {}
    chosen: Candidate | None = None
    try:
        if last is not None:
            asked[last] = asyncio.create_task(_ask(last, open_host))
            await asyncio.wait(asked.values(), timeout=HEAD_START_S)
        if not any(map(_is_primary, asked.values())):
            asked |= {host: asyncio.create_task(_ask(host, open_host)) for host in {*hosts} - asked.keys()}
            await _answers(asked.values())
        chosen = _choose({host: asked[host] for host in hosts if host in asked}, where)
    finally:
        _dismiss(asked.values(), chosen)
    if last != chosen.host:
        _primaries[hosts] = chosen.host
        found = f"{chosen.host} is the primary of {where}, on timeline {chosen.timeline}"
        log("server.found", "%s", found) if last is None else log("server.changed", "%s", found)
    return chosen.connection


async def _ask(host: Host, open_host: Open) -> Candidate:
    connection = await open_host(host)
    try:
        found = await QUERIES.find_timeline(connection)
    except BaseException as error:
        connection.terminate()
        if isinstance(error, Exception):
            raise explained(error, str(host)) from None
        raise
    is_primary = not (found["is_standby"] or found["is_read_only"])
    return Candidate(host, connection, is_primary, found["system"], found["timeline"], found["is_standby"])


async def _answers(asked: Iterable[Asked]) -> None:
    """Wait until every host has answered, or for GRACE_S after one has answered as a primary."""
    waiting = set(asked)
    while waiting and not any(map(_is_primary, asked)):
        _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if waiting:
        await asyncio.wait(waiting, timeout=GRACE_S)


def _choose(asked: Mapping[Host, Asked], where: str) -> Candidate:
    """Return the primary on the newest timeline; of two on the same timeline, the one named first."""
    primaries = [task.result() for task in asked.values() if _is_primary(task)]
    if not primaries:
        raise _nobody(asked, where)
    chosen = max(primaries, key=lambda one: (one.system == primaries[0].system, one.timeline))
    for one in primaries:
        if one is not chosen:
            log(
                "server.deposed",
                "%s claims to be the primary, but its timeline %d is older: it is not used",
                one.host,
                one.timeline,
            )
    for host, task in asked.items():
        if not task.done():
            log("server.silent", "%s did not answer, and %s is the primary", host, chosen.host)
    return chosen


def _nobody(asked: Mapping[Host, Asked], where: str) -> SmarterAuthError:
    """Return the error that no host is the primary, with the result of each; or that the schema is too old."""
    for task in asked.values():
        if task.done() and isinstance(error := task.exception(), SchemaError):
            return error
    found = "; ".join(_said(host, task) for host, task in asked.items())
    hint = READ_ONLY_HINT if READ_ONLY_BY_DEFAULT in found else "Wait for the failover, or name the primary too."
    is_away = any(task.done() and isinstance(task.exception(), AwayError) for task in asked.values())
    return (AwayError if is_away else UnavailableError)(
        f"None of the hosts of {where} is the primary: {found}.", hint=hint
    )


def _dismiss(asked: Iterable[Asked], chosen: Candidate | None) -> None:
    """Cancel attempts that are still running, and close every connection but the chosen one.

    It waits for none of them: if the caller were cancelled meanwhile, their connections would stay open.
    """
    for task in asked:
        task.cancel()
        task.add_done_callback(partial(_close, chosen))


def _close(chosen: Candidate | None, task: Asked) -> None:
    if not task.cancelled() and task.exception() is None and task.result() is not chosen:
        task.result().connection.terminate()


def _is_primary(task: Asked) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None and task.result().is_primary


def _said(host: Host, task: Asked) -> str:
    error = None if not task.done() else task.exception()
    if isinstance(error, SmarterAuthError):
        return error.message.removesuffix(".")
    return f"{host} is read-only: {'a standby' if task.result().is_standby else READ_ONLY_BY_DEFAULT}"
