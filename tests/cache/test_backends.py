"""Which backend a URL names, and what to do about one that names none."""

from __future__ import annotations

import sys

import pytest

from smarter_auth_mw.cache.backends import backend_of
from smarter_auth_mw.errors import ConfigurationError


def test_memory_is_no_shared_tier() -> None:
    assert backend_of("memory://") is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://cache",
        "redis://cache/first",
        "redis://cache:99999",
        "redis://[::1",
        "redis://cache?color=blue",
        "redis://cache?max_connections=many",
        "redis://:se/same@cache:6379",
        "memcached://",
        "memcached://me:sesame@cache",
        "memcached://cache/1",
        "memcached://cache?size=1",
    ],
)
def test_url_that_cannot_be_used_is_a_mistake_that_tells_no_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"SMARTER_AUTH_CACHE_URL.*one of memory://, redis://") as caught:
        backend_of(url)
    assert "same" not in str(caught.value)


@pytest.mark.parametrize(("url", "client"), [("redis://cache", "redis"), ("memcached://cache", "aiomcache")])
def test_missing_client_is_a_mistake_that_names_the_extra(
    url: str, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = url.partition(":")[0]
    for module in [name for name in sys.modules if name.partition(".")[0] == client]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"smarter_auth_mw.cache.{extra}", raising=False)
    monkeypatch.delitem(sys.modules, f"aiocache.backends.{extra}", raising=False)
    with pytest.raises(ConfigurationError, match=rf"pip install 'smarter_auth_mw\[{extra}\]'"):
        backend_of(url)


@pytest.mark.parametrize("url", ["redis://me:sesame@cache:6380/1", "unix:///run/cache?password=sesame"])
def test_backend_does_not_show_its_password(url: str) -> None:
    backend = backend_of(url)
    assert "cache" in repr(backend)
    assert "sesame" not in repr(backend)
