"""What systemd is to a service: the socket it is told on, and a journal. Both are real; only the manager is missing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.daemon import PATIENCE, Spool, wait_until
from tests.support.host import unmet
from tests.support.require import need, need_module

_BUFFER_BYTES = 4096
"""What systemd reads of a message at most; it ignores a longer one (252, NOTIFY_BUFFER_MAX)."""


@dataclass(frozen=True, slots=True)
class Message:
    """One datagram: its assignments, and when it came (monotonic seconds)."""

    at: float
    fields: Mapping[str, str]


class NotifySocket:
    """Where a service of `Type=notify` tells how it is. Reads as systemd does: one datagram, `NAME=value` a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[Message] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def env(self, *, watchdog_seconds: float | None = None) -> dict[str, str]:
        """What systemd gives the service to know it by."""
        words = {"NOTIFY_SOCKET": str(self.path)}
        return words | ({"WATCHDOG_USEC": str(round(watchdog_seconds * 1e6))} if watchdog_seconds else {})

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def values(self, name: str) -> list[str]:
        """All that was said under one name."""
        return [message.fields[name] for message in list(self.messages) if name in message.fields]

    @property
    def status(self) -> str:
        """What `systemctl status` would show now."""
        return (self.values("STATUS") or [""])[-1]

    def wait_for_status(self, shows: Callable[[str], object], what: str, seconds: float = PATIENCE) -> str:
        """Wait until the status line is such, and give it."""
        try:
            wait_until(lambda: shows(self.status), what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is: {self.status}") from None
        return self.status

    def wait_for(self, name: str, *, count: int = 1, seconds: float = PATIENCE) -> Message:
        """Wait until something was said under that name so often; gives the message that made it."""
        wait_until(lambda: len(self.values(name)) >= count, f"{count} {name}", seconds)
        return [message for message in list(self.messages) if name in message.fields][count - 1]

    def _listen(self) -> None:
        while True:
            data = self._socket.recv(2 * _BUFFER_BYTES)
            if not data:
                return
            if len(data) <= _BUFFER_BYTES:
                pairs = (line.partition("=") for line in data.decode().split("\n"))
                self.messages.append(Message(time.monotonic(), {name: value for name, _, value in pairs}))


@contextmanager
def notify_socket(home: Path) -> Iterator[NotifySocket]:
    """One for the length of the block."""
    need_module("systemd.daemon")
    made = NotifySocket(home / "notify")
    try:
        yield made
    finally:
        made.close()


class Journal:
    """A journald of its own, in a mount namespace of its own. `wrap` starts a program in there."""

    def __init__(self, home: Path, process: subprocess.Popen[bytes]) -> None:
        self._folder = home / "journal"
        namespace = f"/proc/{process.pid}/ns/mnt"
        self.wrap = ("nsenter", f"--mount={namespace}", "sh", "-c", f'cd {os.getcwd()} && exec "$@"', "sh")

    def entries(self, *matches: str) -> list[dict[str, str]]:
        """What `journalctl MATCH…` finds, the oldest first."""
        command = ["journalctl", f"--directory={self._folder}", "--output=json", "--quiet", "--all", *matches]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert 0 == done.returncode, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def env(self, spool: Spool) -> dict[str, str]:
        """What systemd tells a service whose stderr is the journal."""
        spool.output.touch()
        info = spool.output.stat()
        return {"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino}"}


@contextmanager
def journald(home: Path) -> Iterator[Journal]:
    """One for the length of the block. It keeps out of the machine's own /run, kernel log and audit."""
    need_module("systemd.journal")
    need("nsenter", "unshare", "journalctl")
    program = need("/lib/systemd/systemd-journald")
    (home / "journal").mkdir()
    settings = home / "journald.conf"
    settings.write_text("[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nRateLimitIntervalSec=0\n")
    steps = (
        "mount -t tmpfs tmpfs /run",
        "mkdir -p /run/systemd/journal /run/log/journal",
        f"mount --bind {home}/journal /run/log/journal",
        f"mount --bind {settings} /etc/systemd/journald.conf",
    )
    into = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
    if os.geteuid() != 0 or subprocess.run([*into, " && ".join(steps)], capture_output=True).returncode:
        unmet("needs root to have a journal of its own")
    script = " && ".join((*steps, f"exec {program}"))
    with (home / "journald.log").open("wb") as log:
        process = subprocess.Popen([*into, script], stdout=log, stderr=log)
    try:
        listening = Path(f"/proc/{process.pid}/root/run/systemd/journal/socket")
        wait_until(lambda: listening.exists() or process.poll() is not None, "the journal listens")
        if process.poll() is not None:
            pytest.fail((home / "journald.log").read_text())
        yield Journal(home, process)
    finally:
        process.kill()
        process.wait()
