"""Another user of this machine, who may drop files into the outbox and nothing more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.daemon import Spool
from tests.support.host import unmet

NOBODY: Final = 65534

_PRELUDE: Final = """
import ctypes, errno, fcntl, os, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def exchange(one, other):
    return libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) == 0
def say(*words):
    print(*words, flush=True)
"""


def open_to_strangers(outbox: Path) -> Path:
    """Let everybody drop files there, and nobody touch another's: sticky, and new files keep the folder's group."""
    if os.geteuid() != 0:
        unmet("needs root to act as another user")
    outbox.chmod(0o3777)
    return outbox


@contextmanager
def stranger(outbox: Path, script: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script as that user, in the outbox; it is gone at the end. Its output and input are pipes.

    The interpreter is the system's own, since strangers may not come into the folder where the tests' lies.
    """
    python = os.path.realpath(sys.executable)
    with subprocess.Popen(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", python, "-I", "-c",
         _PRELUDE + script, *words],
        cwd=outbox, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str]) -> str:
    """The next line it says."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"it ended, exit code {process.wait()}"
    return line.rstrip("\n")


def tell(process: subprocess.Popen[str], line: str = "go") -> None:
    """Let it go on."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def assert_alive(spool: Spool) -> None:
    """The same process still works: an honest package goes through."""
    assert spool.process is not None
    spool.drop("honest.zip", seed=4711)
    spool.wait_for("delivered", "honest.zip")
    assert spool.process.poll() is None, spool.picture()
    spool.assert_sound()
