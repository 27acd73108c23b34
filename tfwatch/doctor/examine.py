"""All checks of one spool, in the order in which a person would mend what they find."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

from tfwatch.doctor import (
    alert_check,
    daemon_check,
    folder_check,
    log_check,
    notice_check,
    room_check,
    service_check,
    settings_check,
    unit_check,
    webhook_check,
    who,
)
from tfwatch.doctor import unit as units
from tfwatch.doctor.case import Case
from tfwatch.doctor.finding import Finding, failure, skipped
from tfwatch.doctor.unit import Unit
from tfwatch.look import Settings
from tfwatch.settings_problems import Problem
from tfwatch.spool.folders import Folders
from tfwatch.spool.intake import ignore_lease_signals

_CHECK_SECONDS: Final = 10
"""A disk that takes longer to answer a check doesn't answer."""

_SUDO: Final = "sudo tfwatch doctor"


class _TooLong(Exception):
    """A check has not ended in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What was found, and on whose behalf."""

    user: str
    findings: tuple[Finding, ...]


def examine(
    known: Settings, *, send_test_alert: bool = False, unit_folders: tuple[str, ...] = units.FOLDERS
) -> Examination:
    """Check everything. As root this process goes on as the daemon's user; call it from the main thread.

    Takes 20 s at most for services that don't answer; nothing it makes stays. `send_test_alert`: the only thing sent.
    """
    folders = Folders(known.config.spool.root)
    installed = _installed(unit_folders, known.path)
    unit = installed if installed and _same_file(installed.config, known.path) else None
    user = who.daemon_user(folders, unit)
    case = Case(settings=known, folders=folders, user=user, unit=unit)
    findings = list(settings_check.settings(known))
    # What follows needs root's eyes; everything after it is tried with the daemon's own.
    findings += settings_check.secrets(known)
    used = notice_check.used_by(user.uid)
    about_unit = list(
        _kept_short(
            "systemd",
            lambda: unit_check.systemd(case, installed, units.ask(installed.name if installed else units.NAME)),
        )
    )
    services, addresses = service_check.connect(case), alert_check.Addresses(case)
    who.take_over(user)
    services.ask()
    if send_test_alert:
        addresses.tell(user.name, folders.root)
    ignore_lease_signals()
    findings += [*settings_check.readable(case), *who.check(user)]
    findings += _of_spool(case, used)
    findings += _kept_short("web", lambda: daemon_check.web(case))
    findings += webhook_check.webhooks(case)
    findings += service_check.answers(case, services)
    findings += [*service_check.clock(services), *addresses.findings()]
    return Examination(user=user.name, findings=(*findings, *about_unit))


def without_spool(problems: Iterable[Problem]) -> tuple[Finding, ...]:
    """What is found when the settings don't even say where the spool is."""
    rest = skipped("spool", "nothing else was looked at: the settings can't be read", "tfwatch check-config")
    return (*settings_check.broken(problems), rest)


def _of_spool(case: Case, used: notice_check.Used) -> Iterator[Finding]:
    """What needs the spool's folders; without a root there is nothing to look at."""
    found = list(_kept_short("folders", lambda: folder_check.folders(case)))
    yield from found
    if not os.path.isdir(case.folders.root):
        yield skipped("spool", "there is no spool to look at")
        return
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("rename", lambda: folder_check.rename(case)),
        ("file system", lambda: folder_check.file_system(case)),
        ("lease", lambda: notice_check.lease(case)),
        ("cap_lease", lambda: notice_check.others_files(case)),
        ("inotify", lambda: notice_check.inotify(case, used)),
        ("events", lambda: notice_check.events(case)),
        ("space", lambda: room_check.space(case)),
        ("retention", lambda: room_check.retention(case)),
        ("log", lambda: log_check.log(case)),
        ("index", lambda: log_check.index(case)),
        ("switches", lambda: log_check.switches(case)),
        ("daemon", lambda: daemon_check.daemon(case)),
    )
    for name, check in checks:
        yield from _kept_short(name, check)


def _kept_short(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check's findings; a disk that does not answer, or not to this user, is one, too."""
    try:
        with _within(_CHECK_SECONDS):
            found = list(check())
    except _TooLong:
        seen = f"no answer within {_CHECK_SECONDS} s: the disk hangs"
        yield failure(name, seen, "see dmesg; a network file system may have lost its server")
    except FileNotFoundError as error:
        yield skipped(name, f"{error.filename} is not there; the daemon makes it when it starts")
    except PermissionError as error:
        yield skipped(name, f"{error.filename}: user {os.geteuid()} may not look at it", _SUDO)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        yield failure(name, f"{where}{error.strerror}", "see dmesg: the disk may be failing")
    else:
        yield from found


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    """Raise `_TooLong` in this block when it takes longer."""

    def too_long(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _installed(folders: tuple[str, ...], config: str) -> Unit | None:
    try:
        return units.find(folders, config=config)
    except OSError:
        return None


def _same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.abspath(one) == os.path.abspath(other)
