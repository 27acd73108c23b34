"""Room on the spool's disk, and whether removing old packages can keep it free."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from tfwatch.doctor.case import Case
from tfwatch.doctor.finding import Finding, failure, ok, warning
from tfwatch.ledger.index import Index, IndexUnusable
from tfwatch.ledger.room import outlook
from tfwatch.model import Stage

_FEW_FILES: Final = 10_000
_FREE: Final = "free some space: delivered/ and rejected/ hold what is settled (docs/OPERATIONS.md, Disk full)"


def space(case: Case) -> Iterator[Finding]:
    """Bytes and files that may still be written."""
    least = case.config.spool.min_free_bytes
    if full := case.folders.shortage(0):
        yield failure("space", f"{_without_hint(full)}; deliveries wait", _FREE)
        return
    if short := case.folders.shortage(least):
        yield warning("space", _without_hint(short), _FREE)
        return
    info = os.statvfs(case.folders.root)
    if info.f_files and info.f_favail < _FEW_FILES:
        seen = f"{case.folders.root}: room for only {info.f_favail:,} more files, whatever their size"
        yield warning("space", seen, "remove some files (df -i), or make the file system anew with more inodes")
        return
    yield ok(
        "space", f"{case.folders.free_bytes() / 2**30:,.1f} GiB free; spool.min_free_bytes is {least / 2**30:g} GiB"
    )


def _without_hint(shortage: str) -> str:
    return shortage.rpartition(": ")[0]


def retention(case: Case) -> Iterator[Finding]:
    """Whether what is set can be carried out, and in time."""
    days, s3 = case.config.retention.delivered_days, case.config.integrations.s3
    if days is not None and not s3.enabled:
        seen = f"retention.delivered_days is {days}, but s3 is off, and nothing is removed without a verified backup"
        yield warning("retention", seen, "set up integrations.s3, or remove the line")
        return
    if fills := _fills(case):
        yield warning("retention", fills, "docs/OPERATIONS.md, The disk fills")
        return
    kept = "for ever" if days is None else f"for {days} days, and until their backup is verified"
    yield ok("retention", f"delivered packages are kept {kept}")


def _fills(case: Case) -> str | None:
    """Whether the disk fills before anything is removed; None also while nothing is known of what comes in."""
    settings = case.config.retention
    delivered = settings.delivered_days if case.config.integrations.s3.enabled else None
    days = {Stage.DELIVERED: delivered, Stage.REJECTED: settings.rejected_days}
    free, least = case.folders.free_bytes(), case.config.spool.min_free_bytes
    if not os.path.exists(case.folders.index):
        return None
    try:
        with closing(Index(case.folders.index, read_only=True)) as index:
            return outlook(index, datetime.now(UTC), days, free_bytes=free, least_bytes=least)
    except (sqlite3.Error, IndexUnusable):
        return None  # the index has a check of its own
