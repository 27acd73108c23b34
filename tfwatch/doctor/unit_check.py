"""The installed systemd unit against what the daemon needs of it, and against these settings."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import stat
from collections.abc import Iterator, Mapping
from typing import Final

from tfwatch.doctor.case import Case
from tfwatch.doctor.finding import Finding, failure, ok, skipped, warning
from tfwatch.doctor.unit import Unit

_HOMES: Final = ("/home", "/root", "/run/user")
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")
_SECONDS: Final = {
    **dict.fromkeys(("", "s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec"), 0.001),
    **dict.fromkeys(("us", "usec"), 0.000001),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
}


def systemd(case: Case, installed: Unit | None, asked: Mapping[str, str] | str) -> Iterator[Finding]:
    """The unit's files, and what the running systemd says of it (`unit.ask`), or why it says nothing."""
    if installed is None:
        yield skipped("systemd", "no tfwatch.service is installed")
        return
    if case.unit is None:
        seen = f"{installed.path} runs tfwatch with {installed.config}; these settings are {case.settings.path}"
        yield skipped("systemd", seen, f"tfwatch doctor -c {installed.config}")
        return
    said = [*_identity(case.unit), *_hardening(case.unit), *_places(case, case.unit), *_credentials(case.unit)]
    if not isinstance(asked, str):
        said += _state(case, case.unit, asked)
    yield from said
    if not any(each.result in ("failure", "warning") for each in said):
        running = f"; {asked}, so only its files were read" if isinstance(asked, str) else ""
        yield ok("systemd", f"{case.unit.path} gives the daemon what it needs{running}")


def _edit(unit: Unit) -> str:
    return f"sudo systemctl edit {unit.called}, then: sudo systemctl restart {unit.called}"


def _identity(unit: Unit) -> Iterator[Finding]:
    user = unit.last("User", "root")
    if unit.is_on("DynamicUser"):
        yield failure("systemd", "DynamicUser=yes: the spool would belong to nobody", f"User=tfwatch: {_edit(unit)}")
    try:
        pwd.getpwnam(user)
    except KeyError:
        do = f"sudo adduser --system --group --no-create-home --home /var/lib/tfwatch {user}"
        yield failure("systemd", f"User={user}: there is no such user", do)
    if user == "root":
        yield warning("systemd", "it runs as root, which the daemon does not need", f"User=tfwatch: {_edit(unit)}")
    kind, access = unit.last("Type", "simple"), unit.last("NotifyAccess", "main")
    if kind != "notify":
        seen = f"Type={kind}: systemd does not wait until deliveries are possible, and shows no status line"
        yield warning("systemd", seen, f"Type=notify: {_edit(unit)}")
    elif access not in ("main", "all", "exec"):
        yield failure(
            "systemd", f"NotifyAccess={access}: systemd never hears READY=1", f"NotifyAccess=main: {_edit(unit)}"
        )
    watchdog = _seconds(unit.last("WatchdogSec"))
    if not watchdog:
        yield warning(
            "systemd", "without WatchdogSec= a hung daemon is not restarted", f"WatchdogSec=60: {_edit(unit)}"
        )
    elif watchdog < 10:
        seen = f"WatchdogSec={unit.last('WatchdogSec')}: one slow pass on a busy disk ends the daemon"
        yield warning("systemd", seen, f"WatchdogSec=60: {_edit(unit)}")


def _hardening(unit: Unit) -> Iterator[Finding]:
    if unit.last("PrivateUsers").lower() not in ("", "no", "false", "off", "0"):
        seen = f"PrivateUsers={unit.last('PrivateUsers')} takes the leases away: no ZIP is known to be finished at once"
        yield failure("systemd", seen, f"PrivateUsers=no: {_edit(unit)}")
    for key in ("AmbientCapabilities", "CapabilityBoundingSet"):
        if not _gives_lease(unit, key) and unit.last("User", "root") != "root":
            seen = f"{key}= lacks CAP_LEASE: what other users drop waits until it has been still"
            yield warning("systemd", seen, f"{key}=CAP_LEASE: {_edit(unit)}")


def _gives_lease(unit: Unit, key: str) -> bool:
    words = [word.lower() for word in unit.words(key)]
    if words and words[0].startswith("~"):  # all but these
        return "cap_lease" not in [word.removeprefix("~") for word in words]
    return "cap_lease" in words or (key == "CapabilityBoundingSet" and not words)


