"""Progress of long commands: a bar on stderr, if that is a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Bar:
    """A progress bar with named steps."""

    def __init__(self, shown: Any) -> None:
        self._shown = shown
        self._task = shown.add_task("", total=None)

    def step(self, name: str, total: int | None = None) -> None:
        """Begin another step; without a total, its length is unknown."""
        self._shown.remove_task(self._task)
        self._task = self._shown.add_task(name, total=total)

    def at(self, done: int) -> None:
        self._shown.update(self._task, completed=done)

    def advance(self, more: int = 1) -> None:
        self._shown.advance(self._task, more)

    def hide(self) -> None:
        """Hide the bar while something else is printed."""
        self._shown.stop()


@contextmanager
def bar() -> Iterator[Bar]:
    """Show a bar while the block runs; it is erased afterwards."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not console.is_terminal,
    ) as shown:
        yield Bar(shown)
