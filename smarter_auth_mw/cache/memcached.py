"""Memcached behind the shared tier."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import aiomcache
from aiocache.backends.memcached import MemcachedCache
from aiocache.serializers import NullSerializer
from aiomcache.pool import Connection

from smarter_auth_mw.config.masking import mask_url

DEFAULT_PORT = 11211
CONNECTIONS = 4
"""The most connections of each event loop; a call that finds none free waits for one within the tier's deadline."""


class MemcachedBackend(MemcachedCache):  # type: ignore[misc]
    """aiocache's Memcached backend, made safe for cancelled calls, which its client does not handle.

    Values are bytes and times to live whole seconds. Raises ``ValueError`` for a URL with more than host and port.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if not parts.hostname or "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("only a host and a port are allowed")
        super().__init__(
            serializer=NullSerializer(encoding=None),
            endpoint=parts.hostname,
            port=parts.port or DEFAULT_PORT,
            pool_size=CONNECTIONS,
        )
        self.client = _Client(self.endpoint, self.port, pool_size=CONNECTIONS)
        self._where = mask_url(url)

    async def _get(self, key: bytes, encoding: str | None = None, _conn: Any = None) -> Any:
        try:
            return await super()._get(key, encoding, _conn)
        except BaseException:
            await self._drop_connections()
            raise

    async def _set(self, key: bytes, value: Any, ttl: int | None = 0, _cas_token: Any = None, _conn: Any = None) -> Any:
        try:
            return await super()._set(key, value, ttl, _cas_token, _conn)
        except BaseException:
            await self._drop_connections()
            raise

    async def _drop_connections(self) -> None:
        """Drop connections after a cancelled call: the client would reuse one that still expects the old answer."""
        await self.client.close()  # Closes idle connections, including the one in question. Does not wait.

    def __repr__(self) -> str:
        return self._where


class _Client(aiomcache.Client):
    async def _execute_simple_command(self, conn: Connection, raw_command: bytes) -> bytes:
        """Fail if the server hangs up; the inherited method would read without end and block the event loop."""
        conn.writer.write(raw_command)
        await conn.writer.drain()
        return (await conn.reader.readuntil(b"\r\n"))[:-2]
