"""The systemd unit that runs tfwatch: read from its files, and asked about where systemd is there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

NAME: Final = "tfwatch.service"
TEMPLATE: Final = "tfwatch@.service"
"""One of several daemons each: `tfwatch@lisbon.service`."""

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

    name: str
    path: str
    values: Mapping[str, Sequence[str]]

    @property
    def called(self) -> str:
        """As people type it: `tfwatch`, `tfwatch@lisbon`."""
        return self.name.removesuffix(".service")

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


def find(folders: Sequence[str] = FOLDERS, *, config: str = "") -> Unit | None:
    """The installed unit that runs tfwatch with these settings, else tfwatch.service; None without either.

    Raises OSError when a file of it can't be read.
    """
    alone = _read(NAME, folders)
    if config and (alone is None or os.path.abspath(config) != alone.config):
        several = _read(TEMPLATE, folders)
        if several is not None and (instance := _instance(several.config, os.path.abspath(config))):
            return _read(TEMPLATE, folders, instance)
    return alone


def _instance(pattern: str, config: str) -> str:
    """What `%i` stands for when the settings lie there: `/etc/tfwatch/%i/config.yaml` → `lisbon`; empty if nothing."""
    before, mark, after = pattern.partition("%i")
    found = re.fullmatch(f"{re.escape(before)}([^/]+){re.escape(after)}", config)
    return found[1] if mark and found else ""


def _read(name: str, folders: Sequence[str], instance: str = "") -> Unit | None:
    path = next((f"{folder}/{name}" for folder in folders if os.path.exists(f"{folder}/{name}")), None)
    if path is None:
        return None
    own = name.replace("@", f"@{instance}")
    values: dict[str, list[str]] = {}
    for file in (path, *_drop_ins(folders, {name, own})):
        with open(file, encoding="utf-8", errors="replace") as text:
            for key, value in _assignments(text.read()):
                told = value.replace("%i", instance) if instance else value
                values[key] = [*values.get(key, []), told] if told else []
    return Unit(name=own, path=path, values=values)


def _drop_ins(folders: Sequence[str], names: Iterable[str]) -> list[str]:
    """By their names, whatever folder they lie in; of two with one name the first folder's counts."""
    found: dict[str, str] = {}
    for beside in (f"{folder}/{name}.d" for folder in folders for name in names):
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


def ask(name: str = NAME) -> Mapping[str, str] | str:
    """What the running systemd says of this unit; why it can't be asked when it can't."""
    if not os.path.isdir(_BOOTED):
        return "systemd does not run here"
    command = ["systemctl", "show", name, f"--property={','.join(_ASKED)}"]
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
