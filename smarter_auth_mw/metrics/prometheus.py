"""Prometheus (the extra ``metrics``): a collector that reads the counters when it is scraped."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from smarter_auth_mw.http.status_pages import StatusPage
from smarter_auth_mw.metrics import multiprocess as exchange
from smarter_auth_mw.metrics import samples as figures
from smarter_auth_mw.metrics.samples import METRICS, SUM, Metric, Values

PREFIX = "smarter_auth_"


class SmarterAuthCollector(Collector):
    """The metrics of every middleware in this process, for the app's own registry.

    ``REGISTRY.register(SmarterAuthCollector())`` adds them to what ``prometheus_client`` already exposes. Requests do
    not get slower: existing counters are read at each scrape. With ``PROMETHEUS_MULTIPROC_DIR`` the metrics are those
    of all workers.
    """

    def describe(self) -> Iterator[Family]:
        """Yield the metrics without values, so that a registry knows their names."""
        for metric in METRICS.values():
            yield _family(metric, {})

    def collect(self) -> Iterator[Family]:
        """Yield the metrics with their current values."""
        counted = exchange.with_others(figures.samples_of_all())
        for metric in METRICS.values():
            yield _family(metric, counted.get(metric.name, {}))


async def page() -> StatusPage:
    """Return these metrics and those of the process, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(SmarterAuthCollector())
    if exchange.directory() is None:  # Process metrics of one worker would say nothing about the others.
        ProcessCollector(registry=registry)
    return StatusPage(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _family(metric: Metric, values: Values) -> Family:
    name = PREFIX + metric.name
    if metric.kind == "histogram":
        buckets = [(bound, value) for (bound,), value in values.items() if bound != SUM]
        return HistogramMetricFamily(name, metric.help, buckets=buckets or None, sum_value=values.get((SUM,)))
    family = (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(
        name, metric.help, labels=metric.labels
    )
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
