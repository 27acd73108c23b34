"""Every durable figure counted again, straight from log.csv: the slow way, by another hand than the projection's."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tfwatch.ledger.database import spelled_out
from tfwatch.ledger.rows import unescape
from tfwatch.model import read_detail

Row = dict[str, str]

KEYS = (
    *("log_seq", "delivery_success_rate", "avg_delivery_latency_ms", "backup_success_rate", "fallback_count"),
    *("webhooks", "deliveries", "delivery_latency_seconds", "turnaround_seconds", "backups", "fallback_total"),
    "hourly",
)
"""What of the figures' document is made of the log's rows alone."""

OUTCOMES = (
    *("accepted", "completed", "refused", "refused_later", "refused_here", "deferred", "unknown", "rolled_back"),
    *("by_hand", "failed"),
)
_WORDS = {
    "ACCEPTED": "accepted", "COMPLETED": "completed", "DEFERRED": "deferred", "UNKNOWN": "unknown",
    "ROLLBACK": "rolled_back",
}  # fmt: skip


def recount(log: Path, shown: dict[str, Any]) -> dict[str, Any]:
    """What a shown document should say, by the rows up to its `log_seq` and the moments it names."""
    with log.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["seq"]) <= shown["log_seq"]]
    day = [row for row in rows if moment(row["at"]) >= moment(shown["window_begins_at"])]
    done, backed_up = outcomes(day), backups(day)
    webhooks: dict[str, dict[str, int]] = {}
    for row in rows:
        facts = facts_of(row)
        if row["event"] == "WEBHOOK" and {"integration", "outcome"} <= facts.keys():
            counts = webhooks.setdefault(spelled_out(facts["integration"]), {})
            counts[facts["outcome"]] = counts.get(facts["outcome"], 0) + 1
    claimed = [since for row in rows if row["event"] == "ACCEPTED" and (since := facts_of(row).get("since_claim_ms"))]
    completed = [row["duration_ms"] for row in rows if row["event"] == "COMPLETED" and row["duration_ms"]]
    return {
        "log_seq": len(rows),
        "delivery_success_rate": share(done["accepted"], done["failed"]),
        "avg_delivery_latency_ms": mean(day),
        "backup_success_rate": share(backed_up["backed_up"], backed_up["failed"]),
        "fallback_count": sum(map(is_fallback, day)),
        "webhooks": webhooks,
        "deliveries": {word: outcomes(rows)[word] for word in OUTCOMES},
        "delivery_latency_seconds": histogram(claimed, shown["delivery_latency_seconds"]),
        "turnaround_seconds": histogram(completed, shown["turnaround_seconds"]),
        "backups": {word: backups(rows)[word] for word in ("backed_up", "failed", "asked_again")},
        "fallback_total": sum(map(is_fallback, rows)),
        "hourly": [hour(rows, each["begin"]) for each in shown["hourly"]],
    }


def of_the_log(shown: dict[str, Any]) -> dict[str, Any]:
    """The part of a document that `recount` knows."""
    return {key: shown[key] for key in KEYS}


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def facts_of(row: Row) -> dict[str, str]:
    return dict(read_detail(unescape(row["detail"]))[0])


def outcomes(rows: Iterable[Row]) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in rows:
        event, facts = row["event"], facts_of(row)
        if event == "REFUSED" and facts.get("by") == "service":
            found["refused_later" if row["from_stage"] == "submitted" else "refused"] += 1
        elif event == "REFUSED":
            found["refused_here"] += 1
        elif event in _WORDS:
            found[_WORDS[event]] += 1
        found["by_hand"] += is_by_hand(row)
        ends_an_attempt = (
            event in ("DEFERRED", "UNKNOWN")
            or (event == "REFUSED" and facts.get("by") == "service")
            or (event == "ROLLBACK" and facts.get("sent") == "no")
        )
        found["failed"] += ends_an_attempt and row["attempt"] != ""
    return found


def backups(rows: Iterable[Row]) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in rows:
        found["backed_up"] += row["event"] == "BACKED_UP"
        found["failed"] += row["event"] == "BACKUP_FAILED" and row["actor"] != "operator"
        found["asked_again"] += row["event"] == "BACKUP_FAILED" and row["actor"] == "operator"
    return found


def is_by_hand(row: Row) -> bool:
    by_a_person = row["event"] == "MOVED" and row["actor"] == "operator"
    return by_a_person and row["to_stage"] == "delivered" and row["from_stage"] in ("outbox", "claimed", "rejected")


def is_fallback(row: Row) -> bool:
    parked = row["event"] == "UNKNOWN" and row["to_stage"] == "rejected"
    return is_by_hand(row) or parked or row["event"] == "ROLLBACK"


def hour(rows: Sequence[Row], begin: str) -> dict[str, Any]:
    here = [row for row in rows if timedelta() <= moment(row["at"]) - moment(begin) < timedelta(hours=1)]
    done = outcomes(here)
    return {"begin": begin, "avg_latency_ms": mean(here)} | {w: done[w] for w in ("accepted", "completed", "failed")}


def histogram(milliseconds: Sequence[str], shown: dict[str, Any]) -> dict[str, Any]:
    took = [int(each) for each in milliseconds]
    buckets = {bound: sum(ms / 1000 <= float(bound) for ms in took) for bound in shown["buckets"]}
    return {"buckets": buckets, "sum": sum(took) / 1000, "count": len(took)}


def mean(rows: Iterable[Row]) -> float | None:
    took = [int(row["duration_ms"]) for row in rows if row["event"] == "ACCEPTED" and row["duration_ms"]]
    return sum(took) / len(took) if took else None


def share(good: int, bad: int) -> float | None:
    return good / (good + bad) if good + bad else None
