"""Daemons that start at once: each is forked from one process that has imported everything already.

A start spends nine tenths of its time on imports, and tests that kill daemons by the thousand start as many. What runs
is `tfwatch run`, in a process of its own, from its first line to its exit; only the imports are shared.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.support import tracer
from tests.support.daemon import Spool
from tests.support.deadly import Target, require_tracer

_IMPORTED: Final = (
    "tfwatch.cli", "tfwatch.app", "tfwatch.adapters.gotranscript", "tfwatch.adapters.s3", "tfwatch.adapters.sheets",
    "boto3.session", "gspread", "watchdog.observers.inotify",
)  # fmt: skip


class Daemon:
    """One daemon's process, with the part of `subprocess.Popen` that tests use."""

    def __init__(self) -> None:
        self.pid = 0
        self.returncode: int | None = None
        self.started = threading.Event()
        self.ended = threading.Event()

    def poll(self) -> int | None:
        """The exit code once it has ended."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for that; raises `subprocess.TimeoutExpired`."""
        if not self.ended.wait(timeout):
            raise subprocess.TimeoutExpired("tfwatch run", timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Nothing when it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that forks daemons, and the news of them. Thread-safe."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._asked: list[Daemon] = []
        self._running: dict[int, Daemon] = {}
        threading.Thread(target=self._listen, name="nursery", daemon=True).start()

    def start(self, spool: Spool, *, target: Target | None = None, record: Path | None = None) -> Daemon:
        """Start a daemon on a spool; with `target` it dies at that call, with `record` its calls are recorded."""
        if record is not None:
            require_tracer()
        target = target or Target()
        spool.output.touch()
        made = Daemon()
        request = {
            "config": str(spool.config), "output": str(spool.output), "record": str(record) if record else None,
            "call": target.call, "number": target.number,
        }  # fmt: skip
        with self._lock:
            self._asked.append(made)
            assert self._process.stdin is not None
            print(json.dumps(request), file=self._process.stdin, flush=True)
        assert made.started.wait(60), "the nursery does not answer"
        spool.process = made  # type: ignore[assignment]
        return made

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, pid, code = line.split()
            if what == "started":
                made = self._running[int(pid)] = self._asked.pop(0)
                made.pid = int(pid)
                made.started.set()
            else:
                made = self._running.pop(int(pid))
                made.returncode = int(code)
                made.ended.set()


@contextlib.contextmanager
def nursery() -> Iterator[Nursery]:
    """A nursery; its daemons end with it."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("TFWATCH", "AWS_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.warm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environ, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    try:
        yield Nursery(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


# --- the process itself ----------------------------------------------------------------------------------------------


def _serve() -> dict[str, Any]:
    """Fork a daemon for each request and tell of its end. Returns only in the forked: with what it shall be."""
    awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake)
    news, running, read = selectors.DefaultSelector(), set[int](), b""
    news.register(0, selectors.EVENT_READ)
    news.register(awake, selectors.EVENT_READ)
    while True:
        for key, _ in news.select():
            if key.fd == awake:
                os.read(awake, 4096)
                _tell_of_ended(running)
                continue
            got = os.read(0, 65536)
            if not got:
                for pid in running:
                    os.kill(pid, signal.SIGKILL)
                sys.exit()
            *requests, read = (read + got).split(b"\n")
            for request in requests:
                if (pid := os.fork()) == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    news.close()
                    os.close(awake)
                    os.close(wake)
                    return dict(json.loads(request))
                running.add(pid)
                print("started", pid, 0, flush=True)


def _tell_of_ended(running: set[int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        running.discard(pid)
        print("ended", pid, os.waitstatus_to_exitcode(status), flush=True)


def _become(request: dict[str, Any]) -> None:
    """The forked process as a shell would have started it."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number, fd in enumerate((nothing, output, output)):
        os.dup2(fd, number)
    os.close(nothing)
    os.close(output)
    sys.argv = ["tfwatch", "run", "-c", request["config"]]
    if request["record"] is not None:
        tracer.trace(request["record"], request["call"], request["number"])


def main() -> None:
    """Import, serve, and in each forked process be a daemon."""
    for module in _IMPORTED:
        importlib.import_module(module)
    _become(_serve())
    from tfwatch import cli

    cli.main()


if __name__ == "__main__":
    main()
