"""Whether a lane stands still: then the watchdog is told no longer, and systemd starts the daemon anew."""

from __future__ import annotations

from tfwatch.delivery.progress import Board, Work
from tfwatch.language import tr
from tfwatch.spool.names import printable


def standing_still(board: Board, *, is_watched: bool) -> list[tuple[Work, str]]:
    """The work that stands still, each with what to tell a person of it; empty when everything moves.

    A package that is old is none, nor is a wait on purpose: only work of which not a byte has moved for twice its
    timeout. `is_watched`: systemd waits for the watchdog's beat.
    """
    return [(work, _words(work, seconds, is_watched=is_watched)) for work, seconds in board.standing_still()]


def _words(work: Work, seconds: float, *, is_watched: bool) -> str:
    values = {"package": printable(work.name), "doing": work.doing, "seconds": round(seconds)}
    if is_watched:
        return tr(
            "{package}: not a byte has moved for {seconds} s ({doing}); the watchdog is not told any more, so "
            "systemd starts tfwatch anew: see what holds that file or service up",
            **values,
        )
    return tr(
        "{package}: not a byte has moved for {seconds} s ({doing}); see what holds that file or service up, or "
        "start tfwatch anew",
        **values,
    )
