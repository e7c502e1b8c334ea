"""Which backend a URL names, and what to do about one that names none."""

from __future__ import annotations

import sys

import pytest

from smarter_auth_mw.cache.backends import backend_of
from smarter_auth_mw.config.settings import DatabaseSettings
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


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://cache?ssl_cert_reqs=none", "write rediss:// for TLS"),
        ("rediss://cache?ssl_cert_reqs=CERT_NONE", "none, optional or required"),
        ("rediss://cache?ssl_ca_certs=/nowhere.pem", "a file in PEM that this user may read"),
    ],
)
def test_option_that_is_refused_says_what_to_write(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        backend_of(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://a:26379/main/0", "Sentinel and Cluster are not supported"),
        ("redis+cluster://a", "Sentinel and Cluster are not supported"),
        ("redis+socket:///run/redis.sock", "unix:///SOCKET"),
        ("cache:6379", "a URL that begins with"),
    ],
)
def test_scheme_of_another_client_says_what_to_write(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        DatabaseSettings(database_url="postgresql://db/app", cache_url=url)


@pytest.mark.parametrize(
    ("url", "taken"), [("valkey://cache/1", "redis://cache/1"), ("valkeys://me:pw@cache", "rediss://me:pw@cache")]
)
def test_valkey_is_named_by_its_own_scheme_too(url: str, taken: str) -> None:
    settings = DatabaseSettings(database_url="postgresql://db/app", cache_url=url)
    assert settings.cache_url.get_secret_value() == taken
