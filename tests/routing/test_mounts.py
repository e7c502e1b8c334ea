"""Mounts: what the wrapped app tells of the prefixes that it takes off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Host, Mount, Route, Router
from starlette.staticfiles import StaticFiles

from smarter_auth_mw.routing.mounts import mounts_of, unknown_mounts

NESTED = {"/a", "/deep", "/u/{user}/x", "/in", "/hosted", "/all/{rest:path}", "/{path}"}


def endpoint() -> None: ...


class Hostile:
    """An app that answers to every attribute by raising."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def nested() -> Starlette:
    inner = Starlette(routes=[Route("/bots/{id}", endpoint), Mount("/deep", app=Router())])
    hosted = Router(routes=[Mount("/hosted", app=inner)])
    routes = [Mount("/a", app=GZipMiddleware(inner)), Mount("/u/{user}/x", routes=[Mount("/in", app=inner)])]
    return Starlette(routes=[*routes, Host("{sub}.example.com", app=hosted), Mount("/all/{rest:path}", app=Router())])


def included() -> FastAPI:
    router = APIRouter()
    router.mount("/sub", Starlette())
    app = FastAPI()
    app.include_router(router, prefix="/v1")
    return app


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (nested(), NESTED),
        (GZipMiddleware(GZipMiddleware(nested().router)), NESTED),
        # An older FastAPI leaves the mounts of an included router out altogether.
        (included(), {"/v1/sub"} if any(hasattr(route, "original_router") for route in included().routes) else set()),
        (None, set()),
        (object(), set()),
        (lambda: None, set()),
    ],
)
def test_mounts_are_found_where_the_app_tells_of_them(app: Any, expected: set[str]) -> None:
    assert set(mounts_of(app)) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/v{version}", "/{}"), ("/my app/x", "/{}/x"), ("/100%", "/{}"), ("/a/{b}/c{d:int}", "/a/{b}/{}")],
)
def test_unusual_mount_is_kept_as_a_placeholder(path: str, expected: str) -> None:
    assert mounts_of(Starlette(routes=[Mount(path, app=Router())])) == (expected,)


def test_mount_of_files_leads_to_no_handler(tmp_path: Path) -> None:
    class Answering(StaticFiles):
        async def __call__(self, *_: Any) -> None: ...

    files, answering = StaticFiles(directory=tmp_path), Answering(directory=tmp_path)
    routes = [Mount("/static", app=files), Mount("/other", app=answering)]
    assert mounts_of(Starlette(routes=routes)) == ("/other",)


def test_app_that_raises_on_every_look_has_no_mounts() -> None:
    assert mounts_of(Hostile()) == ()
    assert unknown_mounts(Hostile()) == (" (Hostile)",)


def test_root_path_of_the_app_is_found_and_a_circle_of_apps_ends() -> None:
    class Wrapper:
        root_path = "/api/"
        app: Any = None

    wrapper = Wrapper()
    wrapper.app = wrapper
    assert mounts_of(wrapper) == ("/api",)


class Dispatcher:
    """As Werkzeug's and Hypercorn's ``DispatcherMiddleware``."""

    def __init__(self, app: Any, mounts: dict[str, Any]) -> None:
        self.app, self.mounts = app, mounts


class ASGIApp:
    """As Socket.IO's, which keeps the app that it wraps to itself."""


def test_mounts_of_a_dispatcher_are_found() -> None:
    inner = Starlette(routes=[Mount("/deep", app=Router())])
    assert set(mounts_of(Dispatcher(Router(), {"/svc": inner}))) == {"/svc", "/deep"}


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (nested(), ()),
        (included(), ()),
        (None, ()),
        (GZipMiddleware(nested().router), ()),
        (endpoint, (" (endpoint)",)),
        (GZipMiddleware(ASGIApp()), (" (ASGIApp)",)),  # type: ignore[arg-type]
        (Starlette(routes=[Mount("/a", app=Router(routes=[Mount("/b", app=ASGIApp())]))]), ("/a/b (ASGIApp)",)),  # type: ignore[arg-type]
        (Starlette(routes=[Host("x.org", app=endpoint)]), ("x.org (endpoint)",)),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_looked_through_is_known(app: Any, expected: tuple[str, ...]) -> None:
    assert unknown_mounts(app) == expected
