"""The key and the operator of one run of the demo: created for it, revoked by the next run."""

from __future__ import annotations

import fcntl
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

from smarter_auth_mw.cli.demo.traffic import add_traffic
from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.domain import Key, Resource
from smarter_auth_mw.errors import NotFoundError
from smarter_auth_mw.management.keys import Management, Minted
from smarter_auth_mw.management.operators import MintedOperator, Operators, Role
from smarter_auth_mw.postgres.opening import open_store

PROTECTED = Resource("bot", "1")


_OPERATOR = re.compile("demo ([0-9a-f]{8})")


class Run(NamedTuple):
    """The objects of one run: the key of bot 1, and an admin for the pages."""

    minted: Minted
    operator: MintedOperator


@asynccontextmanager
async def demo_run(owner: Settings, home: Path, actor: str) -> AsyncIterator[Run]:
    """Create a key and an operator for the block, and revoke those of runs that have ended.

    A run that is still active in another terminal keeps its own: it holds a lock, which the kernel releases however
    the process ends. ``owner`` has the URL of the schema's owner.
    """
    run = secrets.token_hex(4)
    with _held(home / _lock_name(run)):
        async with open_store(owner) as store:
            keys, operators = Management(store, actor), Operators(store, actor)
            await _revoke_last(keys, operators, home)
            await add_traffic(store, keys)
            minted = await keys.create(f"demo {run}", description=run, bind=[PROTECTED])
            operator = await operators.create(f"demo {run}", Role.ADMIN)
        yield Run(minted, operator)


async def _revoke_last(keys: Management, operators: Operators, home: Path) -> None:
    for key in await _keys_of_runs(keys):
        if not _is_held(home / _lock_name(key.description)):
            await keys.revoke(key.key_id)
    for operator in await operators.all():
        run = _OPERATOR.fullmatch(operator.name)
        if run and operator.revoked_at is None and not _is_held(home / _lock_name(run[1])):
            await operators.revoke(operator.name)


async def _keys_of_runs(keys: Management) -> list[Key]:
    try:
        bound = await keys.keys(PROTECTED)
    except NotFoundError:
        return []
    return [key for key in bound if key.revoked_at is None and key.name == f"demo {key.description}"]


def _lock_name(run: str) -> str:
    return f"demo-{run}.lock"


@contextmanager
def _held(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _is_held(path: Path) -> bool:
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    path.unlink(missing_ok=True)
    return False
