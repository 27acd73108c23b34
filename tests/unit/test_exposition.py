"""What Prometheus is given: every figure under its name, with type and help, and the values of the document."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.house import NOON, House, fact, house, package
from tfwatch.ledger.index import Index
from tfwatch.model import Event, Fact, Stage, write_detail
from tfwatch.observe.exposition import CONTENT_TYPE, render
from tfwatch.observe.metrics import Metrics, Present, snapshot_metrics

CONTRACT = {
    "tfwatch_packages": "gauge",
    "tfwatch_oldest_package_seconds": "gauge",
    "tfwatch_deliveries": "counter",
    "tfwatch_delivery_latency_seconds": "histogram",
    "tfwatch_turnaround_seconds": "histogram",
    "tfwatch_backups": "counter",
    "tfwatch_backup_pending": "gauge",
    "tfwatch_sheet_sync_latency_seconds": "gauge",
    "tfwatch_sheet_pending_rows": "gauge",
    "tfwatch_integration_enabled": "gauge",
    "tfwatch_webhooks": "counter",
    "tfwatch_watch_latency_seconds": "gauge",
    "tfwatch_fallback": "counter",
}
"""The contract's metrics and their types; a counter's samples end in `_total`."""


class Busy:
    """A source in which every gauge has a value of its own."""

    def __init__(self, index: Index) -> None:
        self.index = index

    def present(self, now: object) -> Present:
        return Present(
            packages={"outbox": 3, "delivered": 2}, oldest_seconds={"outbox": 1.5}, in_flight=4, backup_pending=5,
            sheet_sync_latency_seconds=0.25, sheet_pending_rows=6, watch_latency_seconds=0.001,
            integration_enabled={"gotranscript": True, "s3": False},
        )  # fmt: skip


class Idle(Busy):
    """One in which nothing is known."""

    def present(self, now: object) -> Present:
        return Present(
            packages={}, oldest_seconds={}, in_flight=0, backup_pending=0, sheet_sync_latency_seconds=None,
            sheet_pending_rows=0, integration_enabled={}, watch_latency_seconds=None,
        )  # fmt: skip


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    """A look at a house with some history."""
    with house(tmp_path / "spool") as home:
        history(home)
        return snapshot_metrics(Busy(home.index), NOON + timedelta(minutes=1))


def history(home: House) -> None:
    detail = write_detail(since_claim_ms=260)
    home.record(fact(package(), Event.ACCEPTED, Stage.CLAIMED, Stage.SUBMITTED, duration_ms=90, detail=detail))
    home.record(fact(package(), Event.COMPLETED, Stage.SUBMITTED, Stage.DELIVERED, duration_ms=90_000))
    home.record(fact(package(), Event.BACKED_UP, Stage.DELIVERED, Stage.DELIVERED))
    home.record(fact(package("b.zip"), Event.UNKNOWN, Stage.CLAIMED, Stage.REJECTED, attempt=2))
    for called in ("gotranscript", 'a"b\\c\nd'):
        home.record(Fact(event=Event.WEBHOOK, detail=write_detail(integration=called, outcome="accepted")))


def families(metrics: Metrics) -> Mapping[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(render(metrics).decode())}


def values(family: Metric) -> dict[Any, float]:
    """Sample name and label values → value."""
    return {(sample.name, *sample.labels.values()): sample.value for sample in family.samples}


def test_every_metric_of_the_contract_is_there(metrics: Metrics) -> None:
    """Each under its name, of its type, with a help text; all others are tfwatch's own, too."""
    found = families(metrics)
    assert CONTRACT == {name: found[name].type for name in CONTRACT}
    assert set() == {name for name, family in found.items() if not family.documentation.endswith(".")}
    assert set() == {name for name in found if not name.startswith("tfwatch_")}
    assert CONTENT_TYPE.startswith("text/plain")


def test_the_values_are_those_of_the_snapshot(metrics: Metrics) -> None:
    """Gauges, counters and histograms by label; seconds as seconds, shares of 1."""
    found = {name: values(family) for name, family in families(metrics).items()}
    assert {("tfwatch_packages", "outbox"): 3, ("tfwatch_packages", "delivered"): 2} == found["tfwatch_packages"]
    assert {("tfwatch_oldest_package_seconds", "outbox"): 1.5} == found["tfwatch_oldest_package_seconds"]
    enabled = {"gotranscript": 1.0, "s3": 0.0}
    assert {("tfwatch_integration_enabled", name): value for name, value in enabled.items()} == found[
        "tfwatch_integration_enabled"
    ]
    deliveries = {word: found["tfwatch_deliveries"]["tfwatch_deliveries_total", word] for word in metrics.deliveries}
    assert dict(metrics.deliveries) == deliveries
    assert 1 == deliveries["accepted"] == deliveries["completed"] == deliveries["unknown"] == deliveries["failed"]
    assert {("tfwatch_fallback_total",): 1} == found["tfwatch_fallback"]
    assert 6 == found["tfwatch_log_rows"]["tfwatch_log_rows_total",]
    assert 0.5 == found["tfwatch_delivery_success_ratio"]["tfwatch_delivery_success_ratio",]
    assert 0.09 == found["tfwatch_delivery_latency_average_seconds"]["tfwatch_delivery_latency_average_seconds",]
    for name, value in {"in_flight": 4, "backup_pending": 5, "sheet_pending_rows": 6}.items():
        assert {(f"tfwatch_{name}",): value} == found[f"tfwatch_{name}"]


def test_a_histogram_is_cumulative_in_seconds(metrics: Metrics) -> None:
    """What took 260 ms counts in every bucket from 0.5 s on; sum and count are there."""
    found = values(families(metrics)["tfwatch_delivery_latency_seconds"])
    name = "tfwatch_delivery_latency_seconds"
    buckets = {float(key[1]): value for key, value in found.items() if key[0] == f"{name}_bucket"}
    assert {bound: float(bound >= 0.5) for bound in buckets} == buckets
    assert math.inf in buckets
    assert (0.26, 1) == (found[f"{name}_sum",], found[f"{name}_count",])
    turnaround = values(families(metrics)["tfwatch_turnaround_seconds"])
    assert 90 == turnaround["tfwatch_turnaround_seconds_sum",]


def test_a_label_can_hold_anything(metrics: Metrics) -> None:
    """Quotes, backslashes and line ends in an integration's name come out as they went in."""
    found = values(families(metrics)["tfwatch_webhooks"])
    name = "tfwatch_webhooks_total"
    assert {(name, "gotranscript", "accepted"): 1, (name, 'a"b\\c\nd', "accepted"): 1} == found


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    """No sample stands for a rate of nothing or a latency never measured: a zero would be a lie."""
    with house(tmp_path / "spool") as home:
        found = families(snapshot_metrics(Idle(home.index), NOON))
    unknown = {name for name, family in found.items() if not family.samples}
    assert {
        "tfwatch_delivery_success_ratio", "tfwatch_backup_success_ratio", "tfwatch_delivery_latency_average_seconds",
        "tfwatch_sheet_sync_latency_seconds", "tfwatch_watch_latency_seconds", "tfwatch_webhooks", "tfwatch_packages",
        "tfwatch_oldest_package_seconds", "tfwatch_integration_enabled",
    } == unknown  # fmt: skip
