"""The first cache tier: a bounded aiocache backend in the process, which can be read without awaiting."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from aiocache.base import BaseCache
from aiocache.serializers import NullSerializer


class BoundedMemoryCache(BaseCache):  # type: ignore[misc]
    """Keeps the most recently used values, bounded by number and total weight.

    aiocache's own memory backend is unbounded, and its deadlines are timers that end with their event loop; here a
    deadline is checked when the value is read. ``peek`` and ``put`` are ``get`` and ``set`` for callers that cannot
    await. Callers that set no deadlines may read ``values`` directly, which is fastest.
    """

    NAME = "bounded-memory"

    def __init__(
        self,
        max_entries: int,
        max_weight: int | None = None,
        weigh: Callable[[Any], int] = lambda _: 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(serializer=NullSerializer(), timeout=0)
        self.weight = 0
        self.evictions = 0
        self._max_entries = max_entries
        self._max_weight = max_weight or max_entries
        self._weigh = weigh
        self._clock = clock
        self.values: OrderedDict[str, Any] = OrderedDict()
        self._deadlines: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self.values)

    def peek(self, key: str) -> Any:
        """Return the value and mark it as most recently used; None if there is no value."""
        found = self.values.get(key)
        if found is None:
            return None
        if self._deadlines and self._deadlines.get(key, math.inf) <= self._clock():
            self.drop(key)
            return None
        self.values.move_to_end(key)
        return found

    def put(self, key: str, value: Any, ttl_s: float | None = None) -> None:
        """Store the value, and evict the least recently used ones. A value that is too heavy itself is not stored."""
        self.drop(key)
        weight = self._weigh(value)
        if weight > self._max_weight:
            return
        self.values[key] = value
        if ttl_s is not None:
            self._deadlines[key] = self._clock() + ttl_s
        self.weight += weight
        while len(self.values) > self._max_entries or self.weight > self._max_weight:
            self.drop(next(iter(self.values)))
            self.evictions += 1

    def drop(self, key: str) -> int:
        """Remove the value; return the number of values removed."""
        found = self.values.pop(key, None)
        if found is None:
            return 0
        self._deadlines.pop(key, None)
        self.weight -= self._weigh(found)
        return 1

    def empty(self) -> None:
        self.values.clear()
        self._deadlines.clear()
        self.weight = 0

    async def _get(self, key: str, encoding: str = "", _conn: Any = None) -> Any:  # noqa: ARG002
        return self.peek(key)

    _gets = _get

    async def _multi_get(self, keys: Iterable[str], encoding: str = "", _conn: Any = None) -> list[Any]:  # noqa: ARG002
        return [self.peek(key) for key in keys]

    async def _set(
        self, key: str, value: Any, ttl: float | None = None, _cas_token: Any = None, _conn: Any = None
    ) -> bool:
        if _cas_token is not None and _cas_token != self.peek(key):
            return False
        self.put(key, value, ttl)
        return True

    async def _multi_set(self, pairs: Iterable[tuple[str, Any]], ttl: float | None = None, _conn: Any = None) -> bool:
        for key, value in pairs:
            self.put(key, value, ttl)
        return True

    async def _add(self, key: str, value: Any, ttl: float | None = None, _conn: Any = None) -> bool:
        if self.peek(key) is not None:
            raise ValueError(f"Key {key} already exists, use .set to update the value")
        self.put(key, value, ttl)
        return True

    async def _exists(self, key: str, _conn: Any = None) -> bool:
        return self.peek(key) is not None

    async def _delete(self, key: str, _conn: Any = None) -> int:
        return self.drop(key)

    async def _clear(self, namespace: str | None = None, _conn: Any = None) -> bool:
        for key in [key for key in self.values if key.startswith(namespace or "")]:
            self.drop(key)
        return True
