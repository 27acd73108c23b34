"""Retention's own thread: beside the loop, in small portions, and never in a delivery's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from tfwatch.delivery.desk import Desk
from tfwatch.delivery.retention import REMOVED_FROM, Retention, days_of
from tfwatch.delivery.switch import Switch
from tfwatch.delivery.wiring import Wiring
from tfwatch.errors import Stopping
from tfwatch.language import tr
from tfwatch.ledger.room import outlook
from tfwatch.model import Stage

_EVERY_SECONDS: Final = 600.0
"""Between two looks. What is due may wait so long; nobody waits for it."""


class Housekeeping:
    """A companion of the loop: removes what is due, and looks ahead whether the disk fills before that helps.

    `s3`: whether S3 may be used now. `stop` ends it too; `failed` ends the process.
    """

    def __init__(
        self,
        desk: Desk,
        retention: Retention,
        *,
        wiring: Callable[[], Wiring],
        s3: Switch,
        stop: threading.Event,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._desk = desk
        self._retention = retention
        self._wiring = wiring
        self._s3 = s3
        self._stop = stop
        self._failed = failed
        self._bell = threading.Event()
        self._outlook = ""
        self._thread = threading.Thread(target=self._work, name="retention", daemon=True)

    @property
    def problems(self) -> tuple[str, ...]:
        """What a person should look at, for `status`; empty while all is well."""
        return (*filter(None, (self._outlook, self.held)), *self._retention.problems)

    def configure(self) -> None:
        """Other settings: look again at once."""
        self._bell.set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, deadline: float) -> None:
        """End, until `deadline` (monotonic): between two pieces of a file that is being read, at the latest."""
        self._stop.set()
        self._bell.set()
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                self._bell.clear()
                self._look()
                self._bell.wait(_EVERY_SECONDS)
        except Stopping:
            return
        except BaseException as error:  # noqa: BLE001  ends the process, with its traceback
            self._failed(error)

    def _look(self) -> None:
        wiring = self._wiring()
        self._outlook = self._look_ahead(wiring)
        if self._retention.run(wiring, wiring.storage if self._s3.stand.open else None):
            self._outlook = self._look_ahead(wiring)

    @property
    def outlook(self) -> str:
        """That the disk fills before retention can help, and when; empty when it doesn't."""
        return self._outlook

    @property
    def held(self) -> str:
        """Why nothing delivered is removed though it should be; empty when it is."""
        wiring = self._wiring()
        if wiring.policy.delivered_days is None or (wiring.storage is not None and self._s3.stand.open):
            return ""
        return tr(
            "retention.delivered_days: nothing is removed from delivered/ while s3 is {state}, since a ZIP goes only "
            "when its backup is found whole: enable s3, or remove the line",
            state=self._s3.stand.word,
        )

    def _look_ahead(self, wiring: Wiring) -> str:
        policy, folders = wiring.policy, self._desk.folders
        days = {stage: days_of(policy, stage) for stage in REMOVED_FROM}
        if wiring.storage is None:
            days[Stage.DELIVERED] = None
        free, least = folders.free_bytes(), policy.min_free_bytes
        return outlook(self._desk.index, self._desk.now(), days, free_bytes=free, least_bytes=least) or ""
