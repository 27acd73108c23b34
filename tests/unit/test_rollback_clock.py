"""How long an outage may last until the service is given up and that is documented: by the clock, with the defaults.

One lane, one spool on a real disk, the real use cases and the real pacing; only time is made. The portal fails in each
of its ways, for ever.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.daemon import zip_bytes
from tests.unit.house import EXEC_ID, Clock, House, house
from tfwatch.adapters.gotranscript import GotranscriptClient, GotranscriptSettings
from tfwatch.adapters.gotranscript_attempt import Pacing
from tfwatch.config import GotranscriptSettings as Defaults
from tfwatch.connections import LiveConfiguration
from tfwatch.delivery.admit import Admission
from tfwatch.delivery.claim import Outbox
from tfwatch.delivery.progress import Board
from tfwatch.delivery.recognise import Claim
from tfwatch.delivery.rollback import Rollback
from tfwatch.delivery.store import Store
from tfwatch.delivery.submit import SubmitDelivery
from tfwatch.delivery.switch import Setting, Switch
from tfwatch.delivery.told import ApplyTold
from tfwatch.delivery.waiting import WaitingRoom
from tfwatch.delivery.wiring import Wiring
from tfwatch.errors import OutcomeUnknown, ServiceError, ServiceFailure, TransientError
from tfwatch.model import Integration, Profile, Receipt, Stage, Submission
from tfwatch.settings_file import load

MOST_SECONDS = 300
TIMEOUT, CONNECT = Defaults().timeout_seconds, 5.0

WAYS: dict[str, tuple[float, Callable[[], ServiceFailure]]] = {
    "nobody listens": (0.0, lambda: TransientError("connection refused")),
    "it can't be reached": (CONNECT, lambda: TransientError("timed out")),
    "503 at once": (0.0, lambda: TransientError("HTTP 503", code=503)),
    "503 after a long thought": (TIMEOUT, lambda: TransientError("HTTP 503", code=503)),
    "it asks for a minute each time": (0.0, lambda: TransientError("HTTP 429", code=429, retry_after=60.0)),
    "silence": (CONNECT + TIMEOUT, lambda: OutcomeUnknown("no answer")),
}
"""How one try ends → how many seconds it takes, and what is known then."""


class Portal:
    """A dialect whose every try takes its time and fails."""

    profile = Profile.DELIVERIES
    needs_source_url = False

    def __init__(self, clock: Clock, seconds: float, failure: Callable[[], ServiceFailure]) -> None:
        self._clock, self._seconds, self._failure = clock, seconds, failure
        self.first_try: float | None = None

    def post(self, submission: Submission) -> Receipt:
        self.first_try = self._clock() if self.first_try is None else self.first_try
        self._clock.go(self._seconds)
        raise self._failure()

    def look_up(self, submission: Submission) -> Receipt | None:
        self._clock.go(self._seconds)
        raise TransientError("no answer to the question either")


class Lane:
    """The daemon's one lane, as its loop drives it, on a clock that stands still while nothing waits."""

    def __init__(self, home: House, portal: Portal, clock: Clock, on_unknown: str) -> None:
        defaults = Defaults()
        pacing = Pacing(
            attempts=defaults.retry.attempts, initial_seconds=defaults.retry.initial_seconds,
            max_seconds=defaults.retry.max_seconds, sleep=clock.go, jitter=lambda ceiling: ceiling,
        )  # fmt: skip
        settings = GotranscriptSettings(
            profile=Profile.DELIVERIES, base_url="https://portal.example", api_key="k", on_unknown=on_unknown
        )  # type: ignore[arg-type]
        self._clock, self._home = clock, home
        self._limbo: dict[str, float] = {}
        self.switch = Switch(Integration.GOTRANSCRIPT, home.index, clock=clock)
        self.switch.configure(Setting(enabled=True, source="default"), home.desk, probing=False)
        rollback = Rollback(home.desk, self.switch, threshold=defaults.rollback_after, clock=clock)
        self._waiting, board = WaitingRoom(clock=clock), Board(clock=clock)
        admission = Admission(
            home.desk, self._waiting, board, stopping=lambda: False, freed=lambda: None, in_limbo=self._wait
        )
        told = ApplyTold(
            home.desk, delivered=lambda package: None, left_claimed=lambda name: None, release=admission.release
        )
        self._submit = SubmitDelivery(
            home.desk, admission=admission, waiting=self._waiting, board=board, switch=self.switch, rollback=rollback,
            store=Store(home.desk, self._waiting, board, admission, stopping=lambda: False), told=told,
            stopping=lambda: False,
            accepted=lambda package: None, delivered=lambda package: None, in_limbo=self._wait, clock=clock,
            rng=random.Random(1),
        )  # fmt: skip
        self._outbox = Outbox(home.desk, self._waiting, admission, dispatch=self._deliver, clock=clock)
        self._wiring = replace(
            wiring_of(home, on_unknown),
            transcription=GotranscriptClient(settings, None, portal, pacing),  # type: ignore[arg-type]
        )

    def _wait(self, name: str, seconds: float) -> None:
        self._limbo[name] = self._clock() + seconds

    def _deliver(self, claim: Claim) -> None:
        self._submit.deliver(claim, self._wiring)
        self._home.desk.in_work.release(claim.name)

    def run_until_documented(self) -> None:
        """Once around: what is due goes, one after the other; else time goes on to what is due next."""
        for _ in range(1000):
            if self._home.folders.read_rollbacks(EXEC_ID):
                return
            if self.switch.stand.open:
                for name in [name for name, due in self._limbo.items() if due <= self._clock()]:
                    del self._limbo[name]
                    if self.switch.stand.open and self._home.desk.in_work.take(name):
                        self._deliver(Claim(name=name, dropped_as=name, recovered=True))
                self._outbox.scan()
                if self._outbox.claim_next(self._wiring.policy, purpose="deliver"):
                    continue
            waits = [self.switch.waits or 0.0, *(due - self._clock() for due in self._limbo.values())]
            waits += [wait for wait in (self._waiting.next_due(),) if wait is not None]
            self._clock.go(max(0.01, min((wait for wait in waits if wait > 0), default=0.01)))
        raise AssertionError("never given up")


