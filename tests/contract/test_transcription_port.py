"""What every `TranscriptionPort` keeps, proven on a service in memory and on the adapter over real HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

import pytest

from tests.contract.fakes import InMemoryTranscription, Trouble
from tests.support.submissions import submission_of
from tfwatch.adapters.gotranscript import GotranscriptSettings, connect
from tfwatch.errors import ContentChanged, OutcomeUnknown, PermanentError, ServiceError, Stopping, TransientError
from tfwatch.model import Destination, OrderId, Profile, Verdict
from tfwatch.ports import TranscriptionPort
from tfwatch.sandbox.faults import Fault, FaultKind, Target
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import PortalSettings, SandboxSettings, VerdictWhen


class World(Protocol):
    """A port, and the service behind it as a test may handle it."""

    @property
    def port(self) -> TranscriptionPort: ...
    def trouble(self, *troubles: Trouble) -> None: ...
    def probe_meets(self, trouble: Trouble) -> None: ...
    def orders(self, sha256: str) -> list[str]: ...
    def say(self, order_id: OrderId, word: str) -> None: ...


class InMemory:
    """The fake."""

    def __init__(self) -> None:
        self.port = self._service = InMemoryTranscription()

    def trouble(self, *troubles: Trouble) -> None:
        self._service.trouble(*troubles)

    def probe_meets(self, trouble: Trouble) -> None:
        self._service.trouble(trouble)

    def orders(self, sha256: str) -> list[str]:
        return list(self._service.orders(sha256))

    def say(self, order_id: OrderId, word: str) -> None:
        self._service.words[order_id] = word


_FAULTS = {
    Trouble.DOWN: Fault(kind=FaultKind.STATUS, status=503, times=1),
    Trouble.LOCKED_OUT: Fault(kind=FaultKind.STATUS, status=401, times=1),
    Trouble.REFUSES: Fault(kind=FaultKind.STATUS, status=422, times=1),
    Trouble.LOSES_RECEIPT: Fault(kind=FaultKind.RESET, times=1),
}


class OverHttp:
    """The adapter, one try for each attempt, and a portal it reaches over a socket."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        settings = GotranscriptSettings(
            profile=Profile.DELIVERIES, base_url=sandbox.url, api_key=sandbox.api_key, attempts=1, timeout_seconds=10
        )
        self.port = connect(settings)

    def trouble(self, *troubles: Trouble) -> None:
        self._sandbox.set_faults(*(_FAULTS[trouble] for trouble in troubles))

    def probe_meets(self, trouble: Trouble) -> None:
        self._sandbox.set_faults(replace(_FAULTS[trouble], target=Target.LOOKUP))

    def orders(self, sha256: str) -> list[str]:
        return [str(order["id"]) for order in self._sandbox.orders() if order["sha256"] == sha256]

    def say(self, order_id: OrderId, word: str) -> None:
        self._sandbox.give_verdict(order_id, word)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """One portal for all tests."""
    with Sandbox(SandboxSettings(portal=PortalSettings(verdict=VerdictWhen.NEVER))) as running:
        yield running


