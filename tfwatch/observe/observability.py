"""All figures as one JSON document: that of `/metrics/webhooks`, of `status --json` and of logs/observability.json."""

from __future__ import annotations

from typing import Any

from tfwatch.model import rfc3339
from tfwatch.observe.metrics import Histogram, Hour, Metrics


def document(metrics: Metrics) -> dict[str, Any]:
    """The figures as plain values; the keys are stable. Moments are RFC 3339, UTC; null: not known, or nothing to say.

    Rates, averages and `fallback_count` are of the rows from `window_begins_at` on (24 h), totals of all rows up to
    `log_seq`.
    """
    latency = metrics.sheet_sync_latency_seconds
    return {
        "snapshot_at": rfc3339(metrics.snapshot_at),
        "log_seq": metrics.log_seq,
        "window_begins_at": rfc3339(metrics.window_begins_at),
        "delivery_success_rate": metrics.delivery_success_rate,
        "avg_delivery_latency_ms": metrics.avg_delivery_latency_ms,
        "backup_success_rate": metrics.backup_success_rate,
        "fallback_count": metrics.fallback_count,
        "sheet_sync_latency_ms": None if latency is None else latency * 1000,
        "pending_rows": metrics.sheet_pending_rows,
        "webhooks": {name: dict(outcomes) for name, outcomes in metrics.webhooks.items()},
        "packages": dict(metrics.packages),
        "oldest_package_seconds": dict(metrics.oldest_seconds),
        "in_flight": metrics.in_flight,
        "deliveries": dict(metrics.deliveries),
        "delivery_latency_seconds": _histogram(metrics.delivery_latency),
        "turnaround_seconds": _histogram(metrics.turnaround),
        "backups": dict(metrics.backups),
        "backup_pending": metrics.backup_pending,
        "fallback_total": metrics.fallback_total,
        "integration_enabled": dict(metrics.integration_enabled),
        "watch_latency_seconds": metrics.watch_latency_seconds,
        "hourly": [_hour(hour) for hour in metrics.hourly],
    }


def _histogram(histogram: Histogram) -> dict[str, Any]:
    return {"buckets": dict(histogram.labelled()), "sum": histogram.sum_seconds, "count": histogram.count}


def _hour(hour: Hour) -> dict[str, Any]:
    return {
        "begin": rfc3339(hour.begin),
        "accepted": hour.accepted,
        "completed": hour.completed,
        "failed": hour.failed,
        "avg_latency_ms": hour.avg_latency_ms,
    }
