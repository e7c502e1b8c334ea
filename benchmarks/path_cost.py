"""Search for the most expensive input that a client can send, and compare it with a plain input of the same length.

    python -m benchmarks.path_cost [--seconds 4] [--seed 1] [--only path]

The inputs are paths, hosts, credentials and other headers, from 500 to 64,000 characters long. For each kind and
length, the search builds inputs from awkward fragments, mutates them, and keeps the most expensive ones. It then
measures the worst of them and a plain input in turn. Times are processor time of this thread, the minimum of several
calls, so that other load on the machine matters little. Exits with 1 if an input costs more than 2 ms, or more than 20
times a plain one. ``python -m benchmarks path_cost`` publishes the most that is found at each length.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple
from urllib.parse import quote, unquote

from benchmarks.measuring import Row, row, show
from smarter_auth_mw.gate.dialects import NGINX, MisreadError
from smarter_auth_mw.http.credentials import Extractor, without_subprotocol
from smarter_auth_mw.http.peers import Peers
from smarter_auth_mw.routing.routes import Routes

MOST_TIMES, MOST_MS = 20.0, 2.0
LENGTHS = (500, 1000, 2000, 4000, 8000, 16_000, 64_000)
ROUNDS = 25

README = ["bot /bots/{ref:int}"]
PRESETS = ["preset:smarter", "preset:smarter-chatbot"]
MANY = [f"kind{n} /api/v1/word{n}/{{account}}/more{n % 7}/{{ref}}" for n in range(100)]
MANY += [f"other{n} /word{n}/{{ref:hashed}}" for n in range(100)]
HOSTS = ["bot host:{label}.{account}.api.example.com", "bot host:{label}.{account}.alpha.api.example.com"]

PATH_FRAGMENTS = """
    / // /// /. /.. /./ /../ /a /a/a /x// //x //g0 /; /;x ;x ;x=1/ \\ \\x %5C /%20 %20 # /# #x ? %3F %00 /%00x %0d
    %7f %2F %2f % %% %2 %25 %2525 %25252562 %252525252562 %2525C3%25A9 %EF%BC%85 %EF%BC%8F %C3%A9 e%CC%81
    %CC%81%CC%96 %E4%B8%80 %EF%B7%BA %E3%8C%80 %F0%9F%98%80 %ED%95%9C %E1%BC%80 %C4%B0 %CF%82 %ff %c0%af %E2%80%8B
    %EF%BF%BD %E1%85%9F %D9%A4 %EF%BC%94 /bots /bots/ /bots/x /bots/42 /BOTS /B%6Fts /b%256Fts/ /42 /042 /+4_2
    /4.2e1 /rMTAwMDA0Mgx /0f8fad5bd9cb469fa16570867728950e /api /api/v1 /api/v1/ /v1 /cli /cli/prompt /prompt
    /config /chatbots /chatbots/smarter /llm-clients /workbench /none /segment /word1 /word2 /word3/acme/more3/
    /word99 /more1 /more2 /api/v1/word1/%2F/more1/x /workbench/api /account
"""
HOST_FRAGMENTS = """
    a . a. .a , ,a , a:1 :80 api.example.com .api.example.com hr.acme.api.example.com, a.b.c.d. [::1] [ ] % ;
    ;host=a host= host="a.b" for=1;host=a.b, example com . .. -- _ A X.Y.Z " \\ = é
"""
TOKEN_FRAGMENTS = """
    Token Bearer token , ,token ,bearer ,Token\t , a A= / + ~ \t smarter-auth smarter-auth, ,smarter-auth,
    x,smarter-auth, ,, , x 1.2.3.4 1.2.3.4, ::1, [::1]:80, for=1, for="[::1]:1", ;for= " =
