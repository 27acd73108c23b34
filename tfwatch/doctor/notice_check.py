"""How the daemon notices what is dropped: leases on files, room for inotify, and events that really come."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tfwatch.doctor.case import Case
from tfwatch.doctor.finding import Finding, failure, ok, skipped, warning
from tfwatch.model import Stage
from tfwatch.spool import trials

_LEASES: Final = "AmbientCapabilities=CAP_LEASE and CapabilityBoundingSet=CAP_LEASE in [Service] of the unit"
_CAP_LEASE: Final = 28  # linux/capability.h
_PATIENCE_SECONDS: Final = 5.0
_WATCHES: Final = 6
"""Folders that one daemon watches: four stages, requests/ and that of config.yaml."""

_QUEUE: Final = 16_384
"""The kernel's own fs.inotify.max_queued_events."""


# --- leases ---------------------------------------------------------------------------------------------------------


def lease(case: Case) -> Iterator[Finding]:
    """Whether the kernel tells that nobody has a file open for writing: in outbox/, on a file of our own."""
    outbox = case.folders.folder(Stage.OUTBOX)
    still = f"a ZIP is sent only once it has been still for {case.config.spool.settle_seconds:g} s"
    try:
        if not case.folders.sees_every_writer(Stage.OUTBOX):
            yield skipped("lease", f"leases don't count on this file system: {still}")
        elif trials.leases_work(case.folders):
            yield ok("lease", "refused while a file is being written, granted afterwards")
        else:
            yield warning("lease", f"{outbox}: leases don't work here: {still}", "put the spool on ext4, xfs or btrfs")
    except OSError as error:
        yield failure("lease", f"{outbox}: no file can be made there: {error.strerror}", case.give(outbox))


def others_files(case: Case) -> Iterator[Finding]:
    """A lease on another user's file needs CAP_LEASE."""
    info = os.stat(case.folders.folder(Stage.OUTBOX))
    if not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield ok("cap_lease", f"not needed: only {case.user.name} may drop into outbox/")
        return
    has, how = _has_cap_lease(case)
    if has:
        yield ok("cap_lease", f"{how}, so leases are granted on files that other users drop")
        return
    still = f"are sent only once they have been still for {case.config.spool.settle_seconds:g} s"
    yield warning("cap_lease", f"{how}: files that other users drop {still}", _LEASES)


def _has_cap_lease(case: Case) -> tuple[bool, str]:
    pid = case.pid if case.is_running else None
    if pid is not None and (powers := _powers_of(pid)) is not None:
        has = bool(powers >> _CAP_LEASE & 1)
        return has, f"the daemon (process {pid}) has {'' if has else 'no '}CAP_LEASE"
    if case.unit is not None:
        has = "cap_lease" in [word.lower() for word in case.unit.words("AmbientCapabilities")]
        return has, f"{case.unit.path} gives {'' if has else 'no '}CAP_LEASE"
    if case.user.uid == 0:
        return True, "root has CAP_LEASE"
    return False, f"nothing is installed that gives {case.user.name} CAP_LEASE"


def _powers_of(pid: int) -> int | None:
    """A process's effective capabilities as bits; None when it is gone or hidden."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            found = re.search(r"^CapEff:\s*([0-9a-f]+)$", file.read(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1], 16) if found else None


# --- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """How much of inotify one user's processes hold: descriptors, and watches on them."""

    instances: int
    watches: int


def used_by(uid: int) -> Used:
    """Count it; what this process may not look at is left out, so root sees most."""
    instances = watches = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid != uid:
                continue
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") == "anon_inode:inotify":
                    instances += 1
                    with open(f"/proc/{pid}/fdinfo/{fd}", encoding="utf-8", errors="replace") as file:
                        watches += file.read().count("inotify wd:")
        except OSError:
            continue  # gone meanwhile, or not ours to see
    return Used(instances=instances, watches=watches)


def inotify(case: Case, used: Used) -> Iterator[Finding]:
    """The kernel's limits for this user, against what he uses and what a daemon needs besides."""
    if case.config.spool.watch == "polling":
        yield skipped("inotify", "spool.watch is polling")
        return
    need = 0 if case.is_running else 1
    fine = True
    for name, taken, more in (
        ("max_user_instances", used.instances, need),
        ("max_user_watches", used.watches, need * _WATCHES),
    ):
        most = _limit(name)
        if taken + more > most:
            fine = False
            seen = f"fs.inotify.{name} is {most}, {case.user.name} uses {taken} and the daemon needs {more} more"
            yield failure("inotify", seen, f"sudo sysctl fs.inotify.{name}={max(2 * most, 512)}")
    if (queue := _limit("max_queued_events")) < _QUEUE:
        fine = False
        seen = f"fs.inotify.max_queued_events is {queue}: when more files come at once, everything is looked at instead"
        yield warning("inotify", seen, f"sudo sysctl fs.inotify.max_queued_events={_QUEUE}")
    if fine:
        seen = f"{used.instances} of {_limit('max_user_instances')} instances and {used.watches} of "
        yield ok("inotify", f"{seen}{_limit('max_user_watches')} watches of {case.user.name} are in use")


def _limit(name: str) -> int:
    with open(f"/proc/sys/fs/inotify/{name}", encoding="utf-8") as file:
        return int(file.read())


def events(case: Case) -> Iterator[Finding]:
    """A canary in outbox/, heard through a watch of our own."""
    outbox = case.folders.folder(Stage.OUTBOX)
    if case.config.spool.watch == "polling":
        yield skipped("events", "spool.watch is polling")
        return
    # It tells stderr of what still comes after the canary was heard: its file's removal.
    logging.getLogger("watchdog").setLevel(logging.CRITICAL)
    try:
        took = trials.event_seconds(case.folders, patience=_PATIENCE_SECONDS)
    except OSError as error:
        seen = f"{outbox} can't be watched: {error.strerror}; the daemon polls it instead"
        yield failure(
            "events", seen, "sudo sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512"
        )
        return
    if took is None:
        seen = f"{outbox}: no event came within {_PATIENCE_SECONDS:g} s; the daemon polls it instead"
        yield failure("events", seen, "put the spool on a local ext4, xfs or btrfs")
        return
    yield ok("events", f"the event of a new file in outbox/ took {1000 * took:.0f} ms")