def _places(case: Case, unit: Unit) -> Iterator[Finding]:
    """Whether the unit lets the daemon write in the whole spool, through one mount."""
    root = case.folders.root
    writable = [f"/var/lib/{word.partition(':')[0]}" for word in unit.words("StateDirectory")]
    writable += [word.lstrip("-+") for word in unit.words("ReadWritePaths")]
    is_strict = unit.last("ProtectSystem").lower() == "strict"
    if any(_covers(path, root) for path in writable):
        pass  # what lies below is the same mount
    elif inner := [path for path in writable if path.startswith(f"{root}/")]:
        seen = f"{inner[0]} becomes a mount of its own inside {root}, so no file can be renamed into or out of it"
        yield failure("systemd", seen, f"one ReadWritePaths={root} for the whole spool: {_edit(unit)}")
    elif is_strict:
        seen = f"ProtectSystem=strict, and neither StateDirectory= nor ReadWritePaths= covers {root}"
        yield failure("systemd", seen, f"ReadWritePaths={root}: {_edit(unit)}")
    if unit.last("ProtectHome").lower() not in ("", "no", "false") and any(_covers(home, root) for home in _HOMES):
        yield failure("systemd", f"ProtectHome= hides {root}", f"ProtectHome=no, or a spool elsewhere: {_edit(unit)}")
    if unit.is_on("PrivateTmp") and any(_covers(tmp, root) for tmp in ("/tmp", "/var/tmp")):  # noqa: S108
        yield failure("systemd", f"PrivateTmp=yes hides {root}", "put the spool elsewhere: /tmp is no place for it")


def _covers(outer: str, inner: str) -> bool:
    return inner == outer.rstrip("/") or inner.startswith(f"{outer.rstrip('/')}/")


def _credentials(unit: Unit) -> Iterator[Finding]:
    """Where the unit takes its secrets from: there, and nobody else's to read."""
    for word in unit.words("LoadCredential"):
        name, _, path = word.partition(":")
        if not path.startswith("/"):
            continue
        try:
            info = os.stat(path)
            is_folder = stat.S_ISDIR(info.st_mode)
            inside = [f"{path}/{each}" for each in os.listdir(path)] if is_folder else [path]
        except FileNotFoundError:
            seen = f"LoadCredential={name}: {path} is not there, so the unit can't start"
            yield failure("systemd", seen, f"sudo install -d -m 0700 {shlex.quote(path)}")
            continue
        except PermissionError:
            continue  # root alone may look: so it should be
        for file in inside:
            mode = os.stat(file).st_mode
            is_open = stat.S_ISREG(mode) and mode & (stat.S_IROTH | stat.S_IWOTH)
            if is_open and (not is_folder or info.st_mode & stat.S_IXOTH):
                seen = f"{file} holds a secret and is open to every user (mode {stat.S_IMODE(mode):04o})"
                yield failure("systemd", seen, f"sudo chmod 0600 {shlex.quote(file)}; then change the secret")


def _state(case: Case, unit: Unit, asked: Mapping[str, str]) -> Iterator[Finding]:
    if asked.get("NeedDaemonReload") == "yes":
        yield warning("systemd", "its files were changed since systemd read them", "sudo systemctl daemon-reload")
    if asked.get("ActiveState") == "failed":
        seen = f"it has failed ({asked.get('Result', 'no reason given')})"
        do = f"journalctl -u {unit.called} -n 50; then: sudo systemctl restart {unit.called}"
        yield failure("systemd", seen, do)
    if asked.get("UnitFileState") == "disabled":
        yield warning("systemd", "it does not start with the machine", f"sudo systemctl enable {unit.called}")
    main = asked.get("MainPID", "0")
    if case.is_running and case.pid and main not in ("0", str(case.pid)):
        seen = f"process {case.pid} holds the spool, but the unit's is {main}"
        yield failure("systemd", seen, f"stop the other one: ps {case.pid}")


def _seconds(span: str) -> float:
    """A time span as systemd writes it: `60`, `1min 30s`; 0 for one that means never."""
    return sum(float(number) * _SECONDS.get(unit, 1.0) for number, unit in _SPAN.findall(span.lower()))
