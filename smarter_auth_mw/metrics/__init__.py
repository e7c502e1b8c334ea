"""Metrics: ``SmarterAuthCollector`` for a registry of the app's own (the extra ``metrics``).

This room reads counters that the engines keep anyway, and adds up those of workers that share a port; nothing here runs
on a request. Begin with ``metrics/samples.py``, the table of all metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smarter_auth_mw.metrics.prometheus import SmarterAuthCollector

__all__ = ["SmarterAuthCollector"]


def __getattr__(name: str) -> Any:
    """Import the collector on first use, since only it needs ``prometheus_client`` (PEP 562)."""
    if name != "SmarterAuthCollector":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from smarter_auth_mw.metrics.prometheus import SmarterAuthCollector

    return SmarterAuthCollector
