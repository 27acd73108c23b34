"""The systemd unit that runs tfwatch: read from its files, and asked about where systemd is there."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

NAME: Final = "tfwatch.service"
FOLDERS: Final = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
)
"""Where units lie, the first wins. Source: systemd.unit(5)."""

_BOOTED: Final = "/run/systemd/system"
_ASKED: Final = ("LoadState", "ActiveState", "Result", "MainPID", "NeedDaemonReload", "UnitFileState")
_ASKING_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One unit with its drop-ins. `values`: `Service.User` → every value given to it since it was last emptied."""

    path: str
    values: Mapping[str, Sequence[str]]

    def last(self, key: str, default: str = "") -> str:
        """A setting of [Service] that holds one value: the last one given."""
        return (self.values.get(f"Service.{key}") or (default,))[-1]

    def words(self, key: str) -> list[str]:
        """A setting of [Service] that holds a list."""
        return [word for value in self.values.get(f"Service.{key}", ()) for word in _split(value)]

    def is_on(self, key: str) -> bool:
        """A setting of [Service] that is yes or no, and no when it isn't there."""
        return self.last(key).lower() in ("yes", "true", "on", "1")

    @property
    def config(self) -> str:
        """The settings file it runs with; the default one when its command names none."""
        words = self.words("ExecStart")
        for at, word in enumerate(words):
            if word in ("-c", "--config") and at + 1 < len(words):
                return words[at + 1]
            if word.startswith("--config="):
                return word.partition("=")[2]
        return "/etc/tfwatch/config.yaml"


def find(folders: Sequence[str] = FOLDERS) -> Unit | None:
    """The unit as it is installed; None when it isn't. Raises OSError when a file of it can't be read."""
    path = next((f"{folder}/{NAME}" for folder in folders if os.path.exists(f"{folder}/{NAME}")), None)
    if path is None:
        return None
    values: dict[str, list[str]] = {}
    for file in (path, *_drop_ins(folders)):
        with open(file, encoding="utf-8", errors="replace") as text:
            for key, value in _assignments(text.read()):
                values[key] = [*values.get(key, []), value] if value else []
    return Unit(path=path, values=values)


def _drop_ins(folders: Sequence[str]) -> list[str]:
    """By their names, whatever folder they lie in; of two with one name the first folder's counts."""
    found: dict[str, str] = {}
    for folder in folders:
        beside = f"{folder}/{NAME}.d"
        for name in os.listdir(beside) if os.path.isdir(beside) else ():
            if name.endswith(".conf"):
                found.setdefault(name, f"{beside}/{name}")
    return [found[name] for name in sorted(found)]


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    """`Service.User`, `tfwatch` and so on, in the file's order. Source: systemd.syntax(7)."""
    section, begun = "", ""
    for line in text.splitlines():
        if line.lstrip().startswith(("#", ";")):
            continue
        if line.endswith("\\"):
            begun += line[:-1] + " "
            continue
        whole, begun = (begun + line).strip(), ""
        if whole.startswith("[") and whole.endswith("]"):
            section = whole[1:-1]
        elif "=" in whole:
            key, _, value = whole.partition("=")
            yield f"{section}.{key.strip()}", value.strip()


def _split(value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError:
        return value.split()


def ask() -> Mapping[str, str] | str:
    """What the running systemd says of the unit; why it can't be asked when it can't."""
    if not os.path.isdir(_BOOTED):
        return "systemd does not run here"
    command = ["systemctl", "show", NAME, f"--property={','.join(_ASKED)}"]
    try:
        done = subprocess.run(  # noqa: S603  a command of ours
            command, capture_output=True, text=True, timeout=_ASKING_SECONDS, check=False
        )
    except FileNotFoundError:
        return "there is no systemctl here"
    except subprocess.TimeoutExpired:
        return f"systemctl gave no answer within {_ASKING_SECONDS:g} s"
    if done.returncode != 0:
        return f"systemctl says: {' '.join(done.stderr.split())}"
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
