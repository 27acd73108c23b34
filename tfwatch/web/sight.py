"""What the status page is made of: a look at the spool from inside the daemon, and its figures."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from tfwatch import language, local_time
from tfwatch.look import Settings, View
from tfwatch.observe.metrics import Metrics, Source, snapshot_metrics
from tfwatch.observe.state import Running


class Sight:
    """The same as the commands see, without opening anything again. Any thread may look."""

    def __init__(self, running: Running, figures: Source, settings: Callable[[], Settings]) -> None:
        self._running = running
        self._figures = figures
        self._settings = settings

    def view(self) -> View:
        """A look at the spool as it is now."""
        desk = self._running.desk
        return View(self._settings(), desk.folders, running=True, index=desk.index)

    def metrics(self) -> Metrics:
        """The figures as they are now."""
        return snapshot_metrics(self._figures)

    @property
    def language(self) -> str:
        """The page's language, as HTML names it: `en`, `pt-BR`."""
        return language.spoken()

    def when(self, moment: datetime) -> str:
        """A moment for people's eyes."""
        return local_time.to_the_second(moment)
