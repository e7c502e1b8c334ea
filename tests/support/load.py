"""Clients that keep asking, until they are told to stop; whatever they are answered is counted."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import httpx

CLIENTS = 4
PAUSE_S = 0.03
"""Between an answer and the next request: what is asked without pause takes the processor from what is waited for."""
MOST = 50_000
"""No test asks more often than this, however slow what it waits for may be."""
PATIENCE_S = 60


class Load:
    """Several clients that ask one URL again and again for as long as the block lasts.

    ``answers`` counts the statuses, and the names of the errors of those that got no answer.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.url, self._headers = url, headers
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self.answers: Counter[int | str] = Counter()

    def go_on(self, count: int = 100) -> None:
        """Wait until as many more have been answered."""
        wanted, until_s = self.answers.total() + count, time.monotonic() + PATIENCE_S
        while self.answers.total() < wanted:
            assert time.monotonic() < until_s, self.answers
            time.sleep(0.005)

    def _ask(self) -> None:
        with httpx.Client(timeout=PATIENCE_S, headers=self._headers) as client:
            while not self._is_over.is_set() and self.answers.total() < MOST:
                try:
                    answer: int | str = client.get(self.url).status_code
                except httpx.HTTPError as error:
                    answer = type(error).__name__
                with self._lock:
                    self.answers[answer] += 1
                self._is_over.wait(PAUSE_S)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()
