"""Workers behind one port publish their metrics in one file each, so that any of them reports for all."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from smarter_auth_mw.log import log
from smarter_auth_mw.metrics import samples as figures
from smarter_auth_mw.metrics.samples import METRICS, Figures

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's variable: a directory that must be empty when the first worker starts."""
OWN_VARIABLE = "_SMARTER_AUTH_METRICS_DIR"
"""Set by `serve` and `gate` for their workers; prometheus_client, which the app may use too, does not read it."""
EVERY_S = 2.0
GONE_AFTER_S = 10.0
"""A worker whose file is older than this has ended: its counters still count, its gauges do not."""

_names: dict[int, str] = {}


def directory() -> Path | None:
    """Return the shared directory of the workers; None if each worker is by itself."""
    place = os.environ.get(VARIABLE) or os.environ.get(OWN_VARIABLE)
    return Path(place) if place else None


@contextmanager
def own_directory() -> Iterator[None]:
    """Create a directory for the workers of this process, unless one is set, and remove it at the end."""
    if directory() is not None:
        yield
        return
    with TemporaryDirectory(prefix="smarter_auth_") as place:
        os.environ[OWN_VARIABLE] = place
        try:
            yield
        finally:
            del os.environ[OWN_VARIABLE]


def warn_of_one_worker() -> None:
    """Log once that a scrape shows the metrics of one worker, if there may be several."""
    is_worker = multiprocessing.parent_process() is not None or "gunicorn.arbiter" in sys.modules
    if is_worker and directory() is None and not _is_warned:
        _is_warned.append(True)
        log(
            "metrics.one_worker",
            "METRICS_PATH shows what this worker has counted; if several workers share the port, set %s to an empty"
            " directory, or start them with smarter-auth serve --workers",
            VARIABLE,
        )


_is_warned: list[bool] = []


async def publishing() -> None:
    """Publish the metrics every few seconds until cancelled, and the counters at the end."""
    if directory() is None:
        return
    is_shared = True
    try:
        while True:
            is_shared = publish(figures.samples_of_all(), tells=is_shared)
            await asyncio.sleep(EVERY_S)
    finally:
        publish(figures.only_counted(figures.samples_of_all()), tells=is_shared)


def publish(own: Figures, *, tells: bool = True) -> bool:
    """Write this worker's file, and return whether that worked; if not, the others do without it.

    ``tells`` is whether to log the error.
    """
    place = directory()
    if place is None:
        return True
    path = place / _name()
    try:
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(json.dumps({name: list(values.items()) for name, values in own.items()}), "utf-8")
        unfinished.replace(path)
    except OSError as error:
        if tells:
            log("metrics.not_shared", "%s", error)
        return False
    return True


def with_others(own: Figures) -> Figures:
    """Return the merged metrics of this process and of all other workers' files."""
    place = directory()
    return own if place is None else figures.merged([own, *_others(place)])


def _others(place: Path) -> Iterator[Figures]:
    for path in place.glob("smarter_auth_*.json"):
        if path.name == _name():
            continue
        try:
            read_figures, is_gone = _read(path.read_text("utf-8")), time.time() - path.stat().st_mtime > GONE_AFTER_S
        except (OSError, ValueError):
            continue
        yield figures.only_counted(read_figures) if is_gone else read_figures


def _read(text: str) -> Figures:
    """Parse another worker's metrics, and drop those that only another release knows."""
    return {
        name: {tuple(labels): value for labels, value in values}
        for name, values in json.loads(text).items()
        if name in METRICS
    }


def _name() -> str:
    """Return this process's file name; a later process may get the same number."""
    return _names.setdefault(os.getpid(), f"smarter_auth_{os.getpid()}_{uuid4().hex}.json")
