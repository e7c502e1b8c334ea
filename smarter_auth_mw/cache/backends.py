"""The aiocache backend that ``CACHE_URL`` names."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from smarter_auth_mw.config.masking import withheld
from smarter_auth_mw.config.origins import PREFIX
from smarter_auth_mw.errors import ConfigurationError, Mistake, UsageError

if TYPE_CHECKING:
    from aiocache.base import BaseCache  # It imports every client that is installed: not for who only reads a URL.

CACHE_URLS = (
    "one of memory://, redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], rediss://… for TLS, "
    "unix://[[USER]:PASSWORD@]/SOCKET[?db=DB], memcached://HOST[:PORT]; special characters percent-encoded"
)


def backend_of(url: str) -> BaseCache | None:
    """Return the aiocache backend that the URL names, not yet connected; None for ``memory://``.

    ``redis://``, ``rediss://`` and ``unix://`` are read as redis-py does, with its options after ``?``. Raises
    ``ConfigurationError``, also where the client is not installed.
    """
    try:
        return _backend_of(url)
    except ImportError:
        extra = "memcached" if url.startswith("memcached:") else "redis"
        rule = f"its client is not installed: pip install 'smarter_auth_mw[{extra}]'"
    except UsageError as error:
        rule = f"{error.message}; {CACHE_URLS}; {withheld(url)}"
    except Exception:  # Its text is not shown: it may contain a part of the password.
        rule = f"{CACHE_URLS}; {withheld(url)}"
    raise ConfigurationError([Mistake(f"{PREFIX}CACHE_URL", "", rule)])


def _backend_of(url: str) -> BaseCache | None:
    match urlsplit(url).scheme:
        case "memory":
            return None
        case "redis" | "rediss" | "unix":
            from smarter_auth_mw.cache.redis import RedisBackend

            return RedisBackend(url)
        case "memcached":
            from smarter_auth_mw.cache.memcached import MemcachedBackend

            return MemcachedBackend(url)
    raise ValueError("Another scheme.")
