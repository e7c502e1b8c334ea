"""Measure a warm grant with each kind of observer, relative to one without.

    python -m benchmarks.observing [--rounds 120]

All observers are off by default; ``benchmarks.in_process`` measures that case.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

from benchmarks.in_process import CREDENTIALS, block, guarded
from benchmarks.measuring import Row, in_turn, medians, row, show
from smarter_auth_mw import SmarterAuthMiddleware, signals
from smarter_auth_mw.http.status_pages import PagedApp, Pages, StatusPage
from smarter_auth_mw.observers import tracing
from smarter_auth_mw.signals import authentication_success


async def _page() -> StatusPage:
    return StatusPage(b"{}")


def paged() -> SmarterAuthMiddleware:
    """With all status pages on."""
    middleware = guarded()
    middleware.app = PagedApp(middleware.app, Pages(dict.fromkeys(("/livez", "/readyz", "/metrics"), _page)))
    return middleware


def signalling() -> SmarterAuthMiddleware:
    """With one receiver of grants; middlewares that were created earlier send no signals."""
    signals._silent.clear()
    authentication_success.connect(_heard)
    return guarded()


def _heard(_: Any, **told: Any) -> None:
    """Receive a signal, and do nothing."""


def traced() -> SmarterAuthMiddleware:
    """Within a span that is recorded."""
    middleware = guarded()
    middleware._guard._observers.add(tracing.observe)
    return middleware


def in_span(side: Any) -> Any:
    """Call the app within a span, as an instrumentation does."""
    tracer = TracerProvider().get_tracer("server")

    async def run(*arguments: Any) -> None:
        with tracer.start_as_current_span("request"):
            await side(*arguments)

    return run


async def measure(rounds: int) -> list[Row]:
    plain = guarded()
    sides = {
        "off": block(plain, "/bots/1", CREDENTIALS),
        "pages": block(paged(), "/bots/1", CREDENTIALS),
        "off in a span": block(in_span(plain), "/bots/1", CREDENTIALS),
        "traced": block(in_span(traced()), "/bots/1", CREDENTIALS),
    }
    sides["signals"] = block(signalling(), "/bots/1", CREDENTIALS)
    taken = await in_turn(sides, rounds)
    print("µs a call:", ", ".join(f"{name} {figure:.2f}" for name, figure in medians(taken).items()), file=sys.stderr)

    def over(side: str, below: str, target: float, what: str) -> Row:
        return row(what, [one / base for one, base in zip(taken[side], taken[below], strict=True)], target)

    return [
        over("pages", "off", 1.2, "all pages on, over a warm grant without"),
        over("traced", "off in a span", 2.0, "attributes on a recording span, over the same span without"),
        over("signals", "off", 3.0, "a receiver of signals, over a warm grant without"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=120)
    show(asyncio.run(measure(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
