"""Filters and formats for a server's log: no query strings, and nothing that looks like a token.

The middleware reads tokens from headers only. But people put tokens into URLs anyway, and logs keep them for years.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from smarter_auth_mw.errors import counted
from smarter_auth_mw.tokens import hidden

PAUSE_S = 10.0
NOT_ACCEPTED = "socket.accept() out of system resource"
"""The beginning of asyncio's log line."""
NOT_ACCEPTED_TEXT = (
    "Connections cannot be accepted: %s (%s since the last such line). Raise the limit of the process: "
    "ulimit -n, or LimitNOFILE= in its systemd unit."
)


class WithoutTokens(logging.Filter):
    """Hides the query of each path, and everything that looks like a token, in all records.

    For a handler: ``handler.addFilter(WithoutTokens())``, or ``"()": "smarter_auth_mw.access_log.WithoutTokens"`` among
    the filters of a logging configuration.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean the record and let it pass."""
        if isinstance(record.args, tuple):
            record.args = tuple(_cleaned(argument) for argument in record.args)
        record.msg = hidden(record.msg) if isinstance(record.msg, str) else record.msg
        return True


class WithoutFloods(logging.Filter):
    """Lets one of asyncio's lines about connections that it cannot accept pass every ten seconds.

    When descriptors run out, asyncio writes thousands of tracebacks per second. For its logger:
    ``logging.getLogger("asyncio").addFilter(WithoutFloods())``.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._silent_until_s = float("-inf")
        self._count = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record pass, shortened, unless it is one of many."""
        text = str(record.msg)
        if text.startswith("Exception in callback ") and "_start_serving(" in text:
            return False  # asyncio retries once per such line, a second later: the socket may be closed by then.
        if not text.startswith(NOT_ACCEPTED):
            return True
        self._count += 1
        if self._clock() < self._silent_until_s:
            return False
        why = record.exc_info[1] if record.exc_info else None
        record.msg, record.args = (
            NOT_ACCEPTED_TEXT,
            (getattr(why, "strerror", None) or "no resources", counted(self._count, "time")),
        )
        record.exc_info = record.exc_text = None
        self._silent_until_s, self._count = self._clock() + PAUSE_S, 0
        return True


class OnlyUnhandled(logging.Filter):
    """Lets records pass unless the app has configured the root logger, which would write each of them again."""

    def filter(self, _: logging.LogRecord) -> bool:
        """Return whether the app leaves the record to the server's handler."""
        return not logging.getLogger().handlers


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object in one line: time (UTC), level, logger, event if it has one, and message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object as text."""
        moment = datetime.fromtimestamp(record.created, UTC)
        fields = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", None),
            "message": record.getMessage(),
            "exception": hidden(self.formatException(record.exc_info)) if record.exc_info else None,
        }
        return json.dumps({name: value for name, value in fields.items() if value is not None}, ensure_ascii=False)


def uvicorn_config(*, as_json: bool = False) -> dict[str, Any]:
    """Return a logging configuration for uvicorn: time and level in each line, no token, and no flood of lines.

    The lines of this package go to uvicorn's handler too, unless the app configures logging of its own.
    """
    from uvicorn.config import LOGGING_CONFIG

    config: dict[str, Any] = deepcopy(LOGGING_CONFIG)
    for formatter in config["formatters"].values():
        formatter["fmt"] = f"%(asctime)s {formatter['fmt']}"
    if as_json:
        config["formatters"] = {name: {"()": f"{__name__}.{JsonLines.__name__}"} for name in config["formatters"]}
    config["filters"] = {
        "without_tokens": {"()": f"{__name__}.{WithoutTokens.__name__}"},
        "without_floods": {"()": f"{__name__}.{WithoutFloods.__name__}"},
        "only_unhandled": {"()": f"{__name__}.{OnlyUnhandled.__name__}"},
    }
    for handler in config["handlers"].values():
        handler["filters"] = ["without_tokens"]
    config["handlers"]["own"] = config["handlers"]["default"] | {"filters": ["without_tokens", "only_unhandled"]}
    config["loggers"]["smarter_auth_mw"] = {"handlers": ["own"]}
    config["loggers"]["asyncio"] = {"filters": ["without_floods"]}
    return config


def _cleaned(argument: Any) -> Any:
    if not isinstance(argument, str):
        return argument
    path, mark, _ = argument.partition("?")
    return hidden(f"{path}?…" if mark and path.startswith("/") else argument)