"""


@dataclass(frozen=True, slots=True)
class Surface:
    """One kind of input: the function that processes it, fragments to build it from, and a plain example."""

    name: str
    take: Callable[[str], Callable[[], object]]
    fragments: Sequence[str]
    plain: Callable[[int], str]

    @property
    def part(self) -> str:
        """The part of a request that a client fills with it."""
        return "path" if self.plain is plain_path else "header"


def plain_path(length: int) -> str:
    return ("/segment" * (length // 8 + 1))[:length]


def plain_word(length: int) -> str:
    return "a" * length


def paths(name: str, lines: Sequence[str], *, root_path: str = "", mounts: Sequence[str] = ()) -> list[Surface]:
    """Return the surfaces of a path: as a server passes it on, decoded, and as the raw path of a proxy."""
    routes = Routes.parse(lines, mounts=mounts)

    def resolved(path: str, raw: bytes | None) -> Callable[[], object]:
        scope: dict[str, object] = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": raw,
            "root_path": root_path,
            "headers": [],
        }

        def run() -> object:
            routes.memo.young.clear()
            return routes.resolve(scope)

        return run

    def target(text: str) -> Callable[[], object]:
        return resolved(unquote(text.partition("?")[0]), text.encode("utf-8", "replace"))

    def decoded(text: str) -> Callable[[], object]:
        path = (unquote(text) * 3)[: len(text)]
        return resolved(path, quote(path, safe="/;:@&=+$,!*'()~").encode())

    def raw(text: str) -> Callable[[], object]:
        return resolved("/x", text.encode("utf-8", "replace"))

    def query(text: str) -> Callable[[], object]:
        return resolved("/x", b"/x?" + text.encode("utf-8", "replace"))

    ways = {"target": target, "path": decoded, "raw path": raw, "query in raw path": query}
    fragments = PATH_FRAGMENTS.split()
    return [Surface(f"{way}, {name}", take, fragments, plain_path) for way, take in ways.items()]


def in_header(
    name: bytes, read: Callable[[list[tuple[bytes, bytes]]], object]
) -> Callable[[str], Callable[[], object]]:
    def take(text: str) -> Callable[[], object]:
        headers = [(b"host", b"hr.acme.api.example.com"), (name, text.encode("latin-1", "replace"))]
        headers = headers if name != b"host" else headers[1:]
        return lambda: read(headers)

    return take


def hosts() -> list[Surface]:
    routes = Routes.parse(HOSTS)
    routes.replace_domains([("foo.net", "bot"), ("a.b.c.d.e.foo.org", "bot")])

    def read(headers: list[tuple[bytes, bytes]]) -> object:
        routes._hosts._memo.young.clear()
        return routes.resolve({"path": "/", "raw_path": b"/", "root_path": "", "headers": headers})

    names = (b"host", b"x-forwarded-host", b"forwarded")
    return [Surface(name.decode(), in_header(name, read), HOST_FRAGMENTS.split(), plain_word) for name in names]


def credentials() -> list[Surface]:
    extract = Extractor(("token", "bearer", "x-api-key", "subprotocol"))
    peers = Peers(["127.0.0.1", "10.0.0.0/8", "::1"])

    def network(headers: list[tuple[bytes, bytes]]) -> object:
        return peers.network({"client": ("127.0.0.1", 1), "headers": headers})

    def subprotocols(headers: list[tuple[bytes, bytes]]) -> object:
        return extract(headers), without_subprotocol(headers)

    reads: dict[bytes, Callable[[list[tuple[bytes, bytes]]], object]] = {
        b"authorization": extract,
        b"x-api-key": extract,
        b"sec-websocket-protocol": subprotocols,
        b"x-forwarded-for": network,
        b"forwarded": network,
    }
    return [
        Surface(
            f"{name.decode()}, of {read.__class__.__name__}", in_header(name, read), TOKEN_FRAGMENTS.split(), plain_word
        )
        for name, read in reads.items()
    ]


def gate() -> list[Surface]:
    routes = Routes.parse(README)

    def take(text: str) -> Callable[[], object]:
        headers = [
            (b"x-original-uri", text.encode("latin-1", "replace")),
            (b"x-original-method", b"GET"),
            (b"host", b"x"),
        ]
        scope = {"method": "GET", "raw_path": b"/", "query_string": b"", "headers": headers, "client": None}

        def run() -> None:
            routes.memo.young.clear()
            with suppress(MisreadError):
                routes.resolve(NGINX.read(scope))

        return run

    return [Surface("gate", take, PATH_FRAGMENTS.split(), plain_path)]


def surfaces() -> list[Surface]:
    mounted = paths("README, mounts, root_path", README, root_path="/svc", mounts=["/a", "/u/{user}", "/api/v1"])
    routes = [*paths("README", README), *paths("presets", PRESETS), *paths("200 lines", MANY), *mounted]
    return [*routes, *hosts(), *credentials(), *gate()]


def cost(call: Callable[[], object], times: int = 3) -> float:
    """Return the processor time of one call in µs: the minimum of several."""
    least = float("inf")
    for _ in range(times):
        began = time.thread_time_ns()
        call()
        least = min(least, time.thread_time_ns() - began)
    return least / 1000


Genome = list[str]


def written(genome: Genome, length: int) -> str:
    """Join the fragments, and repeat them until the text has the given length."""
    whole = "".join(genome) or "/"
    text = (whole * (length // len(whole) + 1))[:length]
    return text if text.startswith("/") or "/" not in whole else "/" + text[1:]


def mutated(rng: random.Random, genome: Genome, fragments: Sequence[str]) -> Genome:
    genome = list(genome)
    at, end = sorted((rng.randint(0, len(genome)), rng.randint(0, len(genome))))
    match rng.randrange(6):
        case 0:
            genome[at:at] = [rng.choice(fragments)] * rng.choice([1, 1, 2, 8, 60, 500])
        case 1:
            del genome[at:end]
        case 2:
            genome[at:at] = genome[at:end]
        case 3:
            genome[at:end] = [rng.choice(fragments) for _ in range(rng.randint(1, 8))]
        case 4:
            rng.shuffle(genome)
        case _:
            genome += rng.choices(fragments, k=rng.randint(1, 30))
    return genome[:3000]


def costliest(surface: Surface, length: int, seconds: float, rng: random.Random) -> str:
    """Return the most expensive input that a hill climb with several starting points finds in the given time."""
    best: list[tuple[float, str, Genome]] = [(0.0, surface.plain(length), [])]
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        parent = rng.choice(best)[2] if rng.random() < 0.8 else []
        genome = mutated(rng, parent, surface.fragments)
        for _ in range(rng.choice([0, 0, 1, 3])):
            genome = mutated(rng, genome, surface.fragments)
        text = written(genome, length)
        best = sorted([*best, (cost(surface.take(text), 2), text, genome)], key=lambda one: -one[0])[:12]
    return max(best, key=lambda one: cost(surface.take(one[1]), 9))[1]


class Found(NamedTuple):
    """The most expensive input of one kind and length, relative to a plain one, and its processor time."""

    surface: Surface
    length: int
    row: Row
    least_ms: float


async def by_length(seconds: float) -> list[Row]:
    """Return two rows for the paths of each length and two for the headers; each call searches from another seed."""
    found = sorted(measure(seconds, random.randrange(1_000_000)), key=_by_part)
    grouped = itertools.groupby(found, _by_part)
    return [one for (part, length), same in grouped for one in _rows(f"a {part} of {length:,} characters", list(same))]


def _by_part(found: Found) -> tuple[str, int]:
    return found.surface.part, found.length


def _rows(what: str, found: Sequence[Found]) -> list[Row]:
    """Return how many times the time of a plain input the worst one takes, and the longest time."""
    costliest_row = max((one.row for one in found), key=lambda one: one.median)
    return [
        replace(costliest_row, what=f"{what}, over a plain one as long", note=costliest_row.what),
        row(f"{what}, in ms", [max(one.least_ms for one in found)], MOST_MS),
    ]


def measure(seconds: float, seed: int, only: str = "") -> list[Found]:
    """Search for the most expensive input of each kind and length, for that many seconds of processor time each."""
    gc.disable()
    try:
        return list(_searched(seconds, seed, only))
    finally:
        gc.enable()


def _searched(seconds: float, seed: int, only: str) -> Iterator[Found]:
    for surface, length in itertools.product((one for one in surfaces() if only in one.name), LENGTHS):
        text = costliest(surface, length, seconds, random.Random(f"{seed} {surface.name} {length}"))
        evil, plain = surface.take(text), surface.take(surface.plain(length))
        taken = [(cost(evil), cost(plain)) for _ in range(ROUNDS)]
        least_ms = min(one for one, _ in taken) / 1000
        found = row(
            f"{surface.name}, {length}",
            [one / other for one, other in taken],
            MOST_TIMES,
            note=f"{least_ms:.3f} ms: {text[:150]!a}",
        )
        show([found])
        yield Found(surface, length, found, least_ms)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="seconds to search for each kind and length")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="only kinds whose name contains this text")
    arguments = parser.parse_args()
    rows = _rows("the worst of all", measure(arguments.seconds, arguments.seed, arguments.only))
    show(rows)
    return 0 if all(one.is_met for one in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
