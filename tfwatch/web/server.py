"""The web server beside the loop: one thread that serves as configured, and tries again whatever stops it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from loguru import logger

from tfwatch.language import tr
from tfwatch.web.site import Serving, Site

if TYPE_CHECKING:
    from tfwatch.web.listener import Listener

_AGAIN_SECONDS: Final = 2.0
"""Between two looks at whether a port that was taken is free."""

_AFTER_A_BUG_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 2.0


class WebServer:
    """A companion of the loop. Whatever befalls it is told once and tried again; no delivery notices."""

    def __init__(self, site: Site, serving: Callable[[], Serving]) -> None:
        self._site = site
        self._read = serving
        self._changed = threading.Condition()
        self._wanted: Serving | None = None
        self._is_started = False
        self._is_stopping = False
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None
        self._problem = ""

    @property
    def problems(self) -> tuple[str, ...]:
        """What a person should look at, for `status`."""
        return (self._problem,) if self._problem else ()

    # --- told by the loop --------------------------------------------------------------------------------------------

    def configure(self) -> None:
        """Take over the section `web`; a server that runs begins anew only where it says something else."""
        serving = self._read()
        with self._changed:
            if serving == self._wanted:
                return
            self._wanted = serving
            self._wake()

    def start(self) -> None:
        """Begin to serve, in a thread of its own; nothing of the server is imported while it is off."""
        with self._changed:
            self._is_started = True
            self._wake()

    def stop(self, deadline: float) -> None:
        """End, until `deadline` (monotonic)."""
        with self._changed:
            self._is_stopping = True
            self._wake()
        if self._thread is not None:
            self._thread.join(max(0.0, min(_STOP_SECONDS, deadline - time.monotonic())))

    def _wake(self) -> None:
        """Let the thread look again at what is wanted; there is none before the first time something is."""
        if self._listener is not None:
            self._listener.end()
        is_wanted = self._is_started and not self._is_stopping and self._wanted is not None and self._wanted.enabled
        if self._thread is None and is_wanted:
            self._thread = threading.Thread(target=self._run, name="web", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        failed: Serving | None = None
        pause = 0.0
        while (serving := self._next(failed, pause)) is not None:
            failed = serving
            try:
                self._serve(serving)
            except OSError as error:
                pause = _AGAIN_SECONDS
                self._trouble(serving, str(error.strerror or error), error)
            except (Exception, SystemExit) as error:  # noqa: BLE001  a bug in here must not end the deliveries
                pause = _AFTER_A_BUG_SECONDS
                self._trouble(serving, f"{type(error).__name__}: {error}", error)
            else:
                failed = None

    def _next(self, failed: Serving | None, pause: float) -> Serving | None:
        """What to serve next: what is wanted now; what has failed, after a pause. None: no more."""
        until = time.monotonic() + pause
        with self._changed:
            while not self._is_stopping:
                wanted = self._wanted
                if wanted is None or not wanted.enabled:
                    self._problem = ""
                    self._changed.wait()
                elif wanted == failed and (left := until - time.monotonic()) > 0:
                    self._changed.wait(left)
                else:
                    return wanted
        return None

    def _serve(self, serving: Serving) -> None:
        """Serve this until something else is wanted. Raises OSError, and whatever a bug raises."""
        from tfwatch.web.listener import Listener

        listener = Listener(self._site, serving)
        with self._changed:
            self._listener = listener
            if self._is_stopping or self._wanted != serving:
                listener.end()
        self._problem = ""
        logger.info("serving {}", listener.url)
        try:
            listener.run()
        finally:
            with self._changed:
                self._listener = None
                is_over = self._is_stopping or self._wanted != serving
        if not is_over:
            raise RuntimeError("it ended by itself")

    def _trouble(self, serving: Serving, why: str, error: BaseException) -> None:
        words = tr(
            "the web server can't serve {host} port {port}: {why}; deliveries go on, and it is tried again",
            host=serving.host, port=serving.port, why=why,
        )  # fmt: skip
        if not self._problem and not isinstance(error, OSError):
            logger.opt(exception=error).error("the web server ended")
        self._problem = words
