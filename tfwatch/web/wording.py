"""How figures are put into words on the status page. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfwatch.language import number, tr
from tfwatch.local_time import date_and_time, local
from tfwatch.model import Integration, Stage
from tfwatch.observe.metrics import Hour, Metrics
from tfwatch.report import size
from tfwatch.wording import integration_state, seconds, work_in_words

Words = dict[str, Any]


def stage(name: str, there: Mapping[str, Any]) -> Words:
    """A stage with its count, and the age of its oldest package while that one still waits for something."""
    oldest = there["oldest_seconds"]
    is_waited_for = oldest is not None and name != Stage.DELIVERED
    return {"name": name, "count": number(there["count"]), "oldest": seconds(oldest) if is_waited_for else ""}


def flight(work: Mapping[str, Any]) -> Words:
    """A package in flight and how far it is."""
    amount = tr(
        "{done} of {total}, {time}",
        done=size(work["bytes_done"]), total=size(work["bytes"]), time=seconds(work["seconds"]),
    )  # fmt: skip
    return {**work, "doing": work_in_words(work["doing"]), "amount": amount}


def figures(metrics: Metrics, document: Mapping[str, Any]) -> list[Words]:
    """The rolling figures; those of a service that is off are left out."""
    on = {name for name, stand in document["integrations"].items() if stand["state"] != "off"}
    shown = [
        (tr("Deliveries that succeeded"), _share(metrics.delivery_success_rate)),
        (tr("Mean latency"), _milliseconds(metrics.avg_delivery_latency_ms)),
        (tr("By hand, rolled back or in doubt"), number(metrics.fallback_count)),
    ]
    if Integration.S3 in on:
        shown += [
            (tr("Backups that succeeded"), _share(metrics.backup_success_rate)),
            (tr("Backups to be made"), number(metrics.backup_pending)),
        ]
    if Integration.SHEETS in on:
        shown.append((tr("Rows the sheet lacks"), number(metrics.sheet_pending_rows)))
    return [{"name": name, "value": value} for name, value in shown]


def hour(of: Hour) -> Words:
    """One hour of the chart and its table. `begin`: seconds since 1970; `short`: what the chart has room for."""
    latency = "" if of.avg_latency_ms is None else f"{of.avg_latency_ms:.0f}"
    return {
        "begin": int(of.begin.timestamp()), "label": date_and_time(of.begin), "short": f"{local(of.begin):%H:%M}",
        "accepted": of.accepted, "completed": of.completed, "failed": of.failed, "latency": latency,
    }  # fmt: skip


def integration(name: str, stand: Mapping[str, Any]) -> Words:
    """A service: whether it is used, and what is wrong with it."""
    is_off = stand["state"] == "off"
    kind = "off" if is_off else "good" if stand["enabled"] and not stand["trouble"] else "bad"
    note = "" if is_off else stand["reason"]
    return {
        "name": name, "kind": kind, "state": integration_state(stand["state"]), "note": note,
        "trouble": stand["trouble"], "what_to_do": "" if is_off else stand["what_to_do"],
    }  # fmt: skip


def _share(rate: float | None) -> str:
    return tr("none yet") if rate is None else f"{number(100 * rate, 1)} %"


def _milliseconds(count: float | None) -> str:
    return tr("none yet") if count is None else f"{number(count)} ms"
