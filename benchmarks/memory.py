"""Measure the memory of a warm entry: 100,000 resources with one binding each, in the real cache.

    python -m benchmarks.memory [--entries 100000]

The figure is the growth of the process's resident memory, divided by the number of entries. It includes the keys,
strings and indexes of an entry, and everything that Python and its allocator add. An entry that has granted keeps what
it granted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
from hashlib import sha256
from pathlib import Path
from sys import intern
from uuid import uuid4

from benchmarks.measuring import Row, row, show
from smarter_auth_mw.authentication.authenticator import Authenticator
from smarter_auth_mw.cache.changes import Changes
from smarter_auth_mw.cache.entries import Cache, Limits
from smarter_auth_mw.decision import Grant
from smarter_auth_mw.domain import Binding, Bindings, Protection, Resource, Target
from smarter_auth_mw.http.credentials import Extractor
from smarter_auth_mw.postgres.store import Read
from smarter_auth_mw.tokens import Token

PAGE_BYTES = 4096
WARM_UP = 1_000
FILLS_A_SNAPSHOT = 100
"""The number of resources that are read between two writes."""


class Source:
    """Return the bindings that the store builds from the rows of such a resource."""

    async def read(self, target: Target) -> Read:
        asked = target.names
        assert isinstance(asked, Resource)
        token = Token(_token(asked.ref))
        key_id, ref = str(uuid4()), f"{asked.ref}"
        bound = Binding(key_id, f"key {ref}", "default", token.digest, token.token_key)
        facts = Bindings(Resource(asked.kind, ref), "default", Protection.BOUND, "stale", (bound,))
        sources = (f"resource:{asked.lookup}", f"bindings:{ref}", intern("account:default"), f"key:{key_id}")
        snapshot = int(ref) // FILLS_A_SNAPSHOT
        return Read(facts, f"{snapshot}:{snapshot}:", sources)


def _token(ref: str) -> bytes:
    return sha256(ref.encode()).hexdigest().encode()


async def measure(entries: int) -> list[Row]:
    cache = Cache(Source(), Limits(1e9, max_staleness_s=1e9, max_entries=entries + WARM_UP), Changes())
    authenticator = Authenticator(cache)
    for ref in range(1, WARM_UP + 1):  # What is made once, whatever the number of entries.
        await authenticator.authenticate(Target(Resource("warm_up", str(ref))), None)
    before = resident_bytes()
    for ref in range(1, entries + 1):
        await authenticator.authenticate(Target(Resource("bot", str(ref))), None)
    assert cache.sizes.known == entries + WARM_UP
    read = resident_bytes()
    extractor = Extractor(("token", "bearer", "x-api-key"))
    for ref in range(1, entries + 1):
        headers = [(b"authorization", b"Token " + _token(str(ref)))]
        assert isinstance(authenticator.warm(Target(Resource("bot", str(ref))), headers, extractor), Grant)
    granted = resident_bytes()
    return [
        row("memory of a warm entry with one binding, in KiB", [(read - before) / entries / 1024], 1.0),
        row("the same after it has granted", [(granted - before) / entries / 1024], None),
    ]


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    show(asyncio.run(measure(parser.parse_args().entries)))


if __name__ == "__main__":
    main()
