"""What one address is still to be told, and the one message that tells it all. Pure: the clock is an argument."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from tfwatch.language import ntr, tr
from tfwatch.local_time import date_and_time
from tfwatch.model import AlertMessage
from tfwatch.observe.alerts import Turn

MOST_WAITING: Final = 50
"""An address that can't be reached is owed no more than this; what is older is only counted."""

_MOST_TOLD: Final = 20
_LONGEST_TEXT: Final = 600
_LONGEST_TITLE: Final = 100
_HOUR: Final = 3600.0
_HARMLESS: Final = str.maketrans({"<": "\u2039", ">": "\u203a", "@": "\uff20"})
"""Names come from strangers, and chats obey `<!channel>` and `@everyone`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One thing to tell: what goes on since `began`, or was so until `ended`. `text` may leave the house."""

    key: str
    text: str
    began: float
    ended: float | None = None
    was_told: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What an address is still to be told, the oldest first. `dropped`: how many more there were."""

    notices: tuple[Notice, ...] = ()
    dropped: int = 0

    def add(self, notice: Notice) -> Backlog:
        """What begins and ends untold is one thing to tell; what is told anew takes the place of what waits."""
        earlier = next((each for each in self.notices if each.key == notice.key and each.ended is None), None)
        if earlier is not None:
            rest = tuple(each for each in self.notices if each is not earlier)
            if notice.ended is not None:
                notice = replace(earlier, ended=notice.ended)
            return replace(self, notices=(*rest, replace(notice, began=min(notice.began, earlier.began))))
        notices = (*self.notices, notice)
        return Backlog(notices=notices[-MOST_WAITING:], dropped=self.dropped + max(0, len(notices) - MOST_WAITING))

    def all_of(self, later: Backlog) -> Backlog:
        """This one, and what came after it."""
        merged = replace(self, dropped=self.dropped + later.dropped)
        for notice in later.notices:
            merged = merged.add(notice)
        return merged


def notice_of(turn: Turn, now: float, *, names: bool) -> Notice:
    """What leaves the house of a turn. `names`: whether names of packages and words of services may."""
    condition = turn.condition
    text = condition.text if names or not condition.outside else condition.outside
    if turn.is_over:
        text = condition.over if names or not condition.over_outside else condition.over_outside
    return Notice(
        key=condition.key, text=text, began=turn.began, ended=now if turn.is_over else None, was_told=turn.is_over
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How soon the next message may follow: after 5 s, then twice as long for each one within the hour, at most 15 min.

    What comes meanwhile is told together. `first`, `longest`: seconds.
    """

    sent: tuple[float, ...] = ()
    first: float = 5.0
    longest: float = 900.0

    def after(self, now: float) -> Pace:
        """One was sent at `now`, on the same clock as all others."""
        return replace(self, sent=(*(at for at in self.sent if now - at < _HOUR), now)[-64:])

    def next_at(self, now: float) -> float:
        """The moment from which the next one may be sent."""
        recent = [at for at in self.sent if now - at < _HOUR]
        if not recent:
            return now
        return recent[-1] + min(self.longest, self.first * 2.0 ** (len(recent) - 1))


def compose(backlog: Backlog, *, host: str, root: str) -> AlertMessage:
    """One message for all of it. `root`: printable."""
    told = backlog.notices[-_MOST_TOLD:]
    untold = backlog.dropped + len(backlog.notices) - len(told)
    alerts = sum(not (each.ended is not None and each.was_told) for each in told)
    what = _shortened(told[0].text, _LONGEST_TITLE) if len(told) == 1 and not untold else _counted(told, alerts)
    if alerts == 0 and len(told) == 1:
        what = tr("over: {what}", what=what)
    lines = [_line(notice) for notice in told]
    if untold:
        more = ntr(
            "{count} more: journalctl -u tfwatch EVENT=ALERT", "{count} more: journalctl -u tfwatch EVENT=ALERT", untold
        )
        lines.insert(0, more)
    lines.append(tr("Host {host}, spool {root}. How things stand now: tfwatch status", host=host, root=root))
    return AlertMessage(
        title=tr("tfwatch on {host}: {what}", host=host, what=what).translate(_HARMLESS),
        body="\n\n".join(lines).translate(_HARMLESS),
        is_over=alerts == 0,
    )


def _counted(told: Iterable[Notice], alerts: int) -> str:
    over = sum(each.ended is not None and each.was_told for each in told)
    parts = [ntr("{count} alert", "{count} alerts", alerts)] if alerts else []
    parts += [ntr("{count} over", "{count} over", over)] if over else []
    return ", ".join(parts)


def _line(notice: Notice) -> str:
    text, began = _shortened(notice.text, _LONGEST_TEXT), _shown(notice.began)
    if notice.ended is None:
        return tr("{at}: {what}", at=began, what=text)
    ended = _shown(notice.ended)
    if notice.was_told:
        return tr("{at}: over (since {began}): {what}", at=ended, began=began, what=text)
    return tr("{began} until {at}, over by now: {what}", at=ended, began=began, what=text)


def _shown(moment: float) -> str:
    return date_and_time(datetime.fromtimestamp(moment, UTC))


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
