"""The log: each line begins with the stable name of an event, which is also the record's ``event``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal, get_args

from smarter_auth_mw.tokens import hidden

Event = Literal[
    "admin.failed",
    "audit.lost",
    "audit.not_written",
    "audit.recovered",
    "domain.ignored",
    "gate.misread",
    "keys.not_counted",
    "listener.flooded",
    "listener.lost",
    "listener.recovered",
    "lookups.refused",
    "app.unknown",
    "metrics.not_shared",
    "metrics.one_worker",
    "mounts.unknown",
    "observer.failed",
    "request.refused",
    "routes.missing",
    "routes.refused",
    "settings.mistaken",
    "server.changed",
    "server.deposed",
    "server.found",
    "server.silent",
    "shared.not_closed",
    "shared.recovered",
    "shared.unavailable",
    "store.embedded",
    "store.not_purged",
    "store.recovered",
    "store.stale",
    "store.unavailable",
    "throttle.failed",
    "throttle.recovered",
    "triggers.missing",
    "triggers.restored",
    "usage.lost",
    "usage.not_written",
    "usage.recovered",
]
EVENTS: tuple[Event, ...] = get_args(Event)

_LEVELS: Mapping[str, int] = {
    "settings.mistaken": logging.ERROR,
    "store.unavailable": logging.ERROR,
    "gate.misread": logging.ERROR,
    "admin.failed": logging.ERROR,
    "app.unknown": logging.INFO,
    "server.found": logging.INFO,
    "usage.lost": logging.ERROR,
    "audit.lost": logging.ERROR,
    "store.embedded": logging.INFO,
    "store.not_purged": logging.INFO,
    "keys.not_counted": logging.INFO,
    "observer.failed": logging.DEBUG,
    "shared.not_closed": logging.DEBUG,
}

logger = logging.getLogger("smarter_auth_mw")


def level_of(event: Event) -> int:
    """Return the level of an event: WARNING unless another one is set."""
    return _LEVELS.get(event, logging.WARNING)


def log(event: Event, text: str = "", *arguments: object, exc_info: bool = False) -> None:
    """Write a line; everything that looks like a token is hidden, since clients may put one anywhere."""
    level = level_of(event)
    if logger.isEnabledFor(level):
        message = hidden(text % arguments if arguments else text)
        logger.log(
            level, f"{event}: {message}" if message else event, exc_info=exc_info, extra={"event": event}, stacklevel=2
        )


def printable(text: str) -> str:
    """Return the text with invisible characters escaped: controls, bidirectional marks, line breaks."""
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
