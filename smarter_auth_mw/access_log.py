"""What a server writes down of requests, without their query strings and without anything that looks like a token.

Tokens are taken from headers alone. But people put them into URLs all the same, and a log keeps them for years.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from smarter_auth_mw.tokens import hidden

PAUSE_S = 10.0
NOT_ACCEPTED = "socket.accept() out of system resource"
"""How asyncio's line begins."""
NOT_ACCEPTED_TEXT = (
    "Connections cannot be accepted: %s (%d times since the last such line). Raise the limit of the process: "
    "ulimit -n, or LimitNOFILE= in its systemd unit."
)


class WithoutTokens(logging.Filter):
    """Hides, in whatever record passes, the query of each path and what looks like a token.

    For a handler: ``handler.addFilter(WithoutTokens())``, or ``"()": "smarter_auth_mw.access_log.WithoutTokens"`` among
    the filters of a logging configuration.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it pass, cleaned."""
        if isinstance(record.args, tuple):
            record.args = tuple(_cleaned(argument) for argument in record.args)
        record.msg = hidden(record.msg) if isinstance(record.msg, str) else record.msg
        return True


class WithoutFloods(logging.Filter):
    """Lets one line in ten seconds pass of those that asyncio writes about connections that it cannot accept.

    Without descriptors it writes thousands of tracebacks a second. For its logger:
    ``logging.getLogger("asyncio").addFilter(WithoutFloods())``.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._silent_until_s = float("-inf")
        self._count = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it pass, shortened, if it is not one of many."""
        text = str(record.msg)
        if text.startswith("Exception in callback ") and "_start_serving(" in text:
            return False  # It tries again a second later, once for each such line: the socket may be closed by then.
        if not text.startswith(NOT_ACCEPTED):
            return True
        self._count += 1
        if self._clock() < self._silent_until_s:
            return False
        why = record.exc_info[1] if record.exc_info else None
        record.msg, record.args = NOT_ACCEPTED_TEXT, (getattr(why, "strerror", None) or "no resources", self._count)
        record.exc_info = record.exc_text = None
        self._silent_until_s, self._count = self._clock() + PAUSE_S, 0
        return True


def uvicorn_config() -> dict[str, Any]:
    """uvicorn's own logging configuration, with the filters on all that it and asyncio write."""
    from uvicorn.config import LOGGING_CONFIG

    config: dict[str, Any] = deepcopy(LOGGING_CONFIG)
    config["filters"] = {"without_tokens": {"()": f"{__name__}.{WithoutTokens.__name__}"}}
    for handler in config["handlers"].values():
        handler["filters"] = ["without_tokens"]
    config["filters"]["without_floods"] = {"()": f"{__name__}.{WithoutFloods.__name__}"}
    config["loggers"]["asyncio"] = {"filters": ["without_floods"]}
    return config


def _cleaned(argument: Any) -> Any:
    if not isinstance(argument, str):
        return argument
    path, mark, _ = argument.partition("?")
    return hidden(f"{path}?…" if mark and path.startswith("/") else argument)
