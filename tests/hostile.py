"""Hostile requests: ordinary ones, mutated; and routers as oracles of what each of them would have opened.

``python -m tests.hostile --count 1000000 --seed 7`` runs them against every oracle and exits 1 if a handler ever ran
for a resource that routing had not named.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from smarter_auth_mw.decision import Denial
from smarter_auth_mw.domain import Target
from tests.support.hostile_hosts import host_oracles, mutated_headers
from tests.support.hostile_oracles import SERVED, Oracle, all_oracles

Scope = dict[str, Any]

_SPELLINGS = """
    +42 042 42.0 4_2 %2042 42%20 %D9%A4%D9%A2 42.json 42%00 -42 0x2a %34%32 42, %2534%2532 %EF%BC%94%EF%BC%92 42;v=1
    42%2F 42%2F7 7%2F42 7%2F..%2F42 42%0d%0a %EF%BB%BF42 4%E2%80%8B2 999999999999999999999999999999 . .. %2e%2e new NEW
    0F8FAD5B-D9CB-469F-A165-70867728950E 0f8fad5bd9cb469fa16570867728950e urn:uuid:0f8fad5b-d9cb-469f-a165-70867728950e
    %7B0f8fad5b-d9cb-469f-a165-70867728950e%7D Sales SALES sales.json sales%20 s%61les %C5%BFales my_bot My-Bot
    rmtawmda0mgx rMTAwMDA0Mgx%3D 4_2.0 0-42 _42 42.0_0 42:run 42,7 rMTAwMDA0Mgx:run
"""
_INSERTIONS = """
    / // /./ /../ /x/../ /%2e%2e/ /%2E./ /..;/ /..;v=1/ /%252e%252e/ /..%2f /..%5c \\ /..\\ %2F %2f %5C %252F %25252F
    %EF%BC%8F %EF%BC%8E%EF%BC%8E/ %E2%80%A5/ ;v=1 ;a=b/.. %3B %00 %0d%0a %09 %20 + # %23 ? %3F %ff %c0%af %C2%AD
    %E2%80%8B %EF%BB%BF %CC%81 . .json % /. /.. /x /bots /42 /7 @ : , %EF%BC%852F %25%25%25%25%25%2541 %2525252541
"""
REFERENCES = ["42", "7", "0f8fad5b-d9cb-469f-a165-70867728950e", "sales", "my-bot", "rMTAwMDA0Mgx", "new", "1", "acme"]
SECOND_SPELLINGS = ["", *_SPELLINGS.split()]
INSERTIONS = [" ", *_INSERTIONS.split()]
LOOKALIKES = {"s": "%C5%BF", "k": "%E2%84%AA", "i": "%C4%B1", "b": "%EF%BD%82", "o": "o%CC%81", "a": "%C3%A1"}
ORIGINS = [
    "http://evil.example",
    "//evil.example",
    "/http://evil.example",
    "http:",
    "\\\\evil.example",
    "/",
    "//",
    "%2F",
]
ORIGINS += ["/;x", "/."]


class Attack(NamedTuple):
    """One mutated request: the target of its request line, and what the server adds to the scope."""

    target: str
    root_path: str = ""
    raw_path: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ((b"host", b"app.example.com"),)

    def scope(self) -> Scope:
        target = self.target.partition("?")[0]
        scope: Scope = {"type": "http", "method": "GET", "path": unquote(target), "root_path": self.root_path}
        raw = target if self.raw_path is None else self.raw_path
        scope["raw_path"] = quote(raw, safe="/%;:@&=+$,!*'()~?#[]\\ ").encode("ascii")
        scope |= {"query_string": b"", "headers": list(self.headers), "http_version": "1.1"}
        return scope | {
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 5),
            "asgi": {"version": "3.0"},
        }


Mutation = Callable[[random.Random, str, Oracle], str]


def _somewhere(rng: random.Random, target: str) -> int:
    return rng.randint(0, len(target))


def insert(rng: random.Random, target: str, _: Oracle) -> str:
    at = _somewhere(rng, target)
    return target[:at] + rng.choice(INSERTIONS) + target[at:]


def insert_at_a_slash(rng: random.Random, target: str, _: Oracle) -> str:
    slashes = [at for at, char in enumerate(target) if char == "/"] or [0]
    at = rng.choice(slashes) + rng.randint(0, 1)
    return target[:at] + rng.choice(INSERTIONS) + target[at:]


def encode_a_character(rng: random.Random, target: str, _: Oracle) -> str:
    at = rng.randrange(max(1, len(target)))
    encoded = "".join(f"%{byte:02{rng.choice('xX')}}" for byte in target[at : at + 1].encode())
    for _round in range(rng.choice([0, 0, 0, 1, 1, 2, 4])):
        encoded = encoded.replace("%", "%25")
    return target[:at] + encoded + target[at + 1 :]


def change_case(rng: random.Random, target: str, _: Oracle) -> str:
    at, end = sorted((_somewhere(rng, target), _somewhere(rng, target)))
    return target[:at] + target[at:end].swapcase() + target[end:]


def look_alike(rng: random.Random, target: str, _: Oracle) -> str:
    letter = rng.choice(list(LOOKALIKES))
    return target.replace(letter, LOOKALIKES[letter], 1)


def change_a_segment(rng: random.Random, target: str, _: Oracle) -> str:
    segments = target.split("/")
    at = rng.randrange(len(segments))
    segments[at] = rng.choice(SECOND_SPELLINGS if rng.random() < 0.7 else REFERENCES)
    return "/".join(segments)


def spell_the_reference_otherwise(rng: random.Random, target: str, _: Oracle) -> str:
    segments = target.split("/")
    places = [at for at, segment in enumerate(segments) if segment in REFERENCES] or [len(segments) - 1]
    segments[rng.choice(places)] = rng.choice(SECOND_SPELLINGS)
    return "/".join(segments)


def append_another(rng: random.Random, target: str, oracle: Oracle) -> str:
    return target + rng.choice(oracle.targets)


def put_in_front(rng: random.Random, target: str, oracle: Oracle) -> str:
    words = [*oracle.prefixes, *oracle.roots, "/public", "/bots/7", "/x"]
    return (rng.choice(ORIGINS) if rng.random() < 0.3 else rng.choice(words)) + target


def drop_or_double_a_segment(rng: random.Random, target: str, _: Oracle) -> str:
    segments = target.split("/")
    at = rng.randrange(len(segments))
    segments[at : at + 1] = [segments[at]] * rng.choice([0, 2])
    return "/".join(segments)


def slash_for_slash(rng: random.Random, target: str, _: Oracle) -> str:
    slashes = [at for at, char in enumerate(target) if char == "/"] or [0]
    at = rng.choice(slashes)
    return target[:at] + rng.choice(["%2F", "%5C", "\\", "//", "%252F", "/./", "/;/", "/%20/"]) + target[at + 1 :]


MUTATIONS: list[Mutation] = [
    insert,
    insert_at_a_slash,
    insert_at_a_slash,
    encode_a_character,
    encode_a_character,
    change_case,
    look_alike,
    change_a_segment,
    spell_the_reference_otherwise,
    append_another,
    put_in_front,
    drop_or_double_a_segment,
    slash_for_slash,
]


def attack(rng: random.Random, oracle: Oracle) -> Attack:
    """An ordinary request to the oracle's app, mutated once to four times."""
    if oracle.hosts:
        return Attack(rng.choice(oracle.targets), headers=mutated_headers(rng, oracle.hosts))
    target = mutated(rng, rng.choice(oracle.targets), oracle)
    raw_path = mutated(rng, rng.choice(oracle.targets), oracle) if rng.random() < 0.05 else None
    if oracle.prefix_header:
        named = (oracle.prefix_header, unquote(rng.choice(oracle.prefixes)).encode("utf-8"))
        return Attack(target, raw_path=raw_path, headers=((b"host", b"app.example.com"), named))
    return Attack(target, rng.choice(oracle.roots), raw_path)


