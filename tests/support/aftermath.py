"""The services as they were at a moment of a recording, and daemons started one after the other without much ado."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.support.recording import Operation
from tests.support.scene import Scene
from tfwatch.sandbox.grid import Worksheet
from tfwatch.sandbox.orders import Order, SavedAnswer

_TAIL = 86
"""A ZIP's last bytes, the CRC in its directory among them: once they were sent, the service may have all of it."""


@dataclass(frozen=True, slots=True)
class _Came:
    """Something a service got: at the earliest at `may`, for certain by `must`."""

    may: float
    must: float

    def is_there(self, cut: float, chance: Callable[[], float]) -> bool:
        return cut >= self.must or (cut >= self.may and chance() < 0.5)


@dataclass
class Memory:
    """What portal, sheet and store of a scene came to hold, and when."""

    scene: Scene
    shown: list[tuple[float, int]] = field(default_factory=list)
    orders: list[tuple[_Came, Order]] = field(default_factory=list)
    answers: dict[str, SavedAnswer] = field(default_factory=dict)
    worksheets: list[Worksheet] = field(default_factory=list)
    objects: dict[str, _Came] = field(default_factory=dict)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note as what time goes by how many rows the sheet shows."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.01):
                rows = len(self.scene.shown())
                self.shown.append((time.time(), rows))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def keep(self, operations: Sequence[Operation]) -> None:
        """Keep all that the services hold now; the operations tell since when."""
        services = self.scene.sandbox._services
        sends = [operation for operation in operations if operation.kind == "send"]
        for order in services.book.listing(0, 1_000_000):
            content = self.scene.dropped[order.sha256]
            may = _sent(sends, self.scene.sandbox.port, content, before=order.created_at)
            self.orders.append((_Came(may, order.created_at), replace(order)))
        self.answers = {key: saved for key, saved in services._portal.keys._answers.items() if saved is not None}
        self.worksheets = [sheet.copy() for sheet in services.spreadsheet().sheets]
        client, port = self.scene.server.client(), int(self.scene.server.url.rpartition(":")[2])
        client.create_bucket(Bucket=self.archive)
        for key, sha256 in self.scene.objects():
            client.copy_object(Bucket=self.archive, Key=key, CopySource={"Bucket": self.scene.bucket, "Key": key})
            must = _written(operations, ",BACKED_UP,", sha256)
            self.objects[key] = _Came(_sent(sends, port, self.scene.dropped[sha256], before=must), must)

    @property
    def archive(self) -> str:
        return f"{self.scene.bucket}-kept"

    def may_have_order(self, sha256: str, cut: float) -> bool:
        """Whether the portal may have opened an order of that content by then."""
        return any(order.sha256 == sha256 and came.may <= cut for came, order in self.orders)

    def restore(self, cut: float, *, rows: int, chance: Callable[[], float]) -> None:
        """Bring the services back to that moment; what was under way has arrived or not, by chance.

        `rows`: of the log that are on disk, its header not counted. Verdicts that were due have been given.
        """
        there = [replace(order) for came, order in self.orders if came.is_there(cut, chance)]
        samples = [(at, shown) for at, shown in self.shown if at <= cut]
        after = next((shown for at, shown in self.shown if at > cut), self.shown[-1][1])
        shown = after if chance() < 0.5 or not samples else samples[-1][1]
        self.scene.sandbox._on_loop(lambda: self._restore_sandbox(there, min(shown, rows + 1)))
        self._restore_objects({key for key, came in self.objects.items() if came.is_there(cut, chance)})

    def _restore_sandbox(self, orders: list[Order], shown: int) -> None:
        services = self.scene.sandbox._services
        services.reset()
        services.set_faults(())
        for order in orders:
            order.word, order.due = order.final or order.word, None
            services.book._orders[order.id] = order
            services.book._by_reference.setdefault(order.client_reference, []).append(order)
            if saved := self.answers.get(order.idempotency_key):
                services._portal.keys.finish(order.idempotency_key, replace(saved, order=order))
        if shown:
            sheets = [sheet.copy() for sheet in self.worksheets]
            for sheet in sheets:
                sheet.clear(shown, 0, sheet.rows, sheet.columns)
            services.spreadsheet().sheets = sheets

    def _restore_objects(self, wanted: set[str]) -> None:
        client, bucket = self.scene.server.client(), self.scene.bucket
        there = {key for key, _ in self.scene.objects()}
        for key in there - wanted:
            client.delete_object(Bucket=bucket, Key=key)
        for key in wanted - there:
            client.copy_object(Bucket=bucket, Key=key, CopySource={"Bucket": self.archive, "Key": key})


def _sent(sends: Sequence[Operation], port: int, content: bytes, *, before: float) -> float:
    """When the last piece of that content went to a service, the latest time before a moment."""
    tail = content[-_TAIL:]
    return max(send.begin for send in sends if send.port == port and send.begin < before and tail in send.data)


def _written(operations: Sequence[Operation], event: str, sha256: str) -> float:
    """When a row of that event and content was written to the log."""
    for operation in operations:
        if operation.kind == "write":
            for row in operation.data.split(b"\r\n"):
                if event.encode() in row and sha256.encode() in row and row[:1].isdigit():
                    return operation.begin
    raise AssertionError(f"no row {event} of {sha256}")


# --- daemons --------------------------------------------------------------------------------------------------------

_STOCK = """
import os, sys
from tfwatch import app, connections, daemon
from tfwatch.adapters import gotranscript, s3, sheets
for line in sys.stdin:
    word, *rest = line.rstrip("\\n").split("\\t")
    if word == "start":
        child = os.fork()
        if child == 0:
            out = os.open(rest[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            for fd in (1, 2):
                os.dup2(out, fd)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            code = 1
            try:
                code = app.run(rest[0], os.environ)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(child, flush=True)
    else:
        child, status = os.waitpid(int(rest[0]), os.WNOHANG if word == "poll" else 0)
        print(os.waitstatus_to_exitcode(status) if child else "", flush=True)
"""
"""Starts daemons by a fork once all is imported: the same code, each in a process of its own, much sooner."""


class Stock:
    """Where daemons are had cheaply. Used by one thread."""

    def __init__(self) -> None:
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("TFWATCH", "AWS_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _STOCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
        )

    def start(self, config: Path, output: Path) -> Forked:
        """A daemon with that configuration."""
        return Forked(self, int(self.ask("start", str(config), str(output))))

    def ask(self, *words: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\t".join(words) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """Nothing is had here any more."""
        self._process.kill()
        self._process.communicate()


@dataclass
class Forked:
    """A daemon from stock, as far as `subprocess.Popen` is needed."""

    stock: Stock
    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            told = self.stock.ask("poll", str(self.pid))
            self.returncode = int(told) if told else None
        return self.returncode

    def end(self) -> None:
        """At once, whatever it is doing."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.returncode = int(self.stock.ask("wait", str(self.pid)))
