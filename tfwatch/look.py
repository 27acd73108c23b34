"""A spool as it is now, seen from outside: nothing in it is made, changed or moved by looking."""

from __future__ import annotations

import difflib
import json
import os
import pwd
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Final

from tfwatch.config import Config
from tfwatch.language import tr
from tfwatch.ledger.index import Index, PackageState
from tfwatch.ledger.log import LogDamaged, Position, read_log
from tfwatch.ledger.rows import BadRow, decode
from tfwatch.model import DeliveryRecord, Integration, Stage
from tfwatch.settings_file import Loaded, load
from tfwatch.settings_layers import Layers
from tfwatch.settings_problems import ConfigError, Problem
from tfwatch.spool import lock
from tfwatch.spool.folders import Folders
from tfwatch.spool.listing import Listing
from tfwatch.wording import held_since

_REPLAY_ROWS: Final = 5000
_CHUNK: Final = 4 << 20
_MOST_NAMES: Final = 20_000
HOW_TO_BE_LET_IN: Final = (
    "run the command with sudo, or become an operator: sudo adduser NAME tfwatch-ops, then log in anew"
)
_SEVERAL: Final = "/etc/tfwatch"
"""Each daemon of several has its settings in a folder of its own in there: systemd/tfwatch@.service."""


class Unavailable(Exception):
    """The spool can't be looked at: why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """config.yaml as a command sees it. With `problems`, `config` holds defaults but for `spool.root`.

    `files`: all that were read or looked for, as `settings_file.Loaded` has them.
    """

    path: str
    config: Config
    sources: Mapping[str, str]
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """Where an integration stands: whether it may be used, a word for it, who says so, why, and what to do."""

    enabled: bool
    state: str
    source: str
    reason: str = ""
    what_to_do: str = ""


def settings(path: str, environ: Mapping[str, str]) -> Settings:
    """Read the settings, as the daemon would; raises `ConfigError`."""
    return _settings(load(path, environ=_with_credentials(path, environ)))


def settings_to_look(path: str, environ: Mapping[str, str]) -> Settings:
    """Read the settings to look at the spool they name, without the secrets if it is another user's.

    Raises `ConfigError`.
    """
    try:
        return settings(path, environ)
    except ConfigError:
        root = Layers(path, environ, bystander=True).get("spool.root", Config().spool.root)
        if not isinstance(root, str) or not is_anothers(root):
            raise
    return _settings(load(path, environ=environ, bystander=True))


def _settings(loaded: Loaded) -> Settings:
    return Settings(
        path=loaded.path, config=loaded.config, sources=loaded.sources, warnings=loaded.warnings, files=loaded.files
    )


def _with_credentials(path: str, environ: Mapping[str, str]) -> Mapping[str, str]:
    """What the service was given by systemd, for a command that is typed: it is asked about the same settings."""
    given = _service_credentials(path, environ)
    if "CREDENTIALS_DIRECTORY" in environ or not os.access(given, os.R_OK | os.X_OK):
        return environ
    return {**environ, "CREDENTIALS_DIRECTORY": given}


def _service_credentials(path: str, environ: Mapping[str, str]) -> str:
    """Where systemd keeps them while the service of these settings runs: tfwatch, tfwatch@NAME or a person's own."""
    if os.geteuid() != 0:
        return f"{environ.get('XDG_RUNTIME_DIR', '/run/user/none')}/credentials/tfwatch.service"
    outer, name = os.path.split(os.path.dirname(os.path.abspath(path)))
    return f"/run/credentials/tfwatch{f'@{name}' if outer == _SEVERAL else ''}.service"


def settings_with_problems(path: str, environ: Mapping[str, str]) -> Settings:
    """The same, but wrong values don't keep a running daemon from being looked at.

    Raises `ConfigError` when the file can't be read at all or does not say where the spool is.
    """
    try:
        return settings_to_look(path, environ)
    except ConfigError as error:
        layers = Layers(path, _with_credentials(path, environ))
        root = layers.get("spool.root", Config().spool.root)
        if not layers.sound or not isinstance(root, str) or not os.path.isabs(root):
            raise
        config = Config()
        config = config.model_copy(update={"spool": config.spool.model_copy(update={"root": root})})
        return Settings(
            path=os.path.abspath(path), config=config, sources={}, problems=error.problems, files=error.files
        )


def open_view(known: Settings) -> View:
    """Look at the spool the settings name, as the user whose it is. Raises `Unavailable`, OSError."""
    folders = Folders(known.config.spool.root)
    _become_owner(folders)
    _require_access(folders)
    return View(known, folders, running=lock.is_held(folders.lock))


