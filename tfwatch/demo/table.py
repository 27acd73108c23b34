"""The demo's live table; where there is no terminal, a plain line for each change."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tfwatch.demo.sight import Sight
from tfwatch.model import Stage

COLOURS: Final = {
    Stage.OUTBOX: "yellow",
    Stage.CLAIMED: "yellow",
    Stage.SUBMITTED: "cyan",
    Stage.DELIVERED: "green",
    Stage.REJECTED: "red",
}


class LiveTable:
    """`with LiveTable(console) as table: table.show(sights, caption)`, as often as there may be news."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._shown: dict[str, Sight] = {}

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, sights: Sequence[Sight], caption: str) -> None:
        """Draw the packages as they are now, or print what has changed since the last call."""
        seconds = time.monotonic() - self._began
        if self._live is not None:
            self._live.update(_table(sights, f"{seconds:.0f} s · {caption}"), refresh=True)
            return
        for sight in sights:
            if sight != self._shown.get(sight.name) and (sight.stage or sight.event):
                self._shown[sight.name] = sight
                self._console.print(_line(seconds, sight), soft_wrap=True, highlight=False, markup=False)


def _table(sights: Sequence[Sight], caption: str) -> Table:
    table = Table(caption=caption, caption_justify="left", expand=False)
    for column in ("package", "lies in", "status", "last event", "order", "backed up", "progress"):
        table.add_column(column, no_wrap=column != "package", overflow="fold")
    for sight in sights:
        name = Text(sight.name)
        if sight.note:
            name.append(f"\n{sight.note}", style="dim")
        place = Text(f"{sight.stage}/", style=COLOURS[sight.stage]) if sight.stage else Text("-", style="dim")
        backed_up = Text("yes", style="green") if sight.backed_up else Text("")
        table.add_row(name, place, sight.status, sight.event, sight.order_id, backed_up, _progress(sight))
    return table


def _progress(sight: Sight) -> Text:
    left = sight.steps - sight.done
    bar = Text("█" * sight.done + "░" * left, style="green" if left == 0 else "cyan")
    return bar.append(f" {sight.doing}", style="dim") if sight.doing else bar


def _line(seconds: float, sight: Sight) -> str:
    """`  12.3 s  podcast-042_v2.zip    submitted/  ACCEPTED  dlv_…`"""
    words = [
        f"{seconds:6.1f} s",
        f"{sight.name:<20}",
        f"{f'{sight.stage}/' if sight.stage else '-':<11}",
        f"{sight.event:<10}",
        *filter(None, (sight.order_id, "backed up" if sight.backed_up else "", sight.doing)),
    ]
    return "  ".join(words).rstrip()
