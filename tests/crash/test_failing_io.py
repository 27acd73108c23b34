"""One system call on one file of the spool fails, each in turn, with each error a disk can give.

Whatever fails, the daemon carries on rightly or ends and says why: which file, what happened, what to do. A healthy
start then brings everything to its end: one order, one copy, one place.
"""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import subprocess
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.extent import Extent
from tests.support.s3_servers import S3Server
from tests.support.scene import Scene, scene
from tests.support.strace import Call, failing, recorded, recording

pytestmark = pytest.mark.timeout(7200)

AT_ONCE = 6
"""Scenes side by side: each mostly waits."""

PATIENCE = 180.0
"""For a daemon under strace on a busy machine."""

ERRORS = {
    "write": ("EIO", "ENOSPC", "EDQUOT", "EROFS", "EINTR"),
    "pwrite64": ("EIO", "ENOSPC"),
    "read": ("EIO",),
    "pread64": ("EIO",),
    "preadv2": ("EIO",),
    "fsync": ("EIO", "ENOSPC"),
    "fdatasync": ("EIO", "ENOSPC"),
    "openat": ("EIO", "EMFILE", "EACCES", "ENOSPC", "EROFS"),
    "mkdir": ("ENOSPC", "EROFS"),
    "rename": ("EIO", "ENOSPC", "EROFS", "EACCES"),
    "renameat2": ("EIO", "ENOSPC", "EROFS", "EACCES"),
    "unlink": ("EIO", "EROFS", "EACCES"),
    "ftruncate": ("EIO", "ENOSPC", "EROFS"),
    "fcntl": ("EIO", "ENOLCK"),
    "flock": ("EIO",),
    "getdents64": ("EIO",),
}
"""What each call is made to fail with: what Linux documents for it, and an operator may meet."""

_NEEDS_WRITING = re.compile("O_CREAT|O_RDWR|O_WRONLY")
_FLEETING = re.compile(r"\.probe-|\.[0-9a-f]{12}\.tmp")
"""Names with chance in them: no case can name such a path beforehand."""

SYNCS = ("fsync", "fdatasync")

_NO_ROOM = ("ENOSPC", "EDQUOT")
_SAID_OF_NO_ROOM = ("disk is full", "deliveries wait")
_SQLITE = "index.sqlite"
_MOST = 8
"""SQLite reads and writes its own files so often that beyond this only every fourth time is tried."""
_ERRORS_OF_SQLITE = 2
"""What it makes of an error depends little on which one it is."""


@dataclass(frozen=True, slots=True)
class Case:
    """The `when`-th `call` of a thread on `path` (within the spool) fails; `for_good`: and all after it."""

    call: str
    path: str
    error: str
    when: int
    for_good: bool = False

    def __str__(self) -> str:
        return f"{self.call} {self.path} {self.error} when={self.when}{'+' if self.for_good else ''}"

    @property
    def is_of_sqlite(self) -> bool:
        """SQLite syncs the folder of its files too, with a call that we don't use there."""
        return _SQLITE in self.path or (self.call, self.path) == ("fdatasync", ".tfwatch")

    @property
    def words(self) -> str:
        return os.strerror(getattr(errno, self.error))


def cases_of(calls: list[Call], root: Path) -> list[Case]:
    """Every case that a recorded run shows."""
    count: Counter[tuple[int, str, str]] = Counter()
    found: dict[Case, None] = {}
    most: dict[tuple[str, str, str], int] = defaultdict(int)
    for call in calls:
        paths = [os.path.relpath(path, root) for path in call.paths if Path(path).is_relative_to(root)]
        named = [path for path in paths if not _FLEETING.search(path)]
        for path in dict.fromkeys(named):
            count[call.thread, call.name, path] += 1
        if not named:
            continue
        # strace looks at the first path of a `rename`, at all of a `renameat2`.
        path = paths[0] if call.name == "rename" else named[-1]
        if _FLEETING.search(path):
            continue
        when = count[call.thread, call.name, path]
        if _SQLITE in path and when > _MOST and when % 4:
            continue
        for error in ERRORS[call.name][: _ERRORS_OF_SQLITE if _SQLITE in path else None]:
            if call.name == "openat" and error in ("ENOSPC", "EROFS") and not _NEEDS_WRITING.search(call.rest):
                continue
            found[Case(call.name, path, error, when)] = None
            most[call.name, path, error] = max(most[call.name, path, error], when)
    for (name, path, error), last in most.items():
        if error != "EINTR":
            found |= {Case(name, path, error, when, for_good=True): None for when in (1, last)}
    return list(found)


