"""systemd's ear: what a service of `Type=notify` tells it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Final

from loguru import logger

Notify = Callable[[str], None]

_MOST_BYTES: Final = 2000
"""systemd takes no message of more than 4,096 bytes (its NOTIFY_BUFFER_MAX), and all of it is lost then."""

_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def notifier(environ: Mapping[str, str]) -> Notify:
    """How to tell systemd something; does nothing when it isn't there or systemd-python isn't installed."""
    if not environ.get("NOTIFY_SOCKET"):
        return lambda message: None
    try:
        from systemd import daemon
    except ImportError:
        logger.warning("NOTIFY_SOCKET is set, but systemd-python is not installed: pip install 'tfwatch[systemd]'")
        return lambda message: None
    notify: Notify = daemon.notify
    return notify


def watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """How often systemd wants to hear from this process; None when it doesn't (or it is meant for another one)."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        seconds = int(environ.get("WATCHDOG_USEC", "")) / 1e6
    except ValueError:
        return None
    return seconds if seconds > 0 else None


def status(line: str) -> str:
    """`STATUS=` and a line that stays one line: a line end in a stranger's words would begin a field of its own."""
    text = _UNSAFE.sub(" ", line).encode()
    if len(text) > _MOST_BYTES:
        text = text[:_MOST_BYTES].decode(errors="ignore").encode() + "…".encode()
    return f"STATUS={text.decode()}"


def extend(seconds: float) -> str:
    """A start or stop takes longer: wait for it so long from now."""
    return f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}"
