"""All figures in Prometheus' text format: the body of `/metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from tfwatch.observe.metrics import Histogram, Metrics

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
"""What `render` gives, for the HTTP header."""


def render(metrics: Metrics) -> bytes:
    """One look at the figures as text, UTF-8. Seconds, counts and shares of 1; what isn't known is left out."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Look(metrics))
    return generate_latest(registry)


class _Look(Collector):
    """One look: it is collected once, and nothing of it is kept."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Every family, in the contract's order, then those of the last 24 hours."""
        yield from _present(self._metrics)
        yield from _durable(self._metrics)
        yield from _of_the_day(self._metrics)


def _present(now: Metrics) -> Iterator[Metric]:
    yield _gauges("tfwatch_packages", "Packages by the stage they are at now.", "stage", now.packages)
    yield _gauges(
        "tfwatch_oldest_package_seconds", "How long a stage's oldest package has been there.", "stage",
        now.oldest_seconds,
    )  # fmt: skip
    yield _gauge("tfwatch_in_flight", "Packages that are being inspected, sent, read or backed up now.", now.in_flight)
    yield _gauge("tfwatch_backup_pending", "Delivered packages whose backup is still to be made.", now.backup_pending)
    yield _gauge(
        "tfwatch_sheet_sync_latency_seconds", "How long the oldest row of the last batch waited for the sheet.",
        now.sheet_sync_latency_seconds,
    )  # fmt: skip
    yield _gauge(
        "tfwatch_sheet_pending_rows", "Rows of the log that the sheet does not show yet.", now.sheet_pending_rows
    )
    yield _gauges(
        "tfwatch_integration_enabled", "1: the integration is in use; 0: off, held, paused or rolled back.",
        "integration", now.integration_enabled,
    )  # fmt: skip
    yield _gauge(
        "tfwatch_watch_latency_seconds", "How long the canary's file event took to arrive.", now.watch_latency_seconds
    )


def _durable(now: Metrics) -> Iterator[Metric]:
    yield _counters(
        "tfwatch_deliveries", "Rows of the log by what they say of a delivery; failed: attempts the service did not "
        "take, counted beside the others.", "outcome", now.deliveries,
    )  # fmt: skip
    yield _histogram("tfwatch_delivery_latency_seconds", "From claim to acceptance.", now.delivery_latency)
    yield _histogram("tfwatch_turnaround_seconds", "From acceptance to completion.", now.turnaround)
    yield _counters("tfwatch_backups", "Rows of the log by what they say of a backup.", "outcome", now.backups)
    webhooks = CounterMetricFamily(
        "tfwatch_webhooks", "Authenticated webhook calls by what became of them.", labels=("integration", "outcome")
    )
    for integration, outcomes in now.webhooks.items():
        for outcome, count in outcomes.items():
            webhooks.add_metric((integration, outcome), count)
    yield webhooks
    yield CounterMetricFamily(
        "tfwatch_fallback", "Packages delivered by hand, rolled back, or parked as unknown.", value=now.fallback_total
    )
    yield CounterMetricFamily("tfwatch_log_rows", "Rows of log.csv that these figures were made of.", now.log_seq)


def _of_the_day(now: Metrics) -> Iterator[Metric]:
    yield _gauge(
        "tfwatch_delivery_success_ratio", "Accepted / (accepted + failed), last 24 hours.", now.delivery_success_rate
    )
    yield _gauge(
        "tfwatch_backup_success_ratio", "Backed up / (backed up + failed), last 24 hours.", now.backup_success_rate
    )
    milliseconds = now.avg_delivery_latency_ms
    yield _gauge(
        "tfwatch_delivery_latency_average_seconds", "From first byte to acceptance on average, last 24 hours.",
        None if milliseconds is None else milliseconds / 1000,
    )  # fmt: skip


def _gauge(name: str, words: str, value: float | None) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _gauges(name: str, words: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, words, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def _counters(name: str, words: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, words, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def _histogram(name: str, words: str, histogram: Histogram) -> Metric:
    buckets = list(histogram.labelled())
    return HistogramMetricFamily(name, words, buckets=buckets, sum_value=histogram.sum_seconds)
