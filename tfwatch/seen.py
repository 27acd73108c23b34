"""The figures of a spool seen from outside: those of its log, and of the present what `tfwatch status` has found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from tfwatch.language import number, tr
from tfwatch.ledger.index import Index
from tfwatch.look import View
from tfwatch.observe.metrics import Present, snapshot_metrics
from tfwatch.observe.observability import document


def figures(view: View, status: Mapping[str, Any], shown: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The figures' document. `status`, `shown`: as `Outside` takes them."""
    return document(snapshot_metrics(Outside(view, status, shown), now))


def day_in_words(figures: Mapping[str, Any]) -> Iterator[str]:
    """The last 24 hours of such a document, in lines for people; none when nothing happened."""
    accepted, latency = figures["delivery_success_rate"], figures["avg_delivery_latency_ms"]
    if accepted is not None:
        yield tr("{share} % of all delivery attempts were accepted", share=number(100 * accepted, 1))
    if latency is not None:
        yield tr("{seconds} s on average from the first byte to acceptance", seconds=number(latency / 1000, 1))
    if figures["backup_success_rate"] is not None:
        share = number(100 * figures["backup_success_rate"], 1)
        yield tr("{share} % of all attempts at a backup went well", share=share)
    if count := figures["fallback_count"]:
        yield tr("delivered by hand, rolled back or parked as unknown: {count}", count=number(count))


class Outside:
    """What `snapshot_metrics` asks.

    `status`: the document of `tfwatch status` so far. `shown`: what a running daemon shows of itself; empty when none
    runs.
    """

    def __init__(self, view: View, status: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
        self._view = view
        self._status = status
        self._shown = shown

    @property
    def index(self) -> Index:
        """What the log adds up to."""
        return self._view.index

    def present(self, now: datetime) -> Present:
        """What is so now; what only a running daemon knows is None without one."""
        status, stages = self._status, self._status["stages"]
        ages = {stage: there["oldest_seconds"] for stage, there in stages.items()}
        return Present(
            packages={stage: there["count"] for stage, there in stages.items()},
            oldest_seconds={stage: age for stage, age in ages.items() if age is not None},
            in_flight=len(status["in_flight"]),
            backup_pending=status["backup_pending"],
            sheet_sync_latency_seconds=self._shown.get("sheet_sync_latency_seconds"),
            sheet_pending_rows=self._pending_rows(),
            integration_enabled={name: stand["enabled"] for name, stand in status["integrations"].items()},
            watch_latency_seconds=status["watch_latency_seconds"],
        )

    def _pending_rows(self) -> int:
        sheets, position = self._view.settings.config.integrations.sheets, self.index.position
        if not sheets.enabled or position is None:
            return 0
        cursor = self.index.sheet_cursor(sheets.cursor_name)
        return position.seq - (cursor.seq if cursor else 0)
