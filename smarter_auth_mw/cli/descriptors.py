"""File descriptors of a server: raise their limit as far as allowed, and report when none is left."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress

from smarter_auth_mw.errors import UsageError

FEWEST = 64
"""The lowest limit to start with: the database, the shared cache, the event loop, and some clients."""
MOST = 65_536
"""The highest limit to set; each client needs one descriptor."""
CHECK_EVERY_S = 1
PAUSE_S = 10.0
HINT = "Raise the limit of the process: ulimit -n, or LimitNOFILE= in its systemd unit."


def raise_limit() -> None:
    """Raise the process's limit up to its hard limit; raises UsageError if that is too low to serve."""
    try:
        import resource
    except ImportError:  # The module does not exist on Windows.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft < wanted:
        with suppress(OSError, ValueError):  # macOS may have a lower limit of its own.
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft < FEWEST:
        raise UsageError(f"This process may open {soft} files, and serving needs at least {FEWEST}.", hint=HINT)


class ExhaustionReport:
    """Logs one line every ten seconds while no descriptor is left.

    uvloop then closes new connections without a word.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._silent_until_s = float("-inf")

    async def __call__(self) -> None:
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE) and self._clock() >= self._silent_until_s:
                self._silent_until_s = self._clock() + PAUSE_S
                text = "Connections cannot be accepted: %s. %s"
                logging.getLogger("uvicorn.error").error(text, error.strerror, HINT)
