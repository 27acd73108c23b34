"""Whether a lane stands still: then the watchdog is told no longer, and systemd starts the daemon anew."""

from __future__ import annotations

from loguru import logger

from tfwatch.delivery.progress import Board, Work
from tfwatch.language import tr
from tfwatch.spool.names import printable


class Standstill:
    """Looks at the board with each beat, and tells of each standstill once, with its end. Used by the loop alone.

    A package that is old is none, nor is a wait on purpose: only work of which not a byte has moved for twice its
    timeout. `is_watched`: systemd waits for the watchdog's beat.
    """

    def __init__(self, *, is_watched: bool) -> None:
        self._is_watched = is_watched
        self._told: dict[tuple[str, str, float], Work] = {}

    def look(self, board: Board) -> list[str]:
        """What stands still, in words; empty when everything moves."""
        still = {(work.name, work.doing, work.began): (work, seconds) for work, seconds in board.standing_still()}
        for key, (work, seconds) in still.items():
            if key not in self._told:
                self._told[key] = work
                _tell(work, self._words(work, seconds))
        for key in self._told.keys() - still.keys():
            work = self._told.pop(key)
            _tell(work, tr("{package}: it goes on ({doing})", package=printable(work.name), doing=work.doing))
        return [self._words(work, seconds) for work, seconds in still.values()]

    def _words(self, work: Work, seconds: float) -> str:
        values = {"package": printable(work.name), "doing": work.doing, "seconds": round(seconds)}
        if self._is_watched:
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


def _tell(work: Work, words: str) -> None:
    logger.bind(EVENT="ALERT", PACKAGE=printable(work.name)).warning("{}", words)
