"""The transcription adapter over real HTTP: what is tried again, how often, and what is believed after a doubt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from email.utils import formatdate

import pytest

from tests.support.gotranscript import (
    ACCEPTED,
    DOWN,
    FOUND,
    LOST,
    NOT_FOUND,
    REFUSED,
    SOURCE_URL,
    Make,
    Sleeper,
    clients,
    everything_said_by,
)
from tests.support.http import ScriptedServer, Step, reply
from tests.support.submissions import submission_of
from tfwatch.errors import (
    OutcomeUnknown,
    PermanentError,
    ServiceError,
    ServiceFailure,
    StoppedInDoubt,
    Stopping,
    TransientError,
)
from tfwatch.model import Profile, Submission
from tfwatch.ports import TranscriptionPort


@pytest.fixture
def sleeper() -> Sleeper:
    return Sleeper()


@pytest.fixture
def client(sleeper: Sleeper) -> Iterator[Make]:
    with clients(sleeper) as make:
        yield make


# --- retries ----------------------------------------------------------------------------------------------------------


def test_retries_then_accepts(client: Make, sleeper: Sleeper) -> None:
    """Transient failures are tried again under the same key, with doubling ceilings, new spans and counted tries."""
    with ScriptedServer(DOWN, DOWN, DOWN, ACCEPTED) as server:
        receipt = client(server.url, initial_seconds=2, max_seconds=5).submit_package(submission_of())
    assert 4 == receipt.tries
    assert 2 + 4 + 5 == sleeper.total
    assert max(sleeper.slept) <= 0.2
    assert 1 == len({seen.headers["idempotency-key"] for seen in server.seen})
    assert 4 == len({seen.headers["traceparent"] for seen in server.seen})


def test_gives_up_after_its_attempts(client: Make) -> None:
    """The tries within an attempt are bounded, and counted in the error."""
    with ScriptedServer(DOWN) as server, pytest.raises(TransientError) as raised:
        client(server.url, attempts=3).submit_package(submission_of())
    assert (3, 503, 3) == (raised.value.tries, raised.value.code, len(server.seen))


@pytest.mark.parametrize("step", [REFUSED, Step(send=reply(401))])
def test_final_answers_are_not_tried_again(client: Make, step: Step) -> None:
    """What can't get better within seconds is asked once."""
    with ScriptedServer(step) as server, pytest.raises((PermanentError, ServiceError)):
        client(server.url).submit_package(submission_of())
    assert 1 == len(server.seen)


def in_forty_seconds() -> str:
    """A date, made when the reply is: one made while tests are collected would be past by now."""
    return formatdate(time.time() + 40, usegmt=True)


@pytest.mark.parametrize(
    ("asked", "least", "most"), [(lambda: "20", 21, 21), (in_forty_seconds, 5, 41), (lambda: "0", 1, 1)]
)
def test_retry_after_is_obeyed(
    client: Make, sleeper: Sleeper, asked: Callable[[], str], least: float, most: float
) -> None:
    """A pause the service asks for is made, in seconds or until a date, and ours after it: no two lanes together."""
    retry_after = asked()
    with ScriptedServer(Step(send=reply(429, Retry_After=retry_after)), ACCEPTED) as server:
        client(server.url, initial_seconds=1, max_seconds=60).submit_package(submission_of())
    assert least <= sleeper.total <= most


@pytest.mark.parametrize(
    ("max_seconds", "asked", "patient"), [(15, "61", False), (60, "61", False), (15, "15", True), (120, "61", True)]
)
def test_long_pauses_end_the_attempt(
    client: Make, sleeper: Sleeper, max_seconds: float, asked: str, patient: bool
) -> None:
    """A pause longer than our own longest concerns everybody: it is left to the caller, who is told of it."""
    with ScriptedServer(Step(send=reply(503, Retry_After=asked)), ACCEPTED) as server:
        port = client(server.url, max_seconds=max_seconds)
        if patient:
            assert 2 == port.submit_package(submission_of()).tries
        else:
            with pytest.raises(TransientError) as raised:
                port.submit_package(submission_of())
            assert (61.0, 1) == (raised.value.retry_after, raised.value.tries)
            assert [] == sleeper.slept


def test_stop_cuts_a_pause_short(client: Make, sleeper: Sleeper) -> None:
    """A stop is noticed within a pause; nothing was sent, so nothing is in doubt."""
    with ScriptedServer(DOWN) as server, pytest.raises(Stopping):
        client(server.url, initial_seconds=15).submit_package(submission_of(stopping=lambda: sleeper.total > 1))
    assert sleeper.total < 2


def test_stop_after_silence_is_unknown(client: Make, sleeper: Sleeper) -> None:
    """A stop within the pause after an unknown try does not make it known."""
    with ScriptedServer(LOST) as server, pytest.raises(StoppedInDoubt):
        client(server.url, initial_seconds=15).submit_package(submission_of(stopping=lambda: sleeper.total > 1))
    assert 1 == len(server.seen)


def test_a_doubt_does_not_hide_the_pause_asked_for(client: Make, sleeper: Sleeper) -> None:
    """In doubt or not: the caller is told how long the service asks everybody to wait."""
    with (
        ScriptedServer(LOST, Step(send=reply(429, Retry_After="61"))) as server,
        pytest.raises(OutcomeUnknown) as raised,
    ):
        client(server.url).submit_package(submission_of())
    assert (61.0, 429, 2) == (raised.value.retry_after, raised.value.code, raised.value.tries)