def mutated(rng: random.Random, target: str, oracle: Oracle) -> str:
    """The target after one to four mutations."""
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 4])):
        target = rng.choice(MUTATIONS)(rng, target, oracle)
    return target


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(_: Any) -> None: ...


async def bypass(oracle: Oracle, scope: Scope) -> str | None:
    """What was served though routing had not named it; None where all is well, "refused" where nothing was asked."""
    scope = oracle.front(scope)
    named = oracle.routes.resolve(scope)
    if isinstance(named, Denial):
        return "refused"
    SERVED.clear()
    with suppress(Exception):  # the oracles are made of other people's routers, which may fail as they like
        await oracle.app(dict(scope), _receive, _send)
    # What is named besides passes only where the directory says that both are one.
    targets = (named, named.also) if isinstance(named, Target) else ()
    allowed = {target.lookup.replace("_", "-") for target in targets if target is not None}
    return next((served for served in SERVED if served not in allowed), None)


class Tally(NamedTuple):
    """How a run went: outcomes by name, and every bypass found."""

    outcomes: Counter[str]
    bypasses: list[str]


async def run(oracles: Sequence[Oracle], count: int, seed: int, *, stop_at: int = 10) -> Tally:
    """``count`` attacks in all, shared out among the oracles by their weights."""
    tally = Tally(Counter(), [])
    whole = sum(oracle.weight for oracle in oracles)
    for oracle in oracles:
        rng = random.Random(f"{seed} {oracle.name}")
        for _ in range(count * oracle.weight // whole):
            attempt = attack(rng, oracle)
            served = await bypass(oracle, attempt.scope())
            tally.outcomes["refused" if served == "refused" else "served" if SERVED else "reached nothing"] += 1
            if served not in (None, "refused"):
                tally.bypasses.append(f"{oracle.name}: {attempt} served {served}")
                if len(tally.bypasses) >= stop_at:
                    return tally
    return tally


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    began_s = time.perf_counter()
    oracles = [*all_oracles(), *host_oracles()]
    tally = asyncio.run(run(oracles, options.count, options.seed))
    print(
        f"{sum(tally.outcomes.values())} requests, seed {options.seed}, {len(oracles)} oracles: {dict(tally.outcomes)}"
    )
    print(f"{len(tally.bypasses)} bypasses in {time.perf_counter() - began_s:.1f} s", *tally.bypasses, sep="\n")
    return 1 if tally.bypasses else 0


if __name__ == "__main__":
    sys.exit(main())
