"""The key of one run of the demo: minted for it, revoked by the next one."""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from smarter_auth_mw.config.settings import Settings
from smarter_auth_mw.domain import Key, Resource
from smarter_auth_mw.errors import NotFoundError
from smarter_auth_mw.management.keys import Management, Minted
from smarter_auth_mw.postgres.opening import open_store

PROTECTED = Resource("bot", "1")


@asynccontextmanager
async def demo_key(settings: Settings, home: Path, actor: str) -> AsyncIterator[Minted]:
    """A new key of bot 1, for as long as the block lasts; those of runs that are over are revoked.

    A run that still goes on, in another terminal, keeps its key: it holds a lock, which the kernel takes off a process
    that dies of whatever.
    """
    run = secrets.token_hex(4)
    with _held(home / _lock_name(run)):
        async with open_store(settings) as store:
            keys = Management(store, actor)
            for key in await _keys_of_runs(keys):
                if not _is_held(home / _lock_name(key.description)):
                    await keys.revoke(key.key_id)
            minted = await keys.create(f"demo {run}", description=run, bind=[PROTECTED])
        yield minted


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