class View:
    """One look at a spool: whether a daemon works in it, what its folders hold, and what its log adds up to.

    `trouble`: what kept the log from being read to its end; empty when nothing did.
    """

    def __init__(self, known: Settings, folders: Folders, *, running: bool, index: Index | None = None) -> None:
        """`index`: the daemon's own, which stays open when this is closed; None: `open_view` looks from outside."""
        self.settings = known
        self.folders = folders
        self.running = running
        self.trouble = ""
        self._theirs = index

    @cached_property
    def index(self) -> Index:
        """What the log adds up to; read when it is first asked for."""
        if self._theirs is not None:
            return self._theirs
        index, self.trouble = _read_index(self.folders, running=self.running)
        return index

    def close(self) -> None:
        """Let go of the projection, if it was read for this look."""
        if self._theirs is None and "index" in self.__dict__:
            self.index.close()

    def find(self, word: str) -> list[PackageState]:
        """Packages the log knows by a name, a path, a SHA-256 or 8 digits of it, a trace or an order; latest first."""
        for said in dict.fromkeys((word, word.lower(), os.path.basename(word))):
            if said and (found := self.index.search(said)):
                return found
        return []

    def places(self, name: str) -> tuple[Stage, ...]:
        """The stages in whose folders a regular file of that name lies now, in the order of work."""
        return tuple(stage for stage in Stage if self.folders.look(stage, name) is not None)

    def near(self, word: str) -> list[str]:
        """Names like a word nobody knows, the likeliest first."""
        word = os.path.basename(word)
        names = sorted(set(islice(self._names(), _MOST_NAMES)))
        holding = [name for name in names if word.lower() in name.lower()] if word else []
        return list(dict.fromkeys([*holding[:5], *difflib.get_close_matches(word, names, n=5, cutoff=0.6)]))[:5]

    def stand(self, integration: Integration) -> Stand:
        """Where an integration stands by the log and config.yaml."""
        section = getattr(self.settings.config.integrations, integration.value)
        missing = section.held_because if integration is Integration.GOTRANSCRIPT else None
        if missing and is_anothers(self.folders.root):
            # Only the daemon knows what it was given.
            missing = str(said["reason"]) if (said := self._daemon_says(integration)).get("state") == "held" else None
        source = self.settings.sources.get(f"integrations.{integration.value}.enabled", "default")
        held = self.index.integration(integration)
        if held.held:
            source = held_since(held.state, held.since)
            hint = tr("mend the cause, then: tfwatch enable {name}", name=integration.value)
            return Stand(enabled=False, state=held.state, source=source, reason=held.reason, what_to_do=hint)
        if not section.enabled:
            hint = tr("set integrations.{name}.enabled: true", name=integration.value)
            reason = tr("off by {source}", source=source)
            return Stand(enabled=False, state="off", source=source, reason=reason, what_to_do=hint)
        if missing:
            return Stand(enabled=False, state="held", source=source, reason=missing)
        return Stand(enabled=True, state="enabled", source=source)

    @cached_property
    def shown(self) -> dict[str, Any]:
        """What the running daemon shows of itself; empty in its first moments, and when none runs."""
        try:
            with open(self.folders.state, encoding="utf-8") as file:
                shown = json.load(file) if self.running else {}
        except (FileNotFoundError, ValueError):
            return {}
        return shown if isinstance(shown, dict) else {}

    def _daemon_says(self, integration: Integration) -> Mapping[str, Any]:
        said: Mapping[str, Any] = self.shown.get("integrations", {}).get(integration.value, {})
        return said

    def listing(self, stage: Stage) -> Listing:
        """What lies in a stage's folder; nothing when the folder isn't there."""
        try:
            return self.folders.list(stage)
        except (FileNotFoundError, NotADirectoryError):
            return Listing((), (), 0)

    def count(self, stage: Stage) -> int:
        """How many packages lie in a stage's folder."""
        try:
            return len(self.folders.names(stage))
        except (FileNotFoundError, NotADirectoryError):
            return 0

    def story_rows(self, sha256s: set[str]) -> list[DeliveryRecord]:
        """All rows about some contents, in the log's order; those up to the first that can't be read."""
        found: list[DeliveryRecord] = []
        try:
            found.extend(rows_about(self.folders.log, sha256s))
        except FileNotFoundError:
            return []
        except BadRow as bad:
            self.trouble = tr("{path}: a row about this package is damaged: {why}", path=self.folders.log, why=bad)
        return found

    def _names(self) -> Iterator[str]:
        for stage in (Stage.OUTBOX, Stage.CLAIMED, Stage.REJECTED, Stage.SUBMITTED, Stage.DELIVERED):
            try:
                yield from self.folders.names(stage)
            except OSError:
                continue


