"""Checks of `tfwatch doctor` asked in this process, and the command as an operator types it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.daemon import Spool
from tests.support.stranger import NOBODY
from tfwatch import look
from tfwatch.doctor.case import Case
from tfwatch.doctor.finding import Finding
from tfwatch.doctor.unit import Unit
from tfwatch.doctor.who import User
from tfwatch.spool.folders import Folders


def case_of(place: Spool, unit: Unit | None = None) -> Case:
    """A spool as the checks see it, tried by whoever runs the tests."""
    known = look.settings_with_problems(str(place.config), {})
    user = User(uid=os.geteuid(), gid=os.getegid(), why="a test says so")
    return Case(settings=known, folders=Folders(known.config.spool.root), user=user, unit=unit)


def results(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    """Check and result of each finding."""
    return [(found.check, found.result) for found in findings]


def only(findings: Iterator[Finding], result: str) -> Finding:
    """The one finding there is, with that result, and with what to do if it is bad."""
    found = list(findings)
    assert [result] == [each.result for each in found], found
    assert found[0].what_to_do or result in ("ok", "skipped")
    return found[0]


def examined(place: Spool, *, code: int) -> dict[str, list[dict[str, Any]]]:
    """What `tfwatch doctor --json` finds, by check; its exit code must be `code`."""
    done: subprocess.CompletedProcess[str] = place.cli("doctor", "--json")
    assert (code, "") == (done.returncode, done.stderr), f"{done.stdout}{done.stderr}"
    found: dict[str, list[dict[str, Any]]] = {}
    for each in json.loads(done.stdout)["checks"]:
        found.setdefault(each["check"], []).append(each)
    return found


def failed(found: dict[str, list[dict[str, Any]]]) -> set[str]:
    """The checks that failed."""
    return {check for check, findings in found.items() if any(each["result"] == "failure" for each in findings)}


def told(found: dict[str, list[dict[str, Any]]], check: str) -> str:
    """All that a check said."""
    return " ".join(f"{each['result']}: {each['seen']} -> {each['what_to_do']}" for each in found[check])


class _Theirs(Spool):
    """A spool whose config.yaml belongs to that user, too, however often it is written."""

    def write_config(self) -> None:
        super().write_config()
        hand_over(self.config)


@contextmanager
def theirs(base_url: str, api_key: str, **sections: Any) -> Iterator[Spool]:
    """A spool of a user without power: nobody's when root runs the tests, else the tests' own. All may get there."""
    home = Path(tempfile.mkdtemp(prefix="tfwatch-doctor-"))
    home.chmod(0o755)
    try:
        made = _Theirs(home, base_url, api_key, **sections)
        hand_over(home, *home.rglob("*"))
        try:
            yield made
        finally:
            made.kill()
    finally:
        shutil.rmtree(home)


def hand_over(*paths: Path) -> None:
    """They belong to that user now; root may do this, for others it is so already."""
    if os.geteuid() == 0:
        for path in paths:
            os.lchown(path, NOBODY, NOBODY)
