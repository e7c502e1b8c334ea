"""The metrics by name, read from the counters of all parts at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol
from weakref import WeakSet

from smarter_auth_mw.cache.lag import Lag
from smarter_auth_mw.engine.engine import Engine
from smarter_auth_mw.observers.audit import Audit
from smarter_auth_mw.observers.hub import Observers
from smarter_auth_mw.observers.refused_spellings import NearMisses
from smarter_auth_mw.observers.usage import ANONYMOUS, GRANTED, Usage
from smarter_auth_mw.postgres.reports import KeyCounts

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]
"""The values of a metric's labels, in order; for histograms followed by the bucket's bound."""
Values = Mapping[Labels, float]
Figures = dict[str, dict[Labels, float]]
"""Values by metric name and labels."""

SUM = "sum"
"""Used instead of a histogram's bound for the sum of its values."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name without the prefix, and how values of several workers are merged.

    No label ever holds a token, a key or a reference: all have few values.
    """

    name: str
    help: str
    kind: Kind = "counter"
    labels: tuple[str, ...] = ()
    worst: bool = False
    """True if values of several workers are merged into their maximum; False if they are added up."""


Reader = Callable[[Engine], float | Values]

DECISIONS = Metric(
    "decisions",
    "Requests for resources, by kind, decision (grant, anonymous, deny) and reason of a denial.",
    labels=("kind", "decision", "reason"),
)
OBSERVER_FAILURES = Metric(
    "observer_failures", "Decisions for which usage, audit, signals or traces failed; the decisions are not affected."
)
WRITE_FAILURES = Metric(
    "write_failures", "Failed writes of usage or audit batches; a failed batch is kept and written again."
)
AUDIT_DROPPED = Metric("audit_dropped", "Audit events dropped because the audit's rate or memory limit was reached.")
REFUSED_SPELLINGS = Metric(
    "refused_spellings", "Requests refused with 400 because their path or host can be read in two ways."
)
ADMIN_REQUESTS = Metric(
    "admin_requests",
    "Requests that the admin answered, by operation of its API or page, and status.",
    labels=("operation", "status"),
)
ADMIN_REFUSED = Metric(
    "admin_refused_tokens", "Requests to the management API, and sign-ins, with a token that is not valid."
)
OF_AN_ADMIN = (ADMIN_REQUESTS, ADMIN_REFUSED)
OF_A_MIDDLEWARE = (DECISIONS, OBSERVER_FAILURES, WRITE_FAILURES, AUDIT_DROPPED, REFUSED_SPELLINGS)

OF_AN_ENGINE: tuple[tuple[Metric, Reader], ...] = (
    (
        Metric("cache_hits", "Look-ups of existing resources answered by an entry in the process."),
        lambda p: p.cache.hits.total(),
    ),
    (
        Metric("cache_negative_hits", "Look-ups answered by a negative entry in the process: no such resource."),
        lambda p: p.cache.counts.negative_hits,
    ),
    (
        Metric("cache_misses", "Cache misses; requests that wait for the same look-up count as one."),
        lambda p: p.cache.counts.misses,
    ),
    (Metric("cache_fills", "Statements sent to the database to fill the cache."), lambda p: p.cache.counts.fills),
    (
        Metric("cache_outdated_fills", "Cache fills that were outdated on arrival and read again."),
        lambda p: p.cache.counts.outdated_fills,
    ),
    (
        Metric("cache_shared_hits", "Cache misses in the process that were answered by the shared cache."),
        lambda p: p.cache.counts.shared_hits,
    ),
    (
        Metric("cache_shed", "Look-ups refused with 503 because too many were in progress (MAX_LOOKUPS)."),
        lambda p: p.cache.admission.refused,
    ),
    (
        Metric(
            "stale_grants",
            "Grants by an entry older than MAX_STALENESS_S while the database is down (STALE_IF_ERROR_S).",
        ),
        lambda p: p.cache.counts.stale,
    ),
    (
        Metric("cache_evictions", "Cache entries evicted to make room (MAX_ENTRIES, MAX_BINDINGS)."),
        lambda p: p.cache.sizes.evictions,
    ),
    (
        Metric(
            "cache_entries",
            "Cache entries in the process, by what they describe: known resources, or unknown (negative entries).",
            "gauge",
            ("of",),
        ),
        lambda p: {("known",): p.cache.sizes.known, ("unknown",): p.cache.sizes.unknown},
    ),
    (
        Metric("cache_bindings", "Bindings held by the cache entries in the process.", "gauge"),
        lambda p: p.cache.sizes.bindings,
    ),
    (
        Metric(
            "heartbeat_age_seconds",
            "Seconds since the last answered heartbeat was sent to the database.",
            "gauge",
            worst=True,
        ),
        lambda p: p.listener.silent_s,
    ),
    (
        Metric(
            "triggers_missing",
            "1 while a trigger that reports changes is missing or disabled, else 0.",
            "gauge",
            worst=True,
        ),
        lambda p: int(not p.listener.is_coherent),
    ),
    (
        Metric("store_down", "1 if the last look-up in the database failed, else 0.", "gauge", worst=True),
        lambda p: int(p.cache.is_store_down),
    ),
    (
        Metric(
            "change_lag_seconds", "Seconds from a change in the database until this worker received it.", "histogram"
        ),
        lambda p: _histogram(p.listener.lag),
    ),
    (Metric("heartbeats", "Heartbeats answered by the database."), lambda p: p.listener.beats),
    (Metric("flushes", "Flushes: the whole cache was invalidated at once."), lambda p: p.listener.flushes),
    (
        Metric("listener_reconnects", "Times that the connection for notifications was lost and opened again."),
        lambda p: p.listener.reconnects,
    ),
    (Metric("notifications_malformed", "Notifications that could not be parsed."), lambda p: p.listener.malformed),
    (Metric("notifications_forged", "Notifications of changes that no heartbeat reports."), lambda p: p.changes.forged),
    (
        Metric(
            "notifications_ignored",
            "1 while notifications are ignored after a flood of them, and heartbeats report changes.",
            "gauge",
            worst=True,
        ),
        lambda p: int(p.listener.is_flooded),
    ),
    (
        Metric("changes_remembered", "Changes remembered to check cache entries against.", "gauge", worst=True),
        lambda p: len(p.changes),
    ),
    (
        Metric("pool_connections", "Open connections to the database, by state: busy or idle.", "gauge", ("state",)),
        lambda p: {("busy",): p.store.pool_sizes.busy, ("idle",): p.store.pool_sizes.idle},
    ),
    (
        Metric(
            "shared_cache_calls",
            "Calls of the shared cache, by result: hit, miss, error, skipped, rejected or too_large.",
            labels=("result",),
        ),
        lambda p: {
            ("hit",): p.shared.hits,
            ("miss",): p.shared.misses,
            ("error",): p.shared.errors,
            ("skipped",): p.shared.skipped,
            ("rejected",): p.shared.rejected,
            ("too_large",): p.shared.too_large,
        },
    ),
    (
        Metric(
            "keys_expiring",
            "Keys that expire within this time (1d, 7d, 30d); at most 1000. Counted every 5 minutes.",
            "gauge",
            ("within",),
            worst=True,
        ),
        lambda p: _of_keys(
            p, lambda keys: {("1d",): keys.expiring_1d, ("7d",): keys.expiring_7d, ("30d",): keys.expiring_30d}
        ),
    ),
    (
        Metric(
            "keys_unused",
            "Keys not used for this time (30d, 90d); at most 1000. Counted every 5 minutes.",
            "gauge",
            ("for",),
            worst=True,
        ),
        lambda p: _of_keys(p, lambda keys: {("30d",): keys.unused_30d, ("90d",): keys.unused_90d}),
    ),
    (
        Metric(
            "rotations_overlapping",
            "Keys whose previous token is still valid after a rotation; at most 1000. Counted every 5 minutes.",
            "gauge",
            worst=True,
        ),
        lambda p: _of_keys(p, lambda keys: {(): keys.rotating}),
    ),
    (
        Metric(
            "throttle_failures",
            "Failed attempts counted by this worker alone because the shared cache did not count them.",
        ),
        lambda p: 0 if p.throttle is None else p.throttle.failures,
    ),
)

METRICS: Mapping[str, Metric] = {
    metric.name: metric for metric in (*OF_A_MIDDLEWARE, *OF_AN_ADMIN, *(metric for metric, _ in OF_AN_ENGINE))
}
"""All metrics, by name."""


def samples_of_engine(engine: Engine) -> Figures:
    """Return the metrics of one event loop."""
    return {metric.name: _values(read(engine)) for metric, read in OF_AN_ENGINE}


def samples_of_middleware(usage: Usage, audit: Audit, observers: Observers, near_misses: NearMisses) -> Figures:
    """Return the metrics of one middleware, on all event loops."""
    decided: dict[Labels, float] = {
        (kind, *_decision(outcome)): times for (kind, outcome), times in usage.totals().items()
    }
    return {
        DECISIONS.name: decided,
        OBSERVER_FAILURES.name: _values(observers.failures),
        WRITE_FAILURES.name: _values(observers.failed_flushes),
        AUDIT_DROPPED.name: _values(audit.dropped),
        REFUSED_SPELLINGS.name: _values(near_misses.count),
    }


def merged(many: Iterable[Figures]) -> Figures:
    """Merge metrics: add them up, or take the maximum."""
    total: Figures = {}
    for figures in many:
        for name, values in figures.items():
            known = total.setdefault(name, {})
            for labels, value in values.items():
                known[labels] = (
                    max(known.get(labels, 0), value) if METRICS[name].worst else known.get(labels, 0) + value
                )
    return total


def only_counted(figures: Figures) -> Figures:
    """Return the counters, which stay true of a worker that has ended; its gauges do not."""
    return {name: values for name, values in figures.items() if METRICS[name].kind != "gauge"}


class Measured(Protocol):
    """An object that has metrics."""

    def figures(self) -> Figures: ...


def watch(measured: Measured) -> None:
    """Include the metrics of this object in those of the process while the object exists."""
    _watched.add(measured)


def samples_of_all() -> Figures:
    """Return the metrics of this process."""
    return merged([measured.figures() for measured in list(_watched)])


_watched: WeakSet[Measured] = WeakSet()


def _values(value: float | Values) -> dict[Labels, float]:
    return dict(value) if isinstance(value, Mapping) else {(): value}


def _decision(outcome: str) -> tuple[str, str]:
    return (outcome, "") if outcome in (GRANTED, ANONYMOUS) else ("deny", outcome)


def _histogram(lag: Lag) -> Values:
    return {**{(bound,): times for bound, times in lag.buckets()}, (SUM,): lag.sum_s}


def _of_keys(engine: Engine, read: Callable[[KeyCounts], Values]) -> Values:
    """Read values from the key counts; no values while the keys could not be counted."""
    counts = engine.key_counter.latest
    return {} if counts is None else read(counts)
