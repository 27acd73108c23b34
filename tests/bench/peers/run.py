"""Runs a peer's script on folders of its own, and clocks it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tests.bench.rig import API_KEY, Rig
from tests.support.daemon import wait_until

_HERE = Path(__file__).parent
SHELL_LOOP = (str(_HERE / "shell_loop.sh"),)
_PATIENCE_SECONDS = 600.0
_LISTENS = ("Watches established", "ready")
"""What they say once they do."""

WATCHFILES_SCRIPT = (sys.executable, str(_HERE / "watchfiles_script.py"))


def program(name: str) -> str | None:
    """Where a program lies: beside this Python, or on the PATH."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def need(*names: str) -> None:
    """Raise AssertionError for programs that are missing, with what brings them."""
    missing = [name for name in names if program(name) is None]
    assert not missing, f"missing: {', '.join(missing)}; `make bench` installs them"


def credentials(s3: Mapping[str, Any]) -> dict[str, str]:
    """The environment in which S3 tools find the keys and nobody's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RCLONE_", "S3_"))}
    return kept | {
        "AWS_ACCESS_KEY_ID": s3["access_key"],
        "AWS_SECRET_ACCESS_KEY": s3["secret_key"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def deliver(
    rig: Rig, command: Sequence[str], portal_url: str, s3: Mapping[str, Any], contents: Sequence[bytes]
) -> float:
    """Seconds from the first rename into its outbox until it has said of each ZIP that it is stored."""
    with rig.folder("peer") as home:
        folders = {name: home / name for name in ("outbox", "submitted", "delivered")}
        for folder in folders.values():
            folder.mkdir()
        for number, content in enumerate(contents):
            (home / f"job{number}_v1.zip").write_bytes(content)
        environ = credentials(s3) | {name.upper(): str(folder) for name, folder in folders.items()}
        environ |= {"PORTAL": portal_url, "API_KEY": API_KEY, "ENDPOINT": s3["endpoint_url"], "BUCKET": s3["bucket"]}
        with _running(command, environ) as process:
            assert process.stdout is not None
            began = time.monotonic()
            for number in range(len(contents)):
                name = f"job{number}_v1.zip"
                os.rename(home / name, folders["outbox"] / name)
            said = [process.stdout.readline() for _ in contents]
            seconds = time.monotonic() - began
            assert len(set(said)) == len(contents), (
                f"{command[-1]} delivered {len(set(said) - {''})} of {len(contents)}"
            )
            assert len(os.listdir(folders["delivered"])) == len(contents)
        return seconds


@contextmanager
def _running(command: Sequence[str], environ: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A script that listens, in a process group of its own; all of it is gone afterwards."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True
        )
        watchdog = threading.Timer(_PATIENCE_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
        watchdog.start()
        try:
            wait_until(lambda: any(word in _text(said) for word in _LISTENS), f"{command[-1]} listens")
            yield process
        except AssertionError as error:
            raise AssertionError(f"{error}\n{_text(said)}") from None
        finally:
            watchdog.cancel()
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _text(said: IO[str]) -> str:
    return os.pread(said.fileno(), 10_000, 0).decode()
