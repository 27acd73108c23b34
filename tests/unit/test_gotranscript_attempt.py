"""One delivery attempt, walked through every sequence of outcomes: no network, no time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.submissions import submission_of
from tfwatch.adapters.gotranscript_attempt import Attempt, OnUnknown, Pacing
from tfwatch.errors import (
    ContentChanged,
    OutcomeUnknown,
    PermanentError,
    ServiceError,
    StoppedInDoubt,
    Stopping,
    TransientError,
)
from tfwatch.model import OrderId, Receipt, Verdict

Outcome = Callable[[], Receipt | None]

RECEIPT = Receipt(order_id=OrderId("o-1"), verdict=Verdict.PENDING)


def raising(error: Exception) -> Outcome:
    """An answer that raises a fresh error of this kind each time."""

    def answer() -> Receipt | None:
        raise type(error)(*error.args)

    return answer


POSTS: dict[str, Outcome] = {
    "accepted": lambda: RECEIPT,
    "down": raising(TransientError("down")),
    "lost": raising(OutcomeUnknown("lost")),
    "refused": raising(PermanentError("refused")),
    "locked out": raising(ServiceError("locked out")),
    "changed": raising(ContentChanged("changed")),
    "stopping": raising(Stopping("stopping")),
}
LOOKUPS: dict[str, Outcome] = {
    "found": lambda: RECEIPT,
    "none": lambda: None,
    "down": raising(TransientError("down")),
    "unsupported": raising(ServiceError("unsupported")),
}
PACING = Pacing(attempts=3, initial_seconds=1, max_seconds=2, sleep=lambda _: None)


class Script:
    """Answers posts in turn and lookups always alike; writes down what was asked."""

    def __init__(self, posts: tuple[str, ...], lookup: str) -> None:
        self.asked: list[str] = []
        self._posts: Iterator[str] = iter(posts)
        self._lookup = lookup

    def post(self) -> Receipt:
        name = next(self._posts)
        self.asked.append(name)
        receipt = POSTS[name]()
        assert receipt is not None
        return receipt

    def look_up(self) -> Receipt | None:
        self.asked.append(f"lookup: {self._lookup}")
        return LOOKUPS[self._lookup]()


def walk(posts: tuple[str, ...], lookup: str, policy: OnUnknown, *, maybe_sent: bool) -> tuple[Script, object]:
    """Run one attempt; gives what was asked, and the receipt or the error."""
    script = Script(posts, lookup)
    submission = submission_of(maybe_sent=maybe_sent)
    attempt = Attempt(submission, post=script.post, look_up=script.look_up, on_unknown=policy, pacing=PACING)
    try:
        return script, attempt.run()
    except (TransientError, OutcomeUnknown, PermanentError, ServiceError, ContentChanged, Stopping) as end:
        return script, end


@pytest.mark.parametrize("policy", ["retry", "lookup", "ask"])
@pytest.mark.parametrize("maybe_sent", [False, True])
def test_no_sequence_of_outcomes_forgets_a_doubt(policy: OnUnknown, maybe_sent: bool) -> None:
    """Over all sequences: a doubt ends by a receipt or a lookup only, and without one nothing is unknown."""
    for posts, lookup in product(product(POSTS, repeat=3), LOOKUPS):
        script, end = walk(posts, lookup, policy, maybe_sent=maybe_sent)
        story = f"{policy}, maybe sent: {maybe_sent}, {script.asked} → {end!r}"
        sent_into_silence = "lost" in script.asked
        settled = "lookup: none" in script.asked
        if isinstance(end, Receipt | TransientError | OutcomeUnknown | PermanentError | ServiceError):
            assert len(script.asked) == end.tries, story
        match end:
            case Receipt():
                assert script.asked[-1] in ("accepted", "lookup: found"), story
            case OutcomeUnknown():
                assert sent_into_silence or maybe_sent, story
            case PermanentError():
                assert settled or not (sent_into_silence or maybe_sent), story
            case StoppedInDoubt():
                assert sent_into_silence, story
            case ServiceError() | Stopping():
                assert settled or not sent_into_silence, story
            case _:
                assert not sent_into_silence, story
                assert not maybe_sent, story


@pytest.mark.parametrize("policy", ["retry", "lookup", "ask"])
@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize(("post", "expected"), [("lost", StoppedInDoubt), ("down", Stopping)])
def test_what_a_stop_cuts_is_no_failure(policy: OnUnknown, attempts: int, post: str, expected: type[Stopping]) -> None:
    """A try that ends without an answer while the daemon stops says nothing about the service; a doubt is kept."""
    script = Script((post,), "none")
    submission = submission_of(stopping=lambda: bool(script.asked))
    attempt = Attempt(
        submission,
        post=script.post,
        look_up=script.look_up,
        on_unknown=policy,
        pacing=replace(PACING, attempts=attempts),
    )
    with pytest.raises(Stopping) as stopped:
        attempt.run()
    assert expected is type(stopped.value)
    assert [post] == script.asked


@pytest.mark.parametrize("maybe_sent", [False, True])
def test_ask_never_sends_after_a_doubt(maybe_sent: bool) -> None:
    """With `ask`, nothing is asked of the service once an outcome is unknown."""
    for posts, lookup in product(product(POSTS, repeat=3), LOOKUPS):
        script, _ = walk(posts, lookup, "ask", maybe_sent=maybe_sent)
        assert not (maybe_sent and script.asked)
        assert "lost" not in script.asked[:-1]


def test_lookup_never_sends_after_a_doubt_without_looking() -> None:
    """With `lookup`, a package in doubt is sent again only right after a lookup that found no order."""
    for posts, lookup in product(product(POSTS, repeat=3), LOOKUPS):
        script, _ = walk(posts, lookup, "lookup", maybe_sent=False)
        for before, after in zip(script.asked, script.asked[1:], strict=False):
            if before == "lost":
                assert after.startswith("lookup"), script.asked


@given(st.floats(0.01, 10), st.floats(1, 100), st.integers(1, 30))
def test_full_jitter(initial: float, longest: float, steps: int) -> None:
    """Each pause lies between nothing and a ceiling that doubles up to the longest."""
    pacing = Pacing(attempts=1, initial_seconds=initial, max_seconds=longest)
    ceilings = Pacing(attempts=1, initial_seconds=initial, max_seconds=longest, jitter=lambda top: top)
    for step, pause, ceiling in zip(range(steps), pacing.waits(), ceilings.waits(), strict=False):
        assert min(initial * 2**step, longest) == ceiling
        assert 0 <= pause <= ceiling