@pytest.fixture(scope="session")
def cases(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """From a run in which nothing fails; in an order of chance, so that a share of them has some of everything."""
    home = tmp_path_factory.mktemp("recorded")
    with scene(home, server) as running:
        record = home / "strace"
        running.drop("a.zip")
        running.spool.start(wrap=recording(record, *ERRORS))
        running.wait_until_settled()
        assert 0 == running.spool.stop()
        running.assert_invariants()
        found = cases_of(recorded(record), running.spool.root)
    random.Random(0).shuffle(found)
    return found


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case: how the daemon took it (`exit`, `settled`, `told`), and what was wrong with that."""

    case: Case
    landed: bool
    ended: str
    problem: str = ""


def play(case: Case, home: Path, server: S3Server) -> Outcome:
    """Let it happen, then start healthy, and hold the end against the invariants."""
    home.mkdir()
    record = home / "strace"
    landed, ended, problem = False, "hung", ""
    with scene(home, server) as running:
        running.drop("a.zip")
        path, when = running.spool.root / case.path, f"{case.when}{'+' if case.for_good else ''}"
        try:
            running.spool.start(ready=False, wrap=failing(record, case.call, case.error, when, path=path))
            ended = how_it_ends(running, case)
            calls = recorded(record)
            landed = any(call.was_injected for call in calls)
            assert landed or ended == "settled", running.picture()
            if landed and ended == "exit":
                assert_told(running, case)
            if landed and case.call in SYNCS and not case.is_of_sqlite:
                assert ended == "exit", running.picture()
                assert calls[-1].was_injected, "synced again after a failure"
            if ended != "settled":
                running.spool.start(seconds=PATIENCE)
                running.wait_until_settled(PATIENCE)
                assert 0 == running.spool.stop()
            running.assert_invariants()
        except (AssertionError, subprocess.TimeoutExpired) as error:
            problem = f"{error}\n{running.picture()}"
    shutil.rmtree(home)
    return Outcome(case, landed, ended, problem)


def how_it_ends(running: Scene, case: Case) -> str:
    """`exit`: over it, by itself or when stopped; `settled`: it carried on; `told`: it waits, and status says why."""
    spool, ends_at = running.spool, time.monotonic() + PATIENCE
    process, ask_at = spool.process, time.monotonic() + 5
    assert process is not None
    while process.poll() is None:
        if running.is_settled():
            code = spool.stop(seconds=PATIENCE)
            assert code in (0, 1), running.picture()
            return "exit" if code else "settled"
        if time.monotonic() > ask_at:
            ask_at = time.monotonic() + 5
            shown = " ".join(spool.cli("status").stdout.split())
            has_no_room = case.error in _NO_ROOM and any(words in shown for words in _SAID_OF_NO_ROOM)
            # One that may not be read is told with its owner and mode, and the command that mends it.
            may_not_be_read = case.error == "EACCES" and ("can't be read" in shown or "may not be read" in shown)
            if case.words in shown or has_no_room or may_not_be_read:
                assert spool.stop(seconds=PATIENCE) in (0, 1), running.picture()
                assert "Traceback" not in spool.output.read_text(), running.picture()
                return "told"
            assert time.monotonic() < ends_at, f"nothing happens, and nothing is told: {shown}\n{running.picture()}"
        time.sleep(0.2)
    spool.process = None
    assert process.returncode in (1, 78), f"exit {process.returncode}\n{running.picture()}"
    return "exit"


def assert_told(running: Scene, case: Case) -> None:
    """A line says which file and what happened; no traceback for what an operator can meet."""
    said = running.spool.output.read_text()
    assert "Traceback" not in said, said
    if case.is_of_sqlite:
        assert _SQLITE in said, said
    else:
        assert any(case.words in line and case.path in line for line in said.splitlines()), said


@pytest.mark.parametrize("call", ERRORS)
def test_one_call_fails(call: str, cases: list[Case], server: S3Server, extent: Extent, tmp_path: Path) -> None:
    """A failing call loses nothing and repeats nothing; the daemon carries on, or waits or ends and says why."""
    mine = extent.sample([case for case in cases if case.call == call], call)
    assert mine, "the recorded run has no such call on a file of the spool"
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(lambda pair: play(pair[1], tmp_path / str(pair[0]), server), enumerate(mine)))
    for error in ERRORS[call]:
        told = Counter(one.ended if one.landed else "never landed" for one in outcomes if one.case.error == error)
        print(f"\n{call} {error}: {told.total()} cases, {dict(told)}", end="")
    print(f"\n{call}: {len(mine)} cases, seed {extent.seed}, {time.monotonic() - began:.0f} s")
    wrong = [one for one in outcomes if one.problem]
    assert not wrong, "".join(f"\n{one.case}: landed {one.landed}, {one.ended}: {one.problem}" for one in wrong)
    # One that is chosen alone may be about a call that a run makes only now and then.
    landed = sum(one.landed for one in outcomes)
    assert len(mine) < 3 or landed >= 0.7 * len(mine), f"{landed} of {len(mine)} landed"


LOG_SYNCS = 6
"""Syncs of log.csv in a run with one package: at its opening, then one for each row but the first."""


def test_a_failed_sync_of_the_log_is_final(server: S3Server, extent: Extent, tmp_path: Path) -> None:
    """After a failed fdatasync nothing is synced again, written or sent on the strength of it: exit 1, and said so."""
    whens = extent.sample(list(range(1, LOG_SYNCS + 1)), "syncs of the log")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        reached = list(pool.map(lambda when: fail_a_sync_of_the_log(when, tmp_path / str(when), server), whens))
    print(f"\nfdatasync of log.csv: {len(reached)} cases, the package was then in {dict(Counter(reached))}")


def fail_a_sync_of_the_log(when: int, home: Path, server: S3Server) -> str:
    home.mkdir()
    record = home / "strace"
    with scene(home, server) as running:
        running.drop("a.zip")
        log = running.spool.root / "log.csv"
        also = ("fsync", "write", "pwrite64", "ftruncate", "renameat2", "rename")
        running.spool.start(ready=False, wrap=failing(record, "fdatasync", "EIO", str(when), path=log, also=also))
        process = running.spool.process
        assert process is not None
        assert 1 == process.wait(PATIENCE)
        running.spool.process = None
        *_, last = recorded(record)
        assert last.was_injected, f"{last} came after the failure\n{running.picture()}"
        assert "log.csv takes no more rows" in running.spool.output.read_text() or when == 1
        assert "Input/output error on fsync" in running.spool.output.read_text()
        written = [row[4] for row in running.logged()[1:] if row[6]]
        relied_on = written[:-1] if when > 1 else written
        (stage,) = {stage for stage, _, _ in running.lying()}
        assert stage in LIES_IN[tuple(relied_on)], running.picture()
        assert ("ATTEMPTED" in relied_on) == bool(running.sandbox.orders()), running.picture()
        running.spool.start(seconds=PATIENCE)
        running.wait_until_settled(PATIENCE)
        assert 0 == running.spool.stop()
        running.assert_invariants()
    return stage


LIES_IN = {
    (): ("outbox", "claimed"),
    ("ATTEMPTED",): ("claimed",),
    ("ATTEMPTED", "ACCEPTED"): ("submitted",),
    ("ATTEMPTED", "ACCEPTED", "COMPLETED"): ("delivered",),
}
"""Facts that are on disk for certain, and where the package may lie while the next one is not."""
