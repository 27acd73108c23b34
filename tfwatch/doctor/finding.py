"""One thing that was looked at: how it stands, and what a person can do. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Result = Literal["ok", "warning", "failure", "skipped"]
"""`warning`: deliveries go on, but not at their best. `failure`: something doesn't work. `skipped`: not looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found. `check`: its stable name; `seen`: in words; `what_to_do`: empty when there is nothing."""

    check: str
    result: Result
    seen: str
    what_to_do: str = ""


def ok(check: str, seen: str) -> Finding:
    """It is as it should be."""
    return Finding(check=check, result="ok", seen=seen)


def warning(check: str, seen: str, what_to_do: str) -> Finding:
    """It works, but a person should know."""
    return Finding(check=check, result="warning", seen=seen, what_to_do=what_to_do)


def failure(check: str, seen: str, what_to_do: str) -> Finding:
    """It doesn't work, or won't."""
    return Finding(check=check, result="failure", seen=seen, what_to_do=what_to_do)


def skipped(check: str, why: str, what_to_do: str = "") -> Finding:
    """It was not looked at, and why."""
    return Finding(check=check, result="skipped", seen=why, what_to_do=what_to_do)
