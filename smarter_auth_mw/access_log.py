"""What a server writes down of requests, without their query strings and without anything that looks like a token.

Tokens are taken from headers alone. But people put them into URLs all the same, and a log keeps them for years.
"""

from __future__ import annotations

import logging
from copy import deepcopy
from typing import Any

from smarter_auth_mw.tokens import hidden


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


def of_uvicorn() -> dict[str, Any]:
    """uvicorn's own logging configuration, with the filter on all that it writes."""
    from uvicorn.config import LOGGING_CONFIG

    config: dict[str, Any] = deepcopy(LOGGING_CONFIG)
    config["filters"] = {"without_tokens": {"()": f"{__name__}.{WithoutTokens.__name__}"}}
    for handler in config["handlers"].values():
        handler["filters"] = ["without_tokens"]
    return config


def _cleaned(argument: Any) -> Any:
    if not isinstance(argument, str):
        return argument
    path, mark, _ = argument.partition("?")
    return hidden(f"{path}?…" if mark and path.startswith("/") else argument)