# --- doubt ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "script", "methods", "outcome"),
    [
        pytest.param("retry", [LOST, ACCEPTED], "POST POST", "gt-1", id="retry sends again"),
        pytest.param("retry", [LOST, DOWN], "POST POST POST", OutcomeUnknown, id="down does not settle it"),
        pytest.param("retry", [LOST], "POST POST POST", OutcomeUnknown, id="lost again and again"),
        pytest.param("retry", [DOWN, LOST, ACCEPTED], "POST POST POST", "gt-1", id="first down, then lost"),
        pytest.param("lookup", [LOST, FOUND], "POST GET", "gt-found", id="lookup finds it"),
        pytest.param("lookup", [LOST, NOT_FOUND, ACCEPTED], "POST GET POST", "gt-1", id="lookup finds none"),
        pytest.param("lookup", [LOST, DOWN, FOUND], "POST GET GET", "gt-found", id="lookup is tried again"),
        pytest.param(
            "lookup", [LOST, Step(send=reply(405))], "POST GET", OutcomeUnknown, id="no lookup, no second order"
        ),
        pytest.param("lookup", [DOWN, ACCEPTED], "POST POST", "gt-1", id="without doubt no lookup"),
        pytest.param("ask", [LOST], "POST", OutcomeUnknown, id="ask stops at once"),
        pytest.param("ask", [DOWN, ACCEPTED], "POST POST", "gt-1", id="ask tries what was not sent"),
        pytest.param("retry", [LOST, REFUSED, FOUND], "POST POST GET", "gt-found", id="refusal of what is there"),
        pytest.param("retry", [LOST, REFUSED, NOT_FOUND], "POST POST GET", PermanentError, id="refusal that stands"),
        pytest.param("retry", [LOST, REFUSED, DOWN], "POST POST GET", OutcomeUnknown, id="refusal, lookup down"),
        pytest.param(
            "retry", [LOST, REFUSED, Step(send=reply(404))], "POST POST GET", OutcomeUnknown, id="refusal, no lookup"
        ),
        pytest.param("retry", [LOST, Step(send=reply(401))], "POST POST GET", OutcomeUnknown, id="locked out in doubt"),
    ],
)
def test_doubt_within_an_attempt(
    client: Make, policy: str, script: list[Step], methods: str, outcome: str | type[ServiceFailure]
) -> None:
    """After a try whose outcome is unknown only a receipt or a lookup ends the doubt, by the policy's way."""
    with ScriptedServer(*script) as server:
        port = client(server.url, on_unknown=policy, attempts=3)
        _assert_outcome(port, submission_of(), outcome, tries=len(methods.split()))
    assert methods.split() == server.methods


@pytest.mark.parametrize(
    ("policy", "script", "methods", "outcome"),
    [
        pytest.param("retry", [ACCEPTED], "POST", "gt-1", id="retry sends under the same key"),
        pytest.param("lookup", [FOUND], "GET", "gt-found", id="lookup looks first"),
        pytest.param("lookup", [NOT_FOUND, ACCEPTED], "GET POST", "gt-1", id="lookup finds none"),
        pytest.param("ask", [ACCEPTED], "", OutcomeUnknown, id="ask sends nothing"),
        pytest.param("retry", [DOWN], "POST POST POST", OutcomeUnknown, id="down"),
        pytest.param("retry", [REFUSED, FOUND], "POST GET", "gt-found", id="refusal of what is there"),
        pytest.param("retry", [REFUSED, NOT_FOUND], "POST GET", PermanentError, id="refusal that stands"),
        pytest.param("retry", [REFUSED, DOWN], "POST GET", OutcomeUnknown, id="refusal, lookup down"),
        pytest.param("retry", [Step(send=reply(401))], "POST GET", ServiceError, id="locked out"),
    ],
)
def test_doubt_from_an_earlier_attempt(
    client: Make, policy: str, script: list[Step], methods: str, outcome: str | type[ServiceFailure]
) -> None:
    """A doubt brought along counts as one's own, except that the caller, who knows of it, is told of a locked door."""
    with ScriptedServer(*script) as server:
        port = client(server.url, on_unknown=policy, attempts=3)
        _assert_outcome(port, submission_of(maybe_sent=True), outcome, tries=len(methods.split()))
    assert methods.split() == server.methods


def _assert_outcome(
    port: TranscriptionPort, submission: Submission, outcome: str | type[ServiceFailure], *, tries: int
) -> None:
    if isinstance(outcome, str):
        receipt = port.submit_package(submission)
        assert (outcome, tries) == (receipt.order_id, receipt.tries)
        return
    with pytest.raises(outcome) as raised:
        port.submit_package(submission)
    assert (outcome, tries) == (type(raised.value), raised.value.tries)


def test_a_persons_decision_sends_again(client: Make) -> None:
    """With `ask`, what a person put back is sent again under the same key."""
    with ScriptedServer(ACCEPTED) as server:
        port = client(server.url, on_unknown="ask")
        assert "gt-1" == port.submit_package(submission_of(maybe_sent=True, decided=True)).order_id


@pytest.mark.parametrize(("script", "tries"), [([LOST], 1), ([DOWN, LOST], 2)])
def test_v4_never_orders_twice(client: Make, script: list[Step], tries: int) -> None:
    """Profile gotranscript-v4 stops at an unknown outcome, whatever the policy says: orders cost money."""
    with ScriptedServer(*script) as server:
        port = client(server.url, profile=Profile.GOTRANSCRIPT_V4, on_unknown="retry", language="pt")
        with pytest.raises(OutcomeUnknown) as raised:
            port.submit_package(submission_of(source_url=SOURCE_URL))
    assert (tries, tries) == (raised.value.tries, len(server.seen))
    assert "CANARY" not in everything_said_by(raised.value)