def wiring_of(home: House, on_unknown: str) -> Wiring:
    """All settings but the necessary ones at their defaults."""
    config = Path(home.folders.root, "config.yaml")
    config.write_text(
        "integrations: {gotranscript: {base_url: https://portal.example, api_key: k, "
        f"on_unknown_outcome: {on_unknown}}}}}\n"
    )
    configuration = LiveConfiguration(load(str(config), environ={}), {}, EXEC_ID, threading.Event())
    try:
        return configuration.wiring
    finally:
        configuration.close()


def drop(home: House, name: str, seed: int = 0) -> None:
    Path(home.folders.root, "outbox", name).write_bytes(zip_bytes(seed=seed))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "spool") as made:
        yield made


@pytest.mark.parametrize("packages", [1, 2, 5])
@pytest.mark.parametrize("on_unknown", ["retry", "lookup"])
@pytest.mark.parametrize("way", WAYS)
def test_given_up_and_documented_within_five_minutes(home: House, way: str, on_unknown: str, packages: int) -> None:
    """From the first try that failed to the document: whichever way the service fails, with the default settings."""
    seconds, failure = WAYS[way]
    clock = Clock()
    portal = Portal(clock, seconds, failure)
    names = [f"p{number}.zip" for number in range(packages)]
    for seed, name in enumerate(names):
        drop(home, name, seed)
    lane = Lane(home, portal, clock, on_unknown)
    lane.run_until_documented()

    assert portal.first_try is not None
    assert clock() - portal.first_try <= MOST_SECONDS
    assert "rolled back" == lane.switch.stand.word
    (rejected,) = home.lies_in(Stage.REJECTED)
    document = home.folders.read_rollbacks(EXEC_ID)
    for expected in ("## Rollback of gotranscript at 2025-11-13T", "**Why:**", rejected, "tfwatch enable gotranscript"):
        assert expected in document
    lying = [name for stage in (Stage.OUTBOX, Stage.CLAIMED, Stage.REJECTED) for name in home.lies_in(stage)]
    assert names == sorted(lying), "nothing is lost"


@pytest.mark.parametrize("code", [401, 402, 403])
def test_a_refusal_is_documented_at_once(home: House, code: int) -> None:
    """A service that serves nobody is given up with its first answer: not one second later."""
    clock = Clock()
    portal = Portal(clock, 2.0, lambda: ServiceError(f"HTTP {code}", code=code, hint="do that"))
    drop(home, "a.zip")
    lane = Lane(home, portal, clock, "retry")
    lane.run_until_documented()

    assert portal.first_try is not None
    assert 2.0 == clock() - portal.first_try
    document = home.folders.read_rollbacks(EXEC_ID)
    for expected in ("## Pause of gotranscript at 2025-11-13T", f"HTTP {code}; do that", "a.zip met it and waits"):
        assert expected in document
    assert ["a.zip"] == os.listdir(Path(home.folders.root, "outbox"))
