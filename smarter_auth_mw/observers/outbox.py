"""Batches on their way to the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Outbox(Generic[T]):
    """Keeps a batch until the store has confirmed it, and resends it unchanged, since it may have been written already.

    Each batch has an id, so that the store recognizes it.
    """

    def __init__(self, take: Callable[[], Iterable[T]]) -> None:
        self._take = take
        self._kept: list[T] = []

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self._kept))

    async def flush(self, write: Callable[[T], Awaitable[None]]) -> None:
        """Write the kept batches, then new ones; if ``write`` raises, keep the rest and raise."""
        await self._write_all(write)
        self._kept.extend(self._take())
        await self._write_all(write)

    def forget(self) -> None:
        """Discard everything."""
        self._kept = []

    async def _write_all(self, write: Callable[[T], Awaitable[None]]) -> None:
        while True:
            try:
                batch = self._kept.pop(0)
            except IndexError:  # Not checked before, since another event loop may be faster.
                return
            try:
                await write(batch)
            except BaseException:
                self._kept.insert(0, batch)
                raise
