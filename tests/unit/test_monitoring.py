"""What packaging/monitoring/ asks for is what tfwatch shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

import tfwatch
from tfwatch.ledger.index import Index
from tfwatch.observe.exposition import render
from tfwatch.observe.metrics import Present, snapshot_metrics

FOLDER = Path(tfwatch.__file__).parent.parent / "packaging" / "monitoring"
_NAME = re.compile(r"\btfwatch_[a-z_]+")


class Everything:
    """A source in which each figure has a value."""

    index = Index(":memory:")

    def present(self, now: object) -> Present:
        return Present(
            packages={"outbox": 1}, oldest_seconds={"outbox": 1.0}, in_flight=1, backup_pending=1,
            sheet_sync_latency_seconds=1.0, sheet_pending_rows=1, integration_enabled={"s3": True},
            watch_latency_seconds=1.0,
        )  # fmt: skip


@pytest.fixture(scope="module")
def shown() -> set[str]:
    """The names of all figures, also of those that have no sample yet."""
    return set(_NAME.findall(render(snapshot_metrics(Everything())).decode()))


def test_the_dashboard_asks_for_what_is_shown(shown: set[str]) -> None:
    """Each panel of the dashboard reads figures that exist."""
    dashboard = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    asked = {target["expr"] for panel in dashboard["panels"] for target in panel["targets"]}
    assert len(dashboard["panels"]) <= len(asked)
    for query in asked:
        assert {name.removesuffix("_bucket") for name in _NAME.findall(query)} <= shown, query


def test_the_rules_ask_for_what_is_shown(shown: set[str]) -> None:
    """Each alert rule reads a figure that exists, and says what to do."""
    rules = yaml.safe_load((FOLDER / "prometheus-rules.yml").read_text())["groups"][0]["rules"]
    for rule in rules:
        names = set(_NAME.findall(rule["expr"].replace('job="tfwatch"', "")))
        assert names <= shown, rule["alert"]
        assert names or "up{" in rule["expr"]
        assert rule["annotations"]["what_to_do"]
