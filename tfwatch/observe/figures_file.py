"""logs/observability.json: the figures for whoever collects them without HTTP, kept up to date beside the loop."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Final

from loguru import logger

from tfwatch.language import tr
from tfwatch.observe.metrics import Source, snapshot_metrics
from tfwatch.observe.observability import document
from tfwatch.spool.durable import write_file
from tfwatch.spool.folders import Folders
from tfwatch.spool.names import printable

_AT_LEAST_EACH_SECONDS: Final = 60.0
_AT_MOST_EACH_SECONDS: Final = 1.0
"""Between two writings that rows of the log ask for."""

_AFTERWARDS_SECONDS: Final = 6.0
"""After the last row it is written once more: by then what was under way has come to rest."""


class FiguresFile:
    """Keeps logs/observability.json: written soon after each row of the log, at least each minute, and when asked.

    A companion of the loop. Readers see the old document or the new one. `failed` ends the process.
    """

    def __init__(self, folders: Folders, source: Source, *, failed: Callable[[BaseException], None]) -> None:
        self._folders = folders
        self._source = source
        self._failed = failed
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._began = float("-inf")
        self._problem = ""
        self._thread = threading.Thread(target=self._keep, name="figures", daemon=True)

    @property
    def problems(self) -> tuple[str, ...]:
        """What a person should look at, for `status`."""
        return (self._problem,) if self._problem else ()

    def configure(self) -> None:
        """There is nothing to set."""

    def start(self) -> None:
        """Write it, and from now on keep it."""
        self._thread.start()

    def stop(self, deadline: float) -> None:
        """Keep it no longer. What is logged from now on is for `write_now`."""
        self._stopping.set()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def tell(self) -> None:
        """A row came into the log or the sheet: the document is old. Returns at once."""
        self._news.set()

    def write_now(self) -> None:
        """When this returns, the document shows what was in the log when it was called.

        Of several that call at once, one writes for all. A disk that takes no file is told in the journal, not raised.
        """
        asked = time.monotonic()
        with self._lock:
            if self._began <= asked:
                self._began = time.monotonic()
                self._write()

    def _keep(self) -> None:
        try:
            while not self._stopping.is_set():
                is_news = self._news.is_set()
                self._news.clear()
                self.write_now()
                self._stopping.wait(_AT_MOST_EACH_SECONDS)
                self._news.wait(_AFTERWARDS_SECONDS if is_news else _AT_LEAST_EACH_SECONDS - _AT_MOST_EACH_SECONDS)
        except BaseException as error:  # noqa: BLE001  ends the process, with its traceback
            self._failed(error)

    def _write(self) -> None:
        text = json.dumps(document(snapshot_metrics(self._source)), indent=1)
        try:
            write_file(self._folders.observability, text + "\n", mode=0o640, durable=False)
        except OSError as error:
            before, self._problem = self._problem, tr(
                "{path}: the file with the figures can't be written: {why}; it is tried again within a minute",
                path=printable(self._folders.observability), why=error.strerror or error,
            )  # fmt: skip
            if self._problem != before:
                logger.warning("{}", self._problem)
        else:
            self._problem = ""
