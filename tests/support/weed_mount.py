"""A shared file system: a SeaweedFS filer on loopback, mounted as often as asked; each mount is a client of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.host import unmet
from tests.support.ports import reserve_port
from tests.support.require import need
from tests.support.s3_servers import weed_program

_START_SECONDS = 90
_STOP_SECONDS = 5


class Filer:
    """A running filer. Everything it and its mounts write lies below `home`."""

    def __init__(self, home: Path, ports: list[int]) -> None:
        self.home = home
        self.port, self.grpc_port = ports[4], ports[5]
        self._mounts = 0

    def put(self, path: str, content: bytes) -> None:
        """Write a file by the filer's HTTP interface: no mount has anything to do with it."""
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, data=content, method="PUT")
        request.add_header("Content-Type", "application/octet-stream")
        with urllib.request.urlopen(request, timeout=30):
            return

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """One more client's mount of the whole store, there for the length of the block."""
        self._mounts += 1
        where = self.home / f"mount-{self._mounts}"
        cache = self.home / f"cache-{self._mounts}"
        where.mkdir()
        cache.mkdir()
        command = [
            weed_program(),
            "-logtostderr=true",
            "mount",
            f"-filer=127.0.0.1:{self.port}.{self.grpc_port}",
            f"-dir={where}",
            f"-cacheDir={cache}",
            f"-localSocket={self.home / f'mount-{self._mounts}.sock'}",
            "-volumeServerAccess=direct",
        ]
        with _running(command, self.home / f"mount-{self._mounts}.log") as process:
            try:
                _wait(process, where.is_mount, f"the mount on {where}", self.home / f"mount-{self._mounts}.log")
                yield where
            finally:
                subprocess.run(["umount", "--lazy", str(where)], check=False)


@contextmanager
def filer(home: Path) -> Iterator[Filer]:
    """A filer with an empty store; skips unless root may mount FUSE file systems here."""
    need("fusermount3")
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        unmet("needs root and /dev/fuse to mount a shared file system")
    (home / "data").mkdir(parents=True)
    ports = [reserve_port() for _ in range(6)]
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    command = [
        weed_program(),
        "-logtostderr=true",
        "server",
        "-filer",
        f"-dir={home / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=0",
        f"-filer.localSocket={home / 'filer.sock'}",
    ]
    made = Filer(home, ports)
    with ExitStack() as stack:
        process = stack.enter_context(_running(command, home / "filer.log"))
        _wait(process, lambda: _stores(made), "the filer", home / "filer.log")
        yield made


def _stores(made: Filer) -> bool:
    try:
        made.put("/probe", b"probe")
    except OSError:
        return False
    return True


@contextmanager
def _running(command: list[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=output.parent)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], condition: Callable[[], bool], what: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come up:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)
