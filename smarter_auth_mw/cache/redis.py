"""Redis and Valkey behind the shared tier."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from aiocache.backends.redis import RedisCache
from aiocache.serializers import NullSerializer
from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection
from redis.exceptions import ResponseError

from smarter_auth_mw.config.masking import mask_url
from smarter_auth_mw.errors import UsageError

CONNECTIONS = 8
"""The most connections of each event loop; a call that finds none free waits for one within its deadline."""
CONNECT_DEADLINE_S = 5.0
_FILE = "a file in PEM that this user may read"
VALUES = {
    "ssl_cert_reqs": "none, optional or required",
    "ssl_ca_certs": _FILE,
    "ssl_certfile": _FILE,
    "ssl_keyfile": _FILE,
}
"""The values that redis-py accepts, for options known by other values elsewhere, or that name a file."""


class RedisBackend(RedisCache):  # type: ignore[misc]
    """aiocache's Redis backend with redis-py's own reading of the URL, and no call that redis-py calls deprecated.

    Values are bytes and times to live whole seconds. Deadlines and retries are the caller's. Raises UsageError for an
    option that redis-py does not take, and what redis-py raises for any other URL that it cannot use.
    """

    def __init__(self, url: str) -> None:
        super().__init__(serializer=NullSerializer(encoding=None))
        parts = urlsplit(url)
        if parts.scheme != "unix" and not re.fullmatch(r"/?\d*", parts.path):
            raise ValueError("the database of a Redis is a number")  # redis-py would take number 0 instead.
        self.client = Redis.from_pool(_checked_pool(url))
        self._where = mask_url(url)

    async def _get(self, key: str, encoding: str | None = None, _conn: Any = None) -> Any:  # noqa: ARG002
        try:
            return await self.client.get(key)
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                return b""  # Another type, such as a list: garbage, not an outage.
            raise

    async def _set(
        self, key: str, value: Any, ttl: int | None = None, _cas_token: Any = None, _conn: Any = None
    ) -> Any:
        if _cas_token is not None:
            return await self._cas(key, value, _cas_token, ttl=ttl)
        return await self.client.set(key, value, ex=ttl)

    async def _close(self, *_: Any, **__: Any) -> None:
        await self.client.aclose()

    def __repr__(self) -> str:
        return self._where


class ConnectionPool(BlockingConnectionPool):
    """A pool whose connections keep connecting when the call that needed them has timed out.

    TCP, TLS, AUTH and SELECT take more round trips than a call's deadline allows. If connecting were cancelled with the
    call, a server some milliseconds away could never be connected to.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._connecting: dict[Any, asyncio.Task[None]] = {}

    async def ensure_connection(self, connection: Any) -> None:
        """Wait until the connection is open, healthy and exclusively held."""
        task = self._connecting.get(connection)
        if task is None:
            task = self._connecting[connection] = asyncio.create_task(self._ensure(connection))
            task.add_done_callback(lambda done: self._ended(connection, done))
        await asyncio.shield(task)

    async def release(self, connection: Any) -> None:
        await super().release(connection)
        if connection in self._connecting:  # The next call takes the last one, which should be an open one.
            self._available_connections.insert(0, self._available_connections.pop())

    async def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 (redis-py's own)
        """Close all connections, including those that are still connecting."""
        for task in (tasks := list(self._connecting.values())):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await super().disconnect(inuse_connections)

    async def _ensure(self, connection: Any) -> None:
        async with asyncio.timeout(CONNECT_DEADLINE_S):
            await super().ensure_connection(connection)

    def _ended(self, connection: Any, task: asyncio.Task[None]) -> None:
        del self._connecting[connection]
        if not task.cancelled():
            task.exception()  # Mark the exception as retrieved, since all callers may be gone.


def _checked_pool(url: str) -> ConnectionPool:
    try:
        return _pool(url)
    except Exception:
        if (option := _refused_option(url)) is None:
            raise
        scheme = urlsplit(url).scheme
        is_missing_tls = option.startswith("ssl_") and scheme == "redis"
        accepted = "write rediss:// for TLS" if is_missing_tls else VALUES.get(option)
        advice = f": {accepted}" if accepted else ""
        raise UsageError(f"redis-py does not accept the option {option} of this {scheme}:// URL{advice}") from None


def _pool(url: str) -> ConnectionPool:
    pool = ConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=None,
        socket_timeout=None,
        socket_connect_timeout=None,
        protocol=2,  # RESP 3 needs more round trips to connect, and nothing of it is used here.
    )
    pool.connection_kwargs["decode_responses"] = False  # Values are bytes, whatever the URL says.
    # Does not connect. Wrong options and missing certificates are reported here, not at each call.
    connection: Any = pool.make_connection()  # type: ignore[no-untyped-call]
    if isinstance(connection, SSLConnection):
        connection.ssl_context.get()
    return pool


def _refused_option(url: str) -> str | None:
    """Return the first option that redis-py refuses by itself.

    None if the text after ``?`` may be a part of the password.
    """
    bare, _, query = url.partition("?")
    if "@" in query or not _is_taken(bare):
        return None
    for name, value in parse_qsl(query):
        if not _is_taken(f"{bare}?{urlencode({name: value})}"):
            return name if re.fullmatch("[a-z_]{1,40}", name) else None
    return None


def _is_taken(url: str) -> bool:
    try:
        _pool(url)
    except Exception:
        return False
    return True
