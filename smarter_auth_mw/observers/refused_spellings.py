"""Logs refused spellings at a limited rate: this shows mistakes in ROUTES, and a flood does not fill the log."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from smarter_auth_mw.decision import Denial, Reason
from smarter_auth_mw.log import log
from smarter_auth_mw.tokens import shortened

PAUSE_S = 10
"""The log gets at most one line in this time, with the number of omitted ones."""
SHOWN_CHARS = 400

_PLAIN = re.compile(r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._~-]+){1,8}/?")
ABOUT_SPELLING = frozenset({Reason.NOT_CANONICAL, Reason.AMBIGUOUS})
"""The reasons of denials that ``NearMisses`` counts."""

Resolve = Callable[[Mapping[str, Any]], object]
Remedies = Callable[[str], object]
"""Returns the remedies for a path that names a resource after a later slash; None for other paths."""


class NearMisses:
    """Reports requests that were refused because they can be read two ways, and what to do if that was wrong."""

    def __init__(
        self, resolve: Resolve, remedies: Remedies = lambda _: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.count = 0
        self._resolve = resolve
        self._remedies = remedies
        self._clock = clock
        self._silent_until_s = float("-inf")
        self._logged = 0

    def note(self, denial: Denial, path: str) -> None:
        """Count the denial if its reason is one of these; ``path`` is the requested path."""
        if denial.reason not in ABOUT_SPELLING:
            return
        self.count += 1
        if self._clock() < self._silent_until_s:
            return
        more, self._logged = self.count - self._logged - 1, self.count
        self._silent_until_s = self._clock() + PAUSE_S
        shown = shortened(denial.detail, SHOWN_CHARS)
        log("request.refused", "%s.%s (%d more since the last such line)", shown, self._advice(path), more)

    def _advice(self, path: str) -> str:
        """Return what to write for such a path; empty if something else of the request was refused."""
        if len(path) > SHOWN_CHARS or not _PLAIN.fullmatch(path):
            return ""
        if not isinstance(self._resolve({"type": "http", "path": path, "headers": []}), Denial):
            return ""
        if remedies := self._remedies(path):
            return f" {remedies}"
        return f" If that path is not a resource, add to SMARTER_AUTH_ROUTES: none {path}"
