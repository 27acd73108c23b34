"""What runs in the virtual machine: it does as the host says, over one TCP connection, one JSON line for each.

The kernel's command line names the host: `agent=HOST:PORT`. Before its first call the agent loads all that the daemon
loads. The host freezes the machine then, and every life of it goes on from there. The daemon is a fork of this process,
since an emulated processor takes half a minute to load Python's modules.
"""

from __future__ import annotations

import base64
import fcntl
import importlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tarfile
import time
import traceback
from typing import Any

SPOOL = "/spool"
DISK = "/dev/vdb"
CONFIG = "/tmp/config.yaml"
OUTPUT = "/tmp/daemon.log"
_BLKFLSBUF = 0x1261
_RNDRESEEDCRNG = 0x5207
_LOADED = (
    "tfwatch.cli", "tfwatch.app", "tfwatch.connections", "tfwatch.adapters.gotranscript", "tfwatch.adapters.s3",
    "tfwatch.adapters.sheets", "tfwatch.settings_file", "boto3", "httpx", "gspread", "uvicorn",
)  # fmt: skip


class Agent:
    """Carries out what the host asks: each public method is one request."""

    def __init__(self) -> None:
        self._daemon = 0

    def mount(self, kind: str, now: float, config: str) -> None:
        """Wake up as if just booted: the host's time, new random numbers, nothing remembered of the disk."""
        time.clock_settime(time.CLOCK_REALTIME, now)
        with open("/dev/urandom", "wb", buffering=0) as pool:
            fcntl.ioctl(pool, _RNDRESEEDCRNG)
        random.seed()
        with open(DISK, "rb") as disk:
            fcntl.ioctl(disk, _BLKFLSBUF)
        done = subprocess.run(["/bin/busybox", "mount", "-t", kind, DISK, SPOOL], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with open(CONFIG, "w") as file:
            file.write(config)
        os.chmod(CONFIG, 0o600)
        os.makedirs(f"{SPOOL}/outbox", exist_ok=True)
        _sync(SPOOL)

    def start(self) -> None:
        """Start the daemon."""
        open(OUTPUT, "wb").close()
        self._daemon = os.fork()
        if self._daemon == 0:
            _become_the_daemon()

    def watching(self) -> bool:
        """Whether the daemon said that it watches."""
        return self.alive() and "watching " in self.output()

    def alive(self) -> bool:
        return self._daemon > 0 and os.waitpid(self._daemon, os.WNOHANG) == (0, 0)

    def output(self) -> str:
        """What the daemon said in this life of the machine."""
        with open(OUTPUT, errors="replace") as file:
            return file.read()

    def drop(self, name: str, content: str, way: str, synced: bool) -> None:
        """Put a package into the outbox. `way`: `rename` it in, or write it `in place`. What isn't synced may go."""
        data = base64.b64decode(content)
        target = os.path.join(SPOOL, "outbox", name)
        writing = f"{target}.part" if way == "rename" else target
        with open(writing, "wb", buffering=0) as file:
            for part in (data[: len(data) // 2], data[len(data) // 2 :]):
                file.write(part)
            if synced:
                os.fsync(file.fileno())
        if writing != target:
            os.rename(writing, target)
        if synced:
            _sync(os.path.dirname(target))

    def log(self) -> str:
        """log.csv as it stands."""
        with open(f"{SPOOL}/log.csv", newline="", errors="surrogateescape") as file:
            return file.read()

    def names(self) -> dict[str, list[str]]:
        """What lies in the folders of the stages."""
        stages = ("outbox", ".tfwatch/claimed", "submitted", "delivered", "rejected")
        return {stage: sorted(os.listdir(os.path.join(SPOOL, stage))) for stage in stages}

    def pull(self) -> str:
        """The whole spool, as a tar."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            archive.add(SPOOL, arcname=".")
        return base64.b64encode(out.getvalue()).decode()

    def stop(self) -> int:
        """Stop the daemon; gives its exit code."""
        os.kill(self._daemon, signal.SIGTERM)
        _, status = os.waitpid(self._daemon, 0)
        self._daemon = 0
        return os.waitstatus_to_exitcode(status)


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _become_the_daemon() -> None:
    code = 70
    try:
        os.setsid()
        output = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, 256)
        sys.argv = ["tfwatch", "run", "-c", CONFIG]
        from tfwatch.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _serve(agent: Agent, host: socket.socket) -> None:
    with host, host.makefile("rwb") as lines:
        for line in lines:
            asked: dict[str, Any] = json.loads(line)
            try:
                told: dict[str, Any] = {"gave": getattr(agent, asked.pop("do"))(**asked)}
            except Exception:
                told = {"failed": traceback.format_exc()}
            lines.write(json.dumps(told).encode() + b"\n")
            lines.flush()


def main() -> None:
    for module in _LOADED:
        importlib.import_module(module)
    with open("/proc/cmdline") as line:
        (address,) = [word.partition("=")[2] for word in line.read().split() if word.startswith("agent=")]
    host_name, _, port = address.partition(":")
    agent = Agent()
    while True:
        try:
            host = socket.create_connection((host_name, int(port)), timeout=5)
        except OSError:
            time.sleep(0.1)
        else:
            host.settimeout(None)
            # the machine is frozen after the first call, and woken up for the next ones
            _serve(agent, host)


if __name__ == "__main__":
    main()
