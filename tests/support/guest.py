"""A virtual machine whose power can be cut: the daemon in it, on a disk that forgets what was not flushed.

It is emulated (no KVM is needed) and reaches servers on the host's loopback at 10.0.2.2. It is booted once; its memory
is kept as it was when the agent in it was ready and had not looked at the spool's disk. Every life goes on from there.
"""

from __future__ import annotations

import base64
import io
import json
import shlex
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.support.daemon import wait_until
from tests.support.guest_disk import VolatileDisk
from tests.support.guest_image import Image
from tests.support.require import need

DISK_MIB: Final = 320
HOST: Final = "10.0.2.2"
_BOOT_SECONDS: Final = 300.0
_WAKE_SECONDS: Final = 120.0
_REPLY_SECONDS: Final = 120.0
_MEMORY_MIB: Final = 512


class PowerCut(Exception):
    """The machine is off: nobody answers."""


class Guest:
    """One life of the machine, from its start to its end. Its methods are asked of the agent in it. Thread-safe."""

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket, console: Path) -> None:
        self._process = process
        self._connection = connection
        self._lines = connection.makefile("rwb")
        self._console = console
        self._lock = threading.Lock()

    def ask(self, what: str, **words: Any) -> Any:
        """Let the agent do something, as a method of `guest_agent.Agent`; raises `PowerCut` when it is off."""
        with self._lock:
            try:
                self._lines.write(json.dumps({"do": what, **words}).encode() + b"\n")
                self._lines.flush()
                line = self._lines.readline()
            except TimeoutError:
                raise AssertionError(f"the guest does not answer {what}\n{self._said()}") from None
            except (OSError, ValueError) as error:  # cut off, or hung up
                raise PowerCut from error
        if not line.endswith(b"\n"):
            raise PowerCut
        told = json.loads(line)
        assert "failed" not in told, f"{told['failed']}\n{self._said()}"
        return told["gave"]

    def drop(self, name: str, content: bytes, *, way: str, synced: bool) -> None:
        """Put a package into the guest's outbox; once this returns, what is synced is on disk."""
        self.ask("drop", name=name, content=base64.b64encode(content).decode(), way=way, synced=synced)

    def pull(self, into: Path) -> None:
        """Copy the guest's spool to a new folder."""
        into.mkdir()
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(self.ask("pull")))) as archive:
            archive.extractall(into)  # made by our own guest; Debian's Python 3.11.2 knows no filter yet

    def hang_up(self) -> None:
        """Leave the agent alone; it waits for the next caller."""
        with suppress(OSError):
            self._lines.close()
        self._connection.close()

    def off(self) -> None:
        """End the machine at once; what it had not flushed is the disk's affair."""
        _end(self._process)
        with self._lock:
            self.hang_up()

    def _said(self) -> str:
        return self._console.read_text(errors="replace")[-3000:]


class Machine:
    """A machine whose frozen memory can be woken any number of times, with one disk or another."""

    def __init__(self, image: Image, folder: Path) -> None:
        self._qemu = need("qemu-system-x86_64")
        self._image = image
        self._folder = folder
        self._frozen = folder / "memory"
        self._console = folder / "console.log"
        # The frozen machine knows the port: it is held for good, and listened on only while the agent is waited for.
        self._held = _bound(0)

    def close(self) -> None:
        self._held.close()
        self._frozen.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Boot it, wait until the agent is ready, and keep its memory. It has not looked at its disk yet."""
        blank = self._folder / "blank"
        _make_blank(blank)
        with VolatileDisk(blank) as disk:
            process = self._power_on(disk, "-qmp", "stdio")
            try:
                self._wait_for_the_agent(process, _BOOT_SECONDS).hang_up()
                _control(process, "qmp_capabilities")
                _control(process, "migrate", uri=f"exec:cat > {shlex.quote(str(self._frozen))}")
                wait_until(
                    lambda: _control(process, "query-migrate")["status"] == "completed",
                    "the machine's memory is written",
                    _BOOT_SECONDS,
                )
            finally:
                _end(process)

    @contextmanager
    def woken(self, disk: VolatileDisk, kind: str, config: str) -> Iterator[Guest]:
        """One life: it wakes up and mounts the disk. The daemon is not started."""
        process = self._power_on(disk, "-incoming", f"exec:cat {shlex.quote(str(self._frozen))}")
        guest = self._wait_for_the_agent(process, _WAKE_SECONDS)
        try:
            guest.ask("mount", kind=kind, now=time.time(), config=config)
            yield guest
        finally:
            guest.off()

    def _power_on(self, disk: VolatileDisk, *more: str) -> subprocess.Popen[bytes]:
        port = self._held.getsockname()[1]
        drives = (
            f"file={self._image.disk},format=raw,if=virtio,readonly=on",
            f"file=nbd:{disk.address},format=raw,if=virtio,cache=writeback",
        )
        command = [
            "setpriv", "--pdeathsig", "KILL", "--",  # it never outlives the tests
            self._qemu, "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", str(_MEMORY_MIB), "-nodefaults",
            "-display", "none", "-no-reboot", "-serial", f"file:{self._console}",
            "-kernel", str(self._image.kernel), "-initrd", str(self._image.initramfs),
            "-append", f"console=ttyS0 quiet panic=-1 agent={HOST}:{port}",
            *(word for drive in drives for word in ("-drive", drive)),
            "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=", *more,
        ]  # fmt: skip
        with (self._folder / "qemu.log").open("ab") as said:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)

    def _wait_for_the_agent(self, process: subprocess.Popen[bytes], seconds: float) -> Guest:
        deadline = time.monotonic() + seconds
        with _bound(self._held.getsockname()[1]) as listener:
            listener.settimeout(0.2)
            listener.listen()
            while process.poll() is None and time.monotonic() < deadline:
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                connection.settimeout(_REPLY_SECONDS)
                return Guest(process, connection, self._console)
        _end(process)
        told = [path.read_text(errors="replace")[-3000:] for path in (self._folder / "qemu.log", self._console)]
        raise AssertionError("the machine did not come up:\n" + "\n".join(told))


def _control(process: subprocess.Popen[bytes], command: str, **arguments: str) -> Any:
    """One command of qemu's control protocol (QMP), and what it returned; events in between are passed over."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
    process.stdin.flush()
    for line in process.stdout:
        told = json.loads(line)
        assert "error" not in told, told
        if "return" in told:
            return told["return"]
    raise AssertionError(f"qemu ended at {command}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def make_disk(file: Path, kind: str) -> None:
    """An empty file system of that kind on a new disk."""
    program = need(f"mkfs.{kind}")
    _make_blank(file)
    subprocess.run([program, "-q", str(file)], check=True, capture_output=True)


def _make_blank(file: Path) -> None:
    with file.open("xb") as disk:
        disk.truncate(DISK_MIB << 20)
