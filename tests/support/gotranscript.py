"""Ports to a scripted transcription service, its usual replies, and the means to watch what they do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.http import Step, reply
from tfwatch.adapters.gotranscript import GotranscriptSettings, connect
from tfwatch.model import Profile
from tfwatch.ports import TranscriptionPort

API_KEY = "key-CANARY-1234"
SOURCE_URL = "https://s3.example.org/b/k.zip?X-Amz-Signature=CANARY&x=1"

ACCEPTED = Step(send=reply(201, {"id": "gt-1", "status": "received"}))
FOUND = Step(send=reply(200, {"items": [{"id": "gt-found", "status": "processing"}]}))
NOT_FOUND = Step(send=reply(200, {"items": []}))
DOWN = Step(send=reply(503))
REFUSED = Step(send=reply(422, {"detail": "No audio inside."}))
LOST = Step(then="reset")
SILENT = Step(then="hang")

Make = Callable[..., TranscriptionPort]
"""Makes a port to a base URL; further settings by name."""


class Sleeper:
    """Sleeps no time at all, and remembers for how long."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)

    @property
    def total(self) -> float:
        """Seconds asked for, all in all."""
        return round(sum(self.slept), 6)


@contextmanager
def clients(sleeper: Sleeper) -> Iterator[Make]:
    """Makes ports that wait the whole ceiling, in no time; closes them afterwards."""
    made: list[TranscriptionPort] = []

    def make(base_url: str, **changes: Any) -> TranscriptionPort:
        values = {"profile": Profile.DELIVERIES, "api_key": API_KEY, "timeout_seconds": 10.0} | changes
        made.append(connect(GotranscriptSettings(base_url=base_url, **values), sleep=sleeper, jitter=lambda top: top))
        return made[-1]

    yield make
    for port in made:
        port.close()


def everything_said_by(outcome: object) -> str:
    """All that a log could take from a result or an error: its texts, and those of what caused it."""
    said, error = [repr(outcome), str(outcome)], outcome
    while isinstance(error, BaseException):
        said += [repr(error), str(error), str(getattr(error, "hint", ""))]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return " ".join(said)


def wait_until(condition: Callable[[], object], *, seconds: float = 10.0) -> None:
    """Wait for a condition; fails when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
