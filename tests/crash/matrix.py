"""One play, acted again and again: each time the daemon dies at another of its system calls, and is started again."""

from __future__ import annotations

import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.daemon import wait_until
from tests.support.deadly import Made, Target, recorded, targets
from tests.support.extent import Extent
from tests.support.s3_servers import S3Server
from tests.support.scene import Scene, scene
from tests.support.warm import Nursery
from tfwatch.sandbox.faults import Fault
from tfwatch.sandbox.settings import PortalSettings

AT_ONCE = 4
"""Scenes acted at the same time: each mostly waits."""

_TRIES = 3
"""Of a case, until its kill lands."""

DEADLINE = 300.0
"""Seconds: the machine may have other things to do."""


@dataclass(frozen=True, kw_only=True)
class Play:
    """What happens in a scene, when it is over, and what must be true then."""

    name: str
    prepare: Callable[[Scene], None]
    is_over: Callable[[Scene], bool]
    check: Callable[[Scene], None]
    portal: PortalSettings = field(default_factory=lambda: PortalSettings(verdict_delay=0.1))
    faults: tuple[Fault, ...] = ()
    sections: Mapping[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Tally:
    """What a matrix did: calls recorded, cases tried and kills landed, by call; what went wrong."""

    made: Counter[str] = field(default_factory=Counter)
    tried: Counter[str] = field(default_factory=Counter)
    landed: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    restarts_killed: int = 0
    wrong: list[str] = field(default_factory=list)

    def told(self, play: str, extent: Extent, seconds: float) -> str:
        """For people: a line for each call."""
        lines = [f"  {call:<12} {count:>4} made {self.tried[call]:>4} tried {self.landed[call]:>4} landed"
                 for call, count in self.made.most_common()]  # fmt: skip
        head = (
            f"{play}: {self.landed.total()} of {self.tried.total()} kills landed, {self.restarts_killed} of "
            f"{self.restarts} kills of the restart; 1 case in {extent.share}, seed {extent.seed}, {seconds:.0f} s"
        )
        return "\n".join(["", head, *lines])


@dataclass(frozen=True, kw_only=True)
class Theatre:
    """Where all plays are acted: one S3 server, one nursery of daemons, and how much is to be done."""

    server: S3Server
    nursery: Nursery
    extent: Extent

    @contextmanager
    def scene(self, play: Play, home: Path) -> Iterator[Scene]:
        """A scene for one case of a play."""
        home.mkdir()
        with scene(home, self.server, portal=play.portal, faults=play.faults, **play.sections) as made:
            made.spool.launch = self.nursery.start
            yield made


def act(play: Play, home: Path, theatre: Theatre, *, since: str = "", each_call: bool = False) -> Tally:
    """Record the play, then act it once for each recorded call (or a share of them), dying there.

    `since`: only calls from the first one that is about this text. `each_call`: a share, but of each call by itself.
    Each row of the log is always tried: right before it, what it tells has happened and nothing knows of it.
    One restart in three, by chance, is killed too, at a moment by chance. Fails when anything was not as it must be in
    the end, when no kill landed at some call, and when the restarts lived on.
    """
    extent, began = theatre.extent, time.monotonic()
    made = _rehearse(play, home / "rehearsal", theatre)
    first = next((number for number, one in enumerate(made) if since in one.about), 0)
    everything = dict(zip(targets(made, first), made[first:], strict=True))
    chosen = {case for case, one in everything.items() if one.call == "write" and one.about.endswith("/log.csv")}
    for call in {case.call for case in everything} if each_call else {""}:
        chosen.update(extent.sample([case for case in everything if call in ("", case.call)], play.name))
    cases = [case for case in everything if case in chosen]
    tally = Tally(made=Counter(one.call for one in made[first:]), tried=Counter(case.call for case in cases))
    rng = extent.rng(play.name)
    again = [Target("any", rng.randint(1, len(made) // 2)) if rng.randrange(3) == 0 else None for _ in cases]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number, (case, restart) in enumerate(zip(cases, again, strict=True)):
            pool.submit(_case, play, home / str(number), theatre, case, restart, tally)
        try:
            pool.shutdown()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    print(tally.told(play.name, extent, time.monotonic() - began))
    assert not tally.wrong, f"{len(tally.wrong)} of {len(cases)} cases, seed {extent.seed}\n" + "\n".join(tally.wrong)
    assert tally.tried
    assert [] == [call for call in tally.tried if tally.landed[call] == 0]
    assert tally.restarts < 10 or tally.restarts_killed >= 0.3 * tally.restarts
    assert tally.landed.total() >= 0.8 * tally.tried.total()
    return tally


def _rehearse(play: Play, home: Path, theatre: Theatre) -> list[Made]:
    """Act it once without any harm; gives the calls the daemon made."""
    record = home / "calls"
    with theatre.scene(play, home) as stage:
        play.prepare(stage)
        assert not _live(play, stage, theatre, record, Target())
        play.check(stage)
    made = recorded(record)
    shutil.rmtree(home)
    return made


def _case(play: Play, home: Path, theatre: Theatre, case: Target, restart: Target | None, tally: Tally) -> None:
    try:
        for _ in range(_TRIES):
            if _act_once(play, home, theatre, case, restart, tally):
                break
    except Exception:
        last = "".join((home / name).read_text()[-200:] for name in ("calls", "calls-2") if (home / name).exists())
        tally.wrong.append(f"--- {play.name}: died at {case}, then {restart}; {last}\n{traceback.format_exc()}")
        print(tally.wrong[-1], flush=True)  # in a long run, at once


def _act_once(play: Play, home: Path, theatre: Theatre, case: Target, restart: Target | None, tally: Tally) -> bool:
    """Whether the daemon died there; a run may make fewer calls than the rehearsal did."""
    with theatre.scene(play, home) as stage:
        play.prepare(stage)
        died = _live(play, stage, theatre, home / "calls", case)
        if died and restart is not None:
            tally.restarts += 1
            tally.restarts_killed += _live(play, stage, theatre, home / "calls-2", restart)
        tally.landed[case.call] += died
        _live_on(play, stage)
        play.check(stage)
    shutil.rmtree(home)
    return died


def _live(play: Play, stage: Scene, theatre: Theatre, record: Path, target: Target) -> bool:
    """Run the daemon until it dies, or until the play is over and it was stopped; tells whether it died."""
    spool = stage.spool
    before = spool.output.read_bytes().count(b"watching ") if spool.output.exists() else 0
    process = theatre.nursery.start(spool, target=target, record=record)

    def is_over() -> bool:
        return spool.output.read_bytes().count(b"watching ") > before and play.is_over(stage)

    _wait_until(lambda: process.poll() is not None or is_over(), stage)
    code = process.poll()
    if code is None:
        code = spool.stop(seconds=DEADLINE)
    spool.process = None
    assert code in (0, -signal.SIGKILL), f"the daemon ended, exit code {code}\n{stage.picture()}"
    return code != 0


def _live_on(play: Play, stage: Scene) -> None:
    """Run the daemon unharmed until the play is over, and stop it."""
    spool = stage.spool
    spool.start(seconds=DEADLINE)
    process = spool.process
    assert process is not None
    _wait_until(lambda: process.poll() is not None or play.is_over(stage), stage)
    assert process.poll() is None, f"the daemon ended, exit code {process.poll()}\n{stage.picture()}"
    code = spool.stop(seconds=DEADLINE)
    assert 0 == code, f"exit code {code} at the stop\n{stage.picture()}"
    assert [] == spool.litter(), stage.picture()


def _wait_until(condition: Callable[[], bool], stage: Scene) -> None:
    try:
        wait_until(condition, "the play is over", DEADLINE)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{stage.picture()}") from None
