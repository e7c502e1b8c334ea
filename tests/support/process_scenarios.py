"""A process whose middleware is opened, and that then forks or changes its event loop: ``… process_scenarios.py NAME``.

Each scenario ends well, without a warning, or it fails. The environment holds ``SMARTER_AUTH_*``, and ``TOKEN`` and
``KEY_ID`` of a key that opens the bot 1; the scenario revokes it by ``MANAGER_URL``.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from uuid import UUID

from smarter_auth_mw import SmarterAuthMiddleware
from smarter_auth_mw.management.keys import Management
from smarter_auth_mw.postgres.pool import open_pool
from smarter_auth_mw.postgres.store import Store
from smarter_auth_mw.tokens import Token
from tests.support.asgi import APP, client
from tests.support.worker import Worker

app = SmarterAuthMiddleware(APP)
TOKEN = Token(os.environ.get("TOKEN", "").encode())


async def comes_to(status: int) -> set[int]:
    async with client(app) as http:
        return await Worker(app, http).comes_to(status, token=TOKEN)


async def revoke() -> None:
    async with open_pool(os.environ["MANAGER_URL"]) as pool:
        await Management(Store(pool), actor="scenario").revoke(UUID(os.environ["KEY_ID"]))


async def is_granted_until_revoked(granted: Callable[[], object]) -> None:
    """Say that the token is granted, and go on asking until it is refused."""
    assert await comes_to(200) == set()
    granted()
    assert await comes_to(401) <= {200}


def forked_after_the_first_request() -> None:
    said, saying = os.pipe()
    with asyncio.Runner() as runner:
        assert runner.run(comes_to(200)) == set()
        child = os.fork()
        if child == 0:
            told = 1
            try:
                asyncio.run(is_granted_until_revoked(lambda: os.write(saying, b"granted")))
                told = 0
            finally:
                os._exit(told)
        assert os.read(said, 7) == b"granted"
        runner.run(revoke())
        assert runner.run(comes_to(401)) <= {200}
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def loop_replaced_after_the_first_request() -> None:
    assert asyncio.run(comes_to(200)) == set()
    asyncio.run(revoke())
    assert asyncio.run(comes_to(401)) == set()


def two_loops_at_once() -> None:
    granted, is_done = threading.Barrier(3), []

    def serve() -> None:
        asyncio.run(is_granted_until_revoked(granted.wait))
        is_done.append(True)

    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    granted.wait()
    asyncio.run(revoke())
    for thread in threads:
        thread.join()
    assert len(is_done) == 2


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (forked_after_the_first_request, loop_replaced_after_the_first_request, two_loops_at_once)
}

if __name__ == "__main__":
    assert sys.flags.dev_mode, "Whatever nobody closes or awaits would not be reported."
    SCENARIOS[sys.argv[1]]()
