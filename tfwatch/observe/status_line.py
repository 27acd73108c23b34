"""The one plain line that `systemctl status` shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from tfwatch.language import ntr, tr
from tfwatch.local_time import time_of_day
from tfwatch.model import parse_rfc3339
from tfwatch.wording import integration_state

NAMES: Final = {"gotranscript": "GoTranscript", "s3": "S3", "sheets": "Sheets"}
"""The integrations as people call them."""


def line(
    folder: str,
    counts: Mapping[str, int],
    *,
    sending: int,
    delivered_today: int,
    integrations: Mapping[str, Mapping[str, Any]],
    problems: Sequence[str],
    now: datetime,
) -> str:
    """`watching /var/lib/tfwatch/outbox · 2 sending · 14 submitted · 312 delivered today · S3 retrying since 10:42`.

    `integrations` and `problems` as the state has them; the most urgent problem comes last.
    """
    parts = [tr("watching {folder}", folder=folder)]
    parts += [ntr("{count} waiting", "{count} waiting", counts["outbox"])] if counts["outbox"] else []
    parts += [ntr("{count} sending", "{count} sending", sending)] if sending else []
    parts.append(ntr("{count} submitted", "{count} submitted", counts["submitted"]))
    parts.append(ntr("{count} delivered today", "{count} delivered today", delivered_today))
    parts += [words for name, stand in integrations.items() if (words := _integration(NAMES[name], stand, now))]
    parts += problems[:1]
    return " · ".join(parts).encode("utf-8", "backslashreplace").decode()


def _integration(name: str, stand: Mapping[str, Any], now: datetime) -> str:
    """What there is to say of an integration; empty when it works, or is off as the configuration wants."""
    if stand["state"] not in ("enabled", "off"):
        return tr(
            "{name} {state}: {reason}", name=name, state=integration_state(stand["state"]), reason=stand["reason"]
        )
    if not stand["trouble"]:
        return ""
    since = time_of_day(parse_rfc3339(stand["trouble_since"]), now)
    if stand["needs_person"]:
        return tr("{name} in trouble since {time}: {words}", name=name, time=since, words=stand["trouble"])
    return tr("{name} retrying since {time}", name=name, time=since)