@pytest.fixture(params=["in memory", "over HTTP"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Each implementation in turn, with no orders."""
    if request.param == "in memory":
        yield InMemory()
        return
    sandbox: Sandbox = request.getfixturevalue("sandbox")
    sandbox.reset()
    world = OverHttp(sandbox)
    yield world
    world.port.close()


def test_accepts(world: World) -> None:
    """A delivered package has one order, and the receipt names it."""
    submission = submission_of()
    receipt = world.port.submit_package(submission)
    assert [receipt.order_id] == world.orders(submission.package.sha256)
    assert (Verdict.PENDING, 1) == (receipt.verdict, receipt.tries)


def test_same_key_is_same_delivery(world: World) -> None:
    """Calling again with the same idempotency key opens no second order."""
    submission = submission_of()
    first, second = (world.port.submit_package(submission) for _ in range(2))
    assert first.order_id == second.order_id
    assert [first.order_id] == world.orders(submission.package.sha256)


def test_new_key_is_new_delivery(world: World) -> None:
    """The same bytes under a new key are a second order."""
    first = world.port.submit_package(submission_of(key="a-1"))
    second = world.port.submit_package(submission_of(key="a-2"))
    assert first.order_id != second.order_id


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (Trouble.DOWN, TransientError),
        (Trouble.LOCKED_OUT, ServiceError),
        (Trouble.REFUSES, PermanentError),
    ],
)
def test_failures_by_whom_they_concern(world: World, trouble: Trouble, error: type[Exception]) -> None:
    """Each failure has its own type, and none of them leaves an order."""
    world.trouble(trouble)
    submission = submission_of()
    with pytest.raises(error):
        world.port.submit_package(submission)
    assert [] == world.orders(submission.package.sha256)


def test_lost_receipt_is_unknown_and_healed_by_the_same_key(world: World) -> None:
    """A receipt lost on its way is an unknown outcome; sending again finds the same, single order."""
    world.trouble(Trouble.LOSES_RECEIPT)
    submission = submission_of()
    with pytest.raises(OutcomeUnknown):
        world.port.submit_package(submission)
    receipt = world.port.submit_package(submission_of(maybe_sent=True))
    assert [receipt.order_id] == world.orders(submission.package.sha256)


@pytest.mark.parametrize("trouble", [Trouble.REFUSES, Trouble.LOCKED_OUT])
def test_refusal_after_doubt_is_not_believed_while_there_is_an_order(world: World, trouble: Trouble) -> None:
    """A 4xx after an unknown outcome yields the order a lookup finds."""
    order = world.port.submit_package(submission_of()).order_id
    world.trouble(trouble)
    assert order == world.port.submit_package(submission_of(maybe_sent=True)).order_id


def test_refusal_after_doubt_is_believed_without_an_order(world: World) -> None:
    """A 4xx after an unknown outcome stands when a lookup finds nothing."""
    world.trouble(Trouble.REFUSES)
    with pytest.raises(PermanentError):
        world.port.submit_package(submission_of(maybe_sent=True))


def test_orders_of_earlier_deliveries_are_not_taken_for_this_one(world: World) -> None:
    """A lookup passes over orders that the log knows already."""
    order = world.port.submit_package(submission_of()).order_id
    world.trouble(Trouble.REFUSES)
    with pytest.raises(PermanentError):
        world.port.submit_package(submission_of(maybe_sent=True, known=(order,)))


def test_down_after_doubt_stays_unknown(world: World) -> None:
    """While it can't be asked, an outcome that was unknown remains so."""
    world.trouble(Trouble.DOWN)
    with pytest.raises(OutcomeUnknown):
        world.port.submit_package(submission_of(maybe_sent=True))


def test_changed_bytes_are_not_delivered(world: World) -> None:
    """Bytes other than those inspected void the attempt: no order."""
    submission = submission_of(b"inspected", sends=b"exchanged")
    with pytest.raises(ContentChanged):
        world.port.submit_package(submission)
    assert [] == world.orders(submission.package.sha256)


def test_stopping_cuts_before_anything_is_accepted(world: World) -> None:
    """Told to stop, it stops; nothing was accepted."""
    submission = submission_of(stopping=lambda: True)
    with pytest.raises(Stopping):
        world.port.submit_package(submission)
    assert [] == world.orders(submission.package.sha256)


def test_progress_reaches_the_whole_size(world: World) -> None:
    """Progress is told in bytes sent so far, up to all of them."""
    told: list[int] = []
    submission = submission_of(b"x" * 200_000, progress=told.append)
    world.port.submit_package(submission)
    assert sorted(told) == told
    assert 200_000 == told[-1]


@pytest.mark.parametrize(
    ("word", "verdict"),
    [
        ("completed", Verdict.COMPLETED),
        ("rejected", Verdict.REFUSED),
        ("processing", Verdict.PENDING),
        ("on-the-moon", Verdict.PENDING),
    ],
)
def test_status_in_three_words(world: World, word: str, verdict: Verdict) -> None:
    """A status word is a verdict, an unknown one is pending, and the word itself is handed on."""
    order = world.port.submit_package(submission_of()).order_id
    world.say(order, word)
    report = world.port.fetch_status(order, world.port.destination)
    assert (verdict, word) == (report.verdict, report.word)


@pytest.mark.parametrize("order_id", ["never-opened", "../../etc", "a/b?c#d", ".", "é ü"])
def test_unknown_order_is_no_verdict(world: World, order_id: str) -> None:
    """An order the service does not know is asked about again later, whatever its id looks like."""
    with pytest.raises(TransientError):
        world.port.fetch_status(OrderId(order_id), world.port.destination)


def test_an_order_is_asked_about_where_it_was_accepted(world: World) -> None:
    """The destination given decides whom to ask, not the one configured now."""
    order = world.port.submit_package(submission_of()).order_id
    elsewhere = Destination(profile=Profile.DELIVERIES, base_url=f"{world.port.destination.base_url}/elsewhere")
    with pytest.raises(TransientError):
        world.port.fetch_status(order, elsewhere)


def test_many_threads_deliver_at_once(world: World) -> None:
    """Several threads may deliver at once: each package has its own single order."""
    submissions = [submission_of(f"package {number}".encode()) for number in range(12)]
    deliver: Callable[..., object] = world.port.submit_package
    with ThreadPoolExecutor(4) as lanes:
        list(lanes.map(deliver, submissions))
    counts = [len(world.orders(submission.package.sha256)) for submission in submissions]
    assert [1] * 12 == counts


def test_a_probe_orders_nothing(world: World) -> None:
    """A service that works is proven to, tells its clock, and has no order more."""
    reach = world.port.probe()

    assert reach.failure is None
    assert reach.proven
    assert reach.date is not None
    assert [] == world.orders("0" * 64)


@pytest.mark.parametrize("trouble", [Trouble.DOWN, Trouble.LOCKED_OUT])
def test_a_probe_tells_what_is_wrong(world: World, trouble: Trouble) -> None:
    """A refusal or an outage is what was found, not an exception; it proves nothing."""
    world.probe_meets(trouble)
    reach = world.port.probe()

    assert {Trouble.DOWN: 503, Trouble.LOCKED_OUT: 401}[trouble] == (reach.failure and reach.failure.code)
    assert "" == reach.proven
