"""What apps do to a middleware's connections, each as a process of its own: ``python lifecycle_scenarios.py NAME``.

Each scenario is a function; it ends well, without a warning, or it fails. The database is in the environment:
``SMARTER_AUTH_*``, and the token of the protected bot 1 in ``TOKEN``.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from smarter_auth_mw import SmarterAuthMiddleware

TOKEN = {"Authorization": f"Token {os.environ.get('TOKEN')}"}


async def bot(request: Request) -> Response:
    return PlainTextResponse(str(request.scope["smarter_auth"].key_id))


APP = Starlette(routes=[Route("/bots/{ref:int}", bot)])


async def ask(app: Any, url: str = "http://test/bots/1") -> list[int]:
    """The statuses without and with the token, and of an open bot."""
    transport = httpx.ASGITransport(app) if app else None
    async with httpx.AsyncClient(transport=transport) as client:
        return [
            (await client.get(url)).status_code,
            (await client.get(url, headers=TOKEN)).status_code,
            (await client.get(url.replace("bots/1", "bots/2"))).status_code,
        ]


GOOD = [401, 200, 200]


class Server(uvicorn.Server):
    """uvicorn on a port of its own, for as long as the block lasts."""

    def __init__(self, app: Any, **options: Any) -> None:
        super().__init__(uvicorn.Config(app, port=0, log_level="warning", proxy_headers=False, **options))

    async def __aenter__(self) -> str:
        self.running = asyncio.create_task(self.serve())
        while not self.started:
            assert not self.running.done()
            await asyncio.sleep(0.01)
        port = self.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}/bots/1"

    async def __aexit__(self, *_: object) -> None:
        self.should_exit = True
        await self.running


async def under_uvicorn(app: Any, **options: Any) -> list[int]:
    async with Server(app, **options) as url:
        return await ask(None, url)


def uvicorn_with_lifespan() -> None:
    assert asyncio.run(under_uvicorn(SmarterAuthMiddleware(APP), lifespan="on")) == GOOD


def uvicorn_without_lifespan() -> None:
    assert asyncio.run(under_uvicorn(SmarterAuthMiddleware(APP), lifespan="off")) == GOOD


def added_to_an_app() -> None:
    app = Starlette(routes=APP.routes)
    app.add_middleware(SmarterAuthMiddleware)
    assert asyncio.run(under_uvicorn(app, lifespan="on")) == GOOD


def an_app_that_does_not_speak_lifespan() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await APP(scope, receive, send)

    assert asyncio.run(under_uvicorn(SmarterAuthMiddleware(app))) == GOOD


def an_app_that_passes_lifespan_over_in_silence() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await APP(scope, receive, send)

    assert asyncio.run(under_uvicorn(SmarterAuthMiddleware(app), lifespan="on")) == GOOD


def inside_a_mount_that_gets_no_lifespan() -> None:
    app = Starlette(routes=[Mount("/v1", SmarterAuthMiddleware(APP))])

    async def main() -> list[int]:
        async with Server(app, lifespan="on") as url:
            return await ask(None, url.replace("/bots", "/v1/bots"))

    assert asyncio.run(main()) == GOOD


def four_loops_one_after_the_other() -> None:
    app = SmarterAuthMiddleware(APP)
    for _ in range(4):
        assert asyncio.run(ask(app)) == GOOD


def four_loops_at_once() -> None:
    app = SmarterAuthMiddleware(APP)
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda: found.append(asyncio.run(ask(app)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [GOOD] * 4


def the_test_client_without_a_with() -> None:
    from starlette.testclient import TestClient

    client = TestClient(SmarterAuthMiddleware(APP))
    assert [client.get("/bots/1").status_code, client.get("/bots/1", headers=TOKEN).status_code] == GOOD[:2]


def the_test_client_with_a_with() -> None:
    from starlette.testclient import TestClient

    with TestClient(SmarterAuthMiddleware(APP)) as client:
        assert [client.get("/bots/1").status_code, client.get("/bots/1", headers=TOKEN).status_code] == GOOD[:2]


def a_fork_after_the_first_request() -> None:
    app = SmarterAuthMiddleware(APP)
    with asyncio.Runner() as runner:
        assert runner.run(ask(app)) == GOOD
        child = os.fork()
        if child == 0:
            told = 1
            try:
                told = 0 if asyncio.run(ask(app)) == GOOD else 2
            finally:
                os._exit(told)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert runner.run(ask(app)) == GOOD


def everybody_leaves_while_it_opens() -> None:
    async def main() -> list[int]:
        app = SmarterAuthMiddleware(APP)
        asking = [asyncio.create_task(ask(app)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in asking[:4]:
            task.cancel()
        return await asking[4]

    assert asyncio.run(main()) == GOOD


def a_database_that_is_down_at_boot() -> None:
    url = os.environ["SMARTER_AUTH_DATABASE_URL"]
    os.environ["SMARTER_AUTH_DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/none"

    async def main() -> None:
        app = SmarterAuthMiddleware(APP)
        async with Server(app, lifespan="on") as base:
            assert await ask(None, base) == [503, 503, 503]
            settings = app._guard.settings
            assert settings is not None
            app._guard.settings = settings.model_copy(update={"database_url": type(settings.database_url)(url)})
            assert await ask(None, base) == GOOD

    asyncio.run(main())


def mistakes_stop_a_server_that_speaks_lifespan() -> None:
    os.environ["SMARTER_AUTH_POOL_MAX"] = "many"

    async def main() -> None:
        server = Server(SmarterAuthMiddleware(APP))
        await server.serve()

    with pytest.raises(SystemExit, match=r"^3$"):
        asyncio.run(main())


SCENARIOS = {
    name: scenario
    for name, scenario in list(globals().items())
    if callable(scenario)
    and getattr(scenario, "__module__", "") == __name__
    and not isinstance(scenario, type)
    and not asyncio.iscoroutinefunction(scenario)
}

if __name__ == "__main__":
    assert sys.flags.dev_mode, "Whatever nobody closes or awaits would not be reported."
    SCENARIOS[sys.argv[1]]()
