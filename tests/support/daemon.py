"""The real daemon in its own process, on a real spool, talking to real servers on loopback."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tfwatch import requests
from tfwatch.requests import Command, Request
from tfwatch.spool.folders import Folders

STAGES = ("outbox", "submitted", "delivered", "rejected")
PATIENCE = 30.0


def wait_until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Wait until a condition holds, and give what it gave; fail with `what` when it doesn't in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.02)


def make_zip(path: Path, *, seed: int = 0, size: int = 2000, members: Mapping[str, bytes] | None = None) -> Path:
    """A sound package; another seed makes another content. Written beside the spool and renamed in."""
    path.write_bytes(zip_bytes(seed=seed, size=size, members=members))
    return path


def zip_bytes(*, seed: int = 0, size: int = 2000, members: Mapping[str, bytes] | None = None) -> bytes:
    """The bytes of a sound package."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (members or {"job/transcript.txt": random.Random(seed).randbytes(size)}).items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


class Spool:
    """One spool, its configuration, and the daemon processes that work in it."""

    def __init__(self, home: Path, base_url: str, api_key: str, **sections: Any) -> None:
        self.home = home
        self.root = home / "spool"
        self.root.mkdir()
        for stage in STAGES:
            (self.root / stage).mkdir()
        self.config = home / "config.yaml"
        self.settings: dict[str, Any] = {
            "spool": {"root": str(self.root), "rescan_seconds": 2, "incomplete_timeout_seconds": 900},
            "integrations": {
                "gotranscript": {
                    "base_url": base_url,
                    "api_key": api_key,
                    "poll_seconds": 0.2,
                    "timeout_seconds": 20,
                    "retry": {"attempts": 2, "initial_seconds": 0.05, "max_seconds": 0.2},
                }
            },
            "web": {"enabled": False},
        }
        merge(self.settings, sections)
        self.process: subprocess.Popen[bytes] | None = None
        self.launch: Callable[[Spool], Any] | None = None
        self.output = home / "daemon.log"
        self.write_config()

    # --- configuration and processes --------------------------------------------------------------------------------

    def configure(self, **sections: Any) -> None:
        """Change config.yaml, as an editor does: the new file replaces the old one."""
        merge(self.settings, sections)
        self.write_config()

    def write_config(self) -> None:
        temporary = self.config.with_suffix(".new")
        temporary.write_text(yaml.safe_dump(self.settings))
        temporary.chmod(0o600)
        temporary.rename(self.config)

    def start(
        self,
        *,
        ready: bool = True,
        wrap: tuple[str, ...] = (),
        program: tuple[str, ...] = ("-m", "tfwatch"),
        env: Mapping[str, str] | None = None,
        seconds: float = PATIENCE,
    ) -> None:
        """Start the daemon; with `ready`, wait until it watches, `seconds` at most. `program`: what Python runs.

        `launch`, where one was given, starts plain daemons in its own way.
        """
        before = self.output.stat().st_size if self.output.exists() else 0
        if self.launch is not None and not wrap and not env and program == ("-m", "tfwatch"):
            self.process = self.launch(self)
        else:
            self.process = self._popen(wrap, program, env)
        process = self.process
        if ready:
            wait_until(lambda: self._watching(before) or process.poll() is not None, "the daemon watches", seconds)
            assert process.poll() is None, self.output.read_text()

    def _popen(
        self, wrap: tuple[str, ...], program: tuple[str, ...], env: Mapping[str, str] | None
    ) -> subprocess.Popen[bytes]:
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("TFWATCH", "AWS_"))}
        with self.output.open("ab") as output:
            return subprocess.Popen(
                [*wrap, sys.executable, *program, "run", "-c", str(self.config)],
                stdout=output, stderr=output, env=environ | dict(env or {}),
            )  # fmt: skip

    def is_watching(self) -> bool:
        """Whether some daemon has said so since the output began."""
        return self.output.exists() and self._watching(0)

    def _watching(self, before: int) -> bool:
        return b"watching " in self.output.read_bytes()[before:]

    def stop(self, number: int = signal.SIGTERM, seconds: float = PATIENCE) -> int:
        """Stop the daemon; gives its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        finally:
            self.process = None

    def kill(self) -> None:
        """End it at once, whatever it is doing."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of tfwatch's on this spool."""
        return subprocess.run(
            [sys.executable, "-m", "tfwatch", words[0], "-c", str(self.config), *words[1:]],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    # --- files ------------------------------------------------------------------------------------------------------

    def drop(self, name: str, *, seed: int = 0, size: int = 2000, members: Mapping[str, bytes] | None = None) -> Path:
        """Put a sound package into the outbox, whole, by a rename."""
        ready = make_zip(self.home / f"drop-{random.randrange(10**12)}", seed=seed, size=size, members=members)
        target = self.root / "outbox" / name
        ready.rename(target)
        return target

    def names(self, stage: str) -> set[str]:
        """The packages in a stage's folder."""
        return {name for name in os.listdir(self.root / stage) if name.lower().endswith(".zip")}

    def claimed(self) -> set[str]:
        return set(os.listdir(self.root / ".tfwatch" / "claimed"))

    def wait_for(self, stage: str, *names: str, seconds: float = PATIENCE) -> None:
        """Wait until packages lie in a stage's folder."""
        try:
            wait_until(lambda: set(names) <= self.names(stage), f"{names} in {stage}/", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.picture()}") from None

    def picture(self) -> str:
        """Everything that may explain a failure."""
        folders = {stage: sorted(self.names(stage)) for stage in STAGES}
        log = (self.root / "log.csv").read_text() if (self.root / "log.csv").exists() else "(no log)"
        return f"{folders}\n{log}\n{self.output.read_text()[-6000:] if self.output.exists() else ''}"

    def reason(self, name: str) -> str:
        return (self.root / "rejected" / f"{name}.reason.txt").read_text()

    # --- the log ----------------------------------------------------------------------------------------------------

    def rows(self, package: str | None = None) -> list[dict[str, str]]:
        """The rows of log.csv, all or one package's, as a spreadsheet would read them."""
        with (self.root / "log.csv").open(newline="") as file:
            found = list(csv.DictReader(file))
        return found if package is None else [row for row in found if row["package"] == package]

    def events(self, package: str | None = None) -> list[str]:
        return [row["event"] for row in self.rows(package)]

    def row(self, event: str, package: str | None = None) -> dict[str, str]:
        """The only row of that event, of all or of one package."""
        (found,) = [row for row in self.rows(package) if row["event"] == event]
        return found

    def wait_for_event(
        self, event: str, package: str | None = None, *, count: int = 1, seconds: float = PATIENCE
    ) -> None:
        """Wait until the log has so many rows of that event."""
        try:
            wait_until(lambda: self.events(package).count(event) >= count, f"{count} {event} rows", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.picture()}") from None

    def assert_sound(self) -> None:
        """Whatever happened: the chain holds, no number is left out, and no package lies in two places."""
        header, *lines = (self.root / "log.csv").read_bytes().decode().removesuffix("\r\n").split("\r\n")
        chain = hashlib.sha256(header.encode()).hexdigest()
        for number, line in enumerate(lines, start=1):
            row, _, found = line.rpartition(",")
            chain = hashlib.sha256(f"{chain}\n{row}".encode()).hexdigest()
            assert chain == found, f"row {number} breaks the chain\n{self.picture()}"
            assert str(number) == line.partition(",")[0], self.picture()
        lying = [name for stage in STAGES for name in self.names(stage)] + list(self.claimed())
        assert sorted(set(lying)) == sorted(lying), self.picture()

    def litter(self) -> list[str]:
        """What a stopped daemon left half-written: probes, small files under their first names."""
        found = [path for path in self.root.rglob(".*") if re.fullmatch(r"\.probe-.*|\..*\.tmp", path.name)]
        return sorted(str(path) for path in found)

    def state(self) -> dict[str, Any]:
        """What the running daemon shows of itself."""
        path = self.root / ".tfwatch" / "state.json"
        wait_until(path.exists, "the daemon shows its state")
        return json.loads(path.read_text())

    def wait_for_state(self, shows: Callable[[dict[str, Any]], Any], what: str, seconds: float = PATIENCE) -> Any:
        """Wait until the running daemon shows something of itself, and give it."""

        def look() -> Any:
            return (self.root / ".tfwatch" / "state.json").exists() and shows(self.state())

        try:
            return wait_until(look, what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.picture()}") from None

    def document(self) -> str:
        """All rollback documents, one after the other."""
        return "\n".join(
            path.read_text() for path in sorted((self.root / "rollbacks").glob("rollback_integrations_*.md"))
        )

    def ask(self, command: Command, **words: Any) -> None:
        """Leave a request as a command does; returns once the daemon has taken it, if it runs."""
        folders = Folders(str(self.root))
        name = requests.leave(folders, Request(command=command, user="tests", **words))
        if self.process is not None:
            wait_until(lambda: name not in os.listdir(folders.requests), f"the daemon takes {command}")


def merge(into: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


@contextmanager
def spool(home: Path, base_url: str, api_key: str, **sections: Any) -> Iterator[Spool]:
    """A spool whose daemon is gone at the end."""
    made = Spool(home, base_url, api_key, **sections)
    try:
        yield made
    finally:
        made.kill()
