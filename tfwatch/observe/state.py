"""What the running daemon shows of itself, as one JSON document; `tfwatch status` adds what the log knows."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from tfwatch.delivery.claim import Outbox
from tfwatch.delivery.desk import Desk, why_apart
from tfwatch.delivery.switch import Switch
from tfwatch.delivery.wiring import Wiring
from tfwatch.language import ntr, tr
from tfwatch.local_time import midnight
from tfwatch.model import Integration, Stage, rfc3339
from tfwatch.spool.names import printable
from tfwatch.spool.root import away
from tfwatch.watch import Watch
from tfwatch.wording import integration_state
from tfwatch.workshop import Workshop

_MOST_LISTED: Final = 50


class Running(Protocol):
    """What a snapshot is taken of: the daemon."""

    desk: Desk
    outbox: Outbox
    watch: Watch
    workshop: Workshop
    switches: dict[Integration, Switch]

    @property
    def wiring(self) -> Wiring:
        """The services and settings in force."""
        ...

    @property
    def config_problems(self) -> tuple[str, ...]:
        """Why a changed config.yaml was not taken over; empty when it was."""
        ...

    @property
    def companion_problems(self) -> tuple[str, ...]:
        """What a person should look at in what runs beside the loop."""
        ...

    @property
    def beat_age(self) -> float:
        """Seconds since the loop last finished a pass, or said why it waits."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One look at the daemon: `document` for programs, `line` for people and systemd."""

    document: Mapping[str, Any]
    line: str


def take(daemon: Running, *, exec_id: str, version: str) -> Snapshot:
    """Look at everything once. Counts come from the folders and the log; nothing here is remembered."""
    index, works = daemon.desk.index, daemon.workshop.board.snapshot()
    counts = {stage.value: count for stage, count in index.stage_counts().items()}
    counts["outbox"] = len(daemon.outbox.unclaimed)
    counts["claimed"] = len(daemon.desk.folders.list(Stage.CLAIMED).entries)
    delivered_today = index.settled_since(midnight(datetime.now(UTC)))
    now = time.monotonic()
    integrations = {name.value: _integration(daemon, name) for name in Integration}
    shortage = daemon.desk.folders.shortage(daemon.wiring.policy.min_free_bytes)
    problems = _problems(daemon, shortage)
    document = {
        "exec_id": exec_id,
        "pid": os.getpid(),
        "version": version,
        "stages": counts,
        "ignored": daemon.outbox.listing.ignored,
        "oddities": [printable(name) for name, _ in daemon.outbox.listing.oddities][:_MOST_LISTED],
        "unfinished": {printable(name): why for name, why in list(daemon.outbox.unfinished.items())[:_MOST_LISTED]},
        "in_flight": [
            {
                "package": printable(work.name),
                "doing": work.doing,
                "bytes_done": work.done,
                "bytes": work.total,
                "seconds": round(now - work.began, 1),
            }
            for work in works[:_MOST_LISTED]
        ],
        "integrations": integrations,
        "backup_pending": index.unbacked_count() if daemon.wiring.storage else 0,
        "watch": {
            "mode": "polling" if daemon.watch.polling else "inotify",
            "why": daemon.watch.deaf,
            "latency_seconds": daemon.watch.latency_seconds,
        },
        "watch_latency_seconds": daemon.watch.latency_seconds,
        "sheet_sync_latency_seconds": daemon.workshop.mirror.latency_seconds,
        "delivered_today": delivered_today,
        "problems": problems,
        "shortage": shortage,
    }
    sending = sum(work.doing in ("sending", "inspecting") for work in works)
    line = _line(daemon, counts, sending, delivered_today, integrations, problems)
    return Snapshot(document=document, line=line)


def _integration(daemon: Running, name: Integration) -> dict[str, Any]:
    stand = daemon.switches[name].stand
    trouble = {
        Integration.GOTRANSCRIPT: daemon.workshop.track.trouble,
        Integration.S3: daemon.workshop.store.trouble,
        Integration.SHEETS: daemon.workshop.mirror.trouble,
    }[name]
    return {
        "enabled": stand.open,
        "state": stand.word,
        "source": stand.source,
        "reason": stand.reason,
        "what_to_do": stand.hint,
        "trouble": trouble if stand.open else "",
    }


def _problems(daemon: Running, shortage: str) -> list[str]:
    """What a person should look at, the most urgent first."""
    problems = [tr("config.yaml was not taken over: {problem}", problem=problem) for problem in daemon.config_problems]
    folders = daemon.desk.folders
    if daemon.desk.disk_full_since is not None:
        problems.append(
            tr("{problem}; deliveries wait: free some space (df -h, df -i)", problem=daemon.desk.disk_full_since)
        )
    if daemon.desk.index.no_room:
        problems.append(tr("{problem}; deliveries wait for room", problem=daemon.desk.index.no_room))
    if folders.is_away:
        problems.append(away(folders.root))
    problems += [why_apart(folder) for folder in sorted(daemon.desk.apart.values())]
    problems += [shortage] if shortage else []
    if daemon.watch.deaf:
        problems.append(tr("{why}; the folders are polled instead", why=daemon.watch.deaf))
    if not folders.atomic_renames:
        problems.append(
            tr(
                "{path}: this file system has no RENAME_NOREPLACE; a file put in the way in the same instant could be "
                "overwritten: use ext4, xfs or btrfs",
                path=folders.root,
            )
        )
    problems += daemon.workshop.admission.problems()[:_MOST_LISTED]
    problems += daemon.workshop.store.problems()[:_MOST_LISTED]
    problems += daemon.companion_problems[:_MOST_LISTED]
    return problems + [text for _, text in list(daemon.outbox.problems.items())[:_MOST_LISTED]]


def _line(
    daemon: Running,
    counts: Mapping[str, int],
    sending: int,
    delivered_today: int,
    integrations: Mapping[str, Mapping[str, Any]],
    problems: list[str],
) -> str:
    """`watching /var/lib/tfwatch/outbox · 2 sending · 14 submitted · 312 delivered today · S3 retrying`."""
    parts = [tr("watching {folder}", folder=printable(daemon.desk.folders.folder(Stage.OUTBOX)))]
    parts += [ntr("{count} waiting", "{count} waiting", counts["outbox"])] if counts["outbox"] else []
    parts += [ntr("{count} sending", "{count} sending", sending)] if sending else []
    parts.append(ntr("{count} submitted", "{count} submitted", counts["submitted"]))
    parts.append(ntr("{count} delivered today", "{count} delivered today", delivered_today))
    for name, stand in integrations.items():
        if stand["state"] not in ("enabled", "off"):
            state = integration_state(stand["state"])
            parts.append(tr("{name} {state}: {reason}", name=name, state=state, reason=stand["reason"]))
        elif stand["trouble"]:
            parts.append(tr("{name} in trouble: {trouble}", name=name, trouble=stand["trouble"]))
    parts += problems[:1]
    return " · ".join(parts).encode("utf-8", "backslashreplace").decode()


def to_json(snapshot: Snapshot) -> str:
    """The document and the line, dated."""
    return json.dumps({"at": rfc3339(datetime.now(UTC)), "line": snapshot.line, **snapshot.document}, indent=1)
