"""Alerts by apprise: Slack, e-mail and a hundred others, each by its address. Imported only when there are any."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Sequence
from typing import Final

import apprise

from tfwatch.errors import TransientError
from tfwatch.model import AlertMessage

_CODE: Final = re.compile(r"\berror=(\d{3})\b")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE)


class _Overheard(logging.Handler):
    """Apprise's own log, kept to itself: its words may quote an address. Of each thread only the last code is kept."""

    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self._codes = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        found = _CODE.search(record.getMessage())
        if found:
            self._codes.last = found[1]

    def take(self) -> str:
        """The code that was named since the last time, in this thread; empty for none."""
        last: str = getattr(self._codes, "last", "")
        self._codes.last = ""
        return last


_overheard: Final = _Overheard()


class Address:
    """One address: implements `AlertPort`."""

    def __init__(self, service: apprise.Apprise, shown_as: str) -> None:
        self.shown_as = shown_as
        self._service = service
        # What it waits for a connection or an answer: 4 s, unless the address says otherwise (`cto=`, `rto=`).
        self._patience = min(service[0].socket_connect_timeout, service[0].socket_read_timeout)

    def send(self, message: AlertMessage) -> None:
        """Tell it; see `AlertPort`."""
        _overheard.take()
        began = time.monotonic()
        try:
            is_told = self._service.notify(
                title=message.title,
                body=message.body,
                notify_type=apprise.NotifyType.SUCCESS if message.is_over else apprise.NotifyType.WARNING,
                body_format=apprise.NotifyFormat.TEXT,
            )
        except Exception as error:  # noqa: BLE001  one of a hundred plugins; their words may quote the address
            raise TransientError(f"its plugin failed ({type(error).__name__})") from None
        if not is_told:
            raise TransientError(self._why(_overheard.take(), time.monotonic() - began))

    def _why(self, code: str, seconds: float) -> str:
        if code:
            return f"it was refused there (HTTP {code})"
        if seconds >= self._patience:
            return f"no answer for {seconds:.0f} s"
        return "it can't be reached, or refused it"


def connect(urls: Sequence[str]) -> tuple[tuple[Address, ...], tuple[str, ...]]:
    """The addresses that apprise understands, and a sentence on each that it doesn't. Makes no request."""
    logger = logging.getLogger("apprise")
    logger.handlers, logger.propagate = [_overheard], False
    addresses, problems = [], []
    for n, url in enumerate(urls):
        scheme = _SCHEME.match(url)
        shown_as = f"alerts.urls[{n}] ({scheme[0].lower() if scheme else '?'})"
        # One object each, and without apprise's pool of threads, which a process waits for at its end.
        asset = apprise.AppriseAsset(async_mode=False, service_timeout=0, app_id="tfwatch", app_desc="tfwatch")
        service = apprise.Apprise(asset=asset)
        if service.add(url):
            addresses.append(Address(service, shown_as))
        else:
            problems.append(f"{shown_as}: apprise knows no such address; its wiki lists them: appriseit.com")
    return tuple(addresses), tuple(problems)