def rows_about(path: str, sha256s: set[str]) -> Iterator[DeliveryRecord]:
    """Rows of a log that carry one of these SHA-256s. Only these are decoded, so a million others take a second.

    Raises `tfwatch.ledger.rows.BadRow`, OSError.
    """
    needles = [sha256.encode() for sha256 in sha256s]
    with open(path, "rb") as file:
        rest = b""
        while chunk := file.read(_CHUNK):
            block, newline, rest = (rest + chunk).rpartition(b"\n")
            for line in _lines_with(block + newline, needles):
                record = decode(line)
                if record.sha256 in sha256s:
                    yield record


def _lines_with(block: bytes, needles: list[bytes]) -> Iterator[bytes]:
    starts = set()
    for needle in needles:
        at = block.find(needle)
        while at >= 0:
            starts.add(block.rfind(b"\n", 0, at) + 1)
            at = block.find(needle, block.find(b"\n", at) + 1)
    for start in sorted(starts):
        yield block[start : block.find(b"\n", start) + 1]


def is_anothers(root: str) -> bool:
    """Whether a spool belongs to a user whom this process can't become, so that it may know less than the daemon."""
    try:
        return os.geteuid() not in (0, os.stat(os.path.dirname(Folders(root).lock)).st_uid)
    except OSError:
        return False


def _become_owner(folders: Folders) -> None:
    """As root, go on as the user whose spool it is: what is left here must be his, and he sees what the daemon sees."""
    private = os.path.dirname(folders.lock)
    if os.geteuid() != 0 or not os.path.isdir(private):
        return
    owner = os.stat(private)
    become(owner.st_uid, owner.st_gid)


def become(uid: int, gid: int) -> None:
    """As root, go on as another user, with his groups and without root's powers. Does nothing for root himself."""
    if uid == 0:
        return
    try:
        os.initgroups(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        os.setgroups([gid])
    os.setegid(gid)
    os.seteuid(uid)


@contextmanager
def as_caller() -> Iterator[None]:
    """As whoever typed the command: root writes where root may, though he looks at the spool as its owner."""
    user, group = os.geteuid(), os.getegid()
    os.seteuid(os.getuid())
    os.setegid(os.getgid())
    try:
        yield
    finally:
        os.setegid(group)
        os.seteuid(user)


def _require_access(folders: Folders) -> None:
    private = os.path.dirname(folders.lock)
    if not os.path.isdir(folders.root):
        raise Unavailable(
            f"{folders.root}: there is no such folder; spool.root in config.yaml names it, and "
            f"this makes it: sudo install -d -o tfwatch -g tfwatch -m 2770 {folders.root}"
        )
    if not os.access(folders.root, os.X_OK, effective_ids=True):
        raise Unavailable(f"{folders.root}: user {os.geteuid()} may not look into it; {HOW_TO_BE_LET_IN}")
    if os.path.isdir(private) and not os.access(private, os.R_OK | os.X_OK, effective_ids=True):
        raise Unavailable(f"{private}: user {os.geteuid()} may not look into it; {HOW_TO_BE_LET_IN}")


def _read_index(folders: Folders, *, running: bool) -> tuple[Index, str]:
    """What the log adds up to: the projection as it is, else one in memory that is brought up to the log's end."""
    try:
        size = os.stat(folders.log).st_size
    except FileNotFoundError:
        return Index(":memory:"), ""
    seen = _open_projection(folders.index)
    offset = seen.position.offset if seen and seen.position else 0
    if seen is not None and offset and (running or offset == size):
        return seen, ""
    fresh = seen.in_memory() if seen is not None and 0 < offset < size else Index(":memory:")
    if seen is not None:
        seen.close()
    return fresh, _read_in(folders.log, fresh)


def _open_projection(path: str) -> Index | None:
    if not os.path.exists(path):
        return None
    try:
        return Index(path, read_only=True)
    except sqlite3.Error:
        return None


def _read_in(path: str, index: Index) -> str:
    """Read what the log has beyond a projection; returns what ended it early, if anything did."""
    rows, end, trouble = [], index.position or Position.start(), ""
    try:
        for record, position in read_log(path, index.position, live=True):
            rows.append(record)
            end = position
            if len(rows) >= _REPLAY_ROWS:
                index.apply(rows, end)
                rows = []
    except LogDamaged as error:
        trouble = str(error)
    index.apply(rows, end)
    return trouble
