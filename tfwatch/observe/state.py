"""What the running daemon shows of itself, as one JSON document; `tfwatch status` adds what the log knows."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from tfwatch.delivery.claim import Outbox
from tfwatch.delivery.desk import Desk, why_apart
from tfwatch.delivery.switch import Switch
from tfwatch.delivery.wiring import Wiring
from tfwatch.language import tr
from tfwatch.local_time import midnight
from tfwatch.model import Integration, Stage, rfc3339
from tfwatch.observe import status_line
from tfwatch.spool.listing import Entry
from tfwatch.spool.names import printable
from tfwatch.spool.root import away
from tfwatch.watch import Watch
from tfwatch.workshop import Workshop

_MOST_LISTED: Final = 50


class Alerting(Protocol):
    """Who tells people of what goes wrong."""

    def going_on(self) -> list[dict[str, Any]]:
        """Each alert that is not over: its key, since when, its words."""
        ...


class Running(Protocol):
    """What a snapshot is taken of: the daemon."""

    desk: Desk
    outbox: Outbox
    watch: Watch
    workshop: Workshop
    switches: dict[Integration, Switch]
    alerting: Alerting | None

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


def take(daemon: Running, *, exec_id: str, version: str, still: Sequence[str] = ()) -> Snapshot:
    """Look at everything once. Counts come from the folders and the log; nothing here is remembered.

    `still`: what stands still, in words.
    """
    index, works = daemon.desk.index, daemon.workshop.board.snapshot()
    counts = {stage.value: count for stage, count in index.stage_counts().items()}
    counts["outbox"] = len(daemon.outbox.unclaimed)
    counts["claimed"] = len(claimed(daemon))
    today = datetime.now(UTC)
    delivered_today = index.settled_since(midnight(today))
    now = time.monotonic()
    integrations = {name.value: _integration(daemon, name) for name in Integration}
    shortage = daemon.desk.folders.shortage(daemon.wiring.policy.min_free_bytes)
    problems = [*still, *_problems(daemon, shortage)]
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
        "alerts": daemon.alerting.going_on() if daemon.alerting else [],
        "problems": problems,
        "shortage": shortage,
    }
    sending = sum(work.doing in ("sending", "inspecting") for work in works)
    folder = printable(daemon.desk.folders.folder(Stage.OUTBOX))
    line = status_line.line(
        folder, counts, sending=sending, delivered_today=delivered_today, integrations=integrations,
        problems=problems, now=today,
    )  # fmt: skip
    return Snapshot(document=document, line=line)


def claimed(daemon: Running) -> tuple[Entry, ...]:
    """What lies in claimed/ now; nothing while a mount hides it, which the loop says."""
    try:
        return daemon.desk.folders.list(Stage.CLAIMED).entries
    except OSError:
        return ()


def _integration(daemon: Running, name: Integration) -> dict[str, Any]:
    stand = daemon.switches[name].stand
    trouble = daemon.workshop.troubles[name] if stand.open else None
    return {
        "enabled": stand.open,
        "state": stand.word,
        "source": stand.source,
        "reason": stand.reason,
        "what_to_do": stand.hint,
        "trouble": trouble.words if trouble else "",
        "trouble_since": rfc3339(trouble.since) if trouble else "",
        "needs_person": trouble.needs_person if trouble else False,
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
    problems += list(daemon.desk.left_aside.values())[:_MOST_LISTED]
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


def to_json(snapshot: Snapshot) -> str:
    """The document and the line, dated."""
    return json.dumps({"at": rfc3339(datetime.now(UTC)), "line": snapshot.line, **snapshot.document}, indent=1)
