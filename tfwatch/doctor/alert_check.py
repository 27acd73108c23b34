"""The addresses that people are told at: are they understood, and, when asked for, does a message get there?"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final

from tfwatch.connections import connect_alerts
from tfwatch.doctor.case import Case
from tfwatch.doctor.finding import Finding, failure, ok, skipped
from tfwatch.errors import ServiceError, TransientError
from tfwatch.model import AlertMessage
from tfwatch.ports import AlertPort

PATIENCE_SECONDS: Final = 20.0
"""After so long an address has not taken the message."""

_LIST: Final = "write it as apprise asks for: appriseit.com lists all kinds"


class Addresses:
    """The addresses of `alerts.urls`. Connecting makes no request; nothing is sent before `tell`."""

    def __init__(self, case: Case) -> None:
        self._urls = tuple(url.get_secret_value() for url in case.config.alerts.urls)
        self._broken = bool(case.settings.problems)
        self._failure: ServiceError | None = None
        self._told: dict[str, str] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._begun = 0.0
        self._ports: Sequence[AlertPort] = ()
        self._unknown: Sequence[str] = ()
        if self._urls:
            try:
                self._ports, self._unknown = connect_alerts(self._urls)
            except ServiceError as error:
                self._failure = error

    def tell(self, user: str, spool: str) -> None:
        """Send a test message to each of them at once; returns without waiting."""
        body = f"tfwatch doctor was asked by a person to send this, for {spool} as {user}. Nothing is wrong."
        message = AlertMessage(title="tfwatch: test alert", body=body, is_over=False)
        self._begun = time.monotonic()
        for port in self._ports:
            # A thread of its own that nobody waits for at the end: some ways of sending can't be cut short.
            thread = threading.Thread(target=self._send, args=(port, message), daemon=True)
            self._threads[port.shown_as] = thread
            thread.start()

    def findings(self) -> Iterator[Finding]:
        """What is known of each address. Waits for what is being sent."""
        if self._broken:
            yield skipped("alerts", "the settings have problems")
        elif not self._urls:
            yield skipped("alerts", "alerts.urls is empty: alerts stand in the journal alone")
        elif self._failure is not None:
            yield failure("alerts", str(self._failure), self._failure.hint)
        for what in self._unknown:
            seen, _, _ = what.partition("; ")
            yield failure("alerts", seen, _LIST)
        for port in self._ports:
            yield self._of(port.shown_as)

    def _of(self, name: str) -> Finding:
        thread = self._threads.get(name)
        if thread is None:
            return ok("alerts", f"{name} is understood; --send-test-alert tries it")
        thread.join(max(0.0, self._begun + PATIENCE_SECONDS - time.monotonic()))
        said = self._told.get(name, f"no answer within {PATIENCE_SECONDS:g} s")
        if said:
            return failure("alerts", f"{name}: {said}", "check the address, and the network to it")
        return ok("alerts", f"{name} took a test alert: look whether it has come")

    def _send(self, port: AlertPort, message: AlertMessage) -> None:
        try:
            port.send(message)
        except TransientError as error:
            self._told[port.shown_as] = error.message
        else:
            self._told[port.shown_as] = ""
