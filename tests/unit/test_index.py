"""The projection: always what the log adds up to, however it came to read it."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.house import EXEC_ID, HERE, NOON, House, dump, fact, house, package, waiting
from tfwatch.app import catch_up
from tfwatch.ledger import index as index_module
from tfwatch.ledger.index import ContentState, Index, IndexUnusable, IndexUnwritable, IntegrationState, PackageState
from tfwatch.ledger.log import Position
from tfwatch.ledger.rows import HEADER, decode, encode
from tfwatch.lifecycle import AWAY, TRANSITIONS
from tfwatch.model import (
    Actor,
    DeliveryRecord,
    Destination,
    Event,
    Fact,
    Integration,
    Package,
    Profile,
    Sha256,
    Stage,
    Status,
    TraceId,
    read_detail,
    write_detail,
)
from tfwatch.spool.folders import Folders

O, C, S, D, R = Stage.OUTBOX, Stage.CLAIMED, Stage.SUBMITTED, Stage.DELIVERED, Stage.REJECTED  # noqa: E741
THERE = Destination(profile=Profile.DELIVERIES, base_url="https://here.example")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "spool") as made:
        yield made


def seconds(count: int) -> timedelta:
    return timedelta(seconds=count)


# --- any history ------------------------------------------------------------------------------------------------------

NAMES = (b"a_v1.zip", b"b.ZIP", b"\xff\n.zip", b"-=.zip", "\u00e7~2.zip".encode())
SHAS = tuple(hashlib.sha256(bytes([n])).hexdigest() for n in range(3))
WORDS = st.sampled_from(["", "it failed", "a=b c", "\udcff\x00\n", "\ud83d;", "'=1"])


@st.composite
def histories(draw: st.DrawFn) -> list[Fact]:
    """Facts in an order that the lifecycle allows, about a few packages and integrations."""
    stages: dict[tuple[str, str], Stage | None] = {}
    facts = []
    for _ in range(draw(st.integers(min_value=1, max_value=25))):
        if draw(st.integers(0, 6)) == 0:
            facts.append(draw(switchings()))
            continue
        key = draw(st.sampled_from(SHAS)), os.fsdecode(draw(st.sampled_from(NAMES)))
        stage = stages.get(key, Stage.OUTBOX)
        event = draw(st.sampled_from(sorted(event for at, event in TRANSITIONS if at is stage)))
        target = draw(st.sampled_from(TRANSITIONS[stage, event]))
        detail = dict(draw(details(event)))
        name = key[1]
        if event is Event.MOVED and draw(st.booleans()):
            detail["was"] = name
            name = os.fsdecode(draw(st.sampled_from(NAMES)))
        stages.pop(key, None)
        stages[key[0], name] = target
        facts.append(
            Fact(
                event=event, package=name, sha256=key[0], trace_id=draw(st.sampled_from(["", "t1", "t\ud800"])),
                bytes=draw(st.none() | st.integers(0, 2**40)), from_stage=stage, to_stage=target,
                order_id=draw(st.sampled_from(["1", "4711", "\ud800"])) if event is Event.ACCEPTED else "",
                status=draw(st.none() | st.sampled_from(Status)), code=draw(st.none() | st.integers(100, 599)),
                actor=draw(st.sampled_from(Actor)), detail=write_detail(draw(WORDS), **detail),
            )
        )  # fmt: skip
    return facts


def details(event: Event) -> st.SearchStrategy[dict[str, Any]]:
    """What the house writes into the detail cell of an event."""
    match event:
        case Event.ATTEMPTED:
            return st.fixed_dictionaries({"generation": st.integers(1, 3), **{k: st.just(v) for k, v in HERE.items()}})
        case Event.ACCEPTED:
            return st.just(dict(HERE))
        case Event.REFUSED:
            return st.sampled_from([{"by": "service"}, {"by": "intake", "flaw": "duplicate"}])
        case Event.DEFERRED | Event.UNKNOWN:
            moment = {"retry_at": "2025-11-13T12:00:00.000Z"}
            return st.sampled_from([{"failed": "yes"} | moment, {"sent": "no"} | moment, {}])
        case Event.ROLLBACK:
            return st.fixed_dictionaries(
                {"integration": st.just("gotranscript"), "sent": st.sampled_from(["no", "maybe"])}
            )
        case Event.REQUEUED:
            return st.sampled_from([{}, {"forced": "yes"}])
        case Event.BACKED_UP:
            return st.just({"key": "2025/11/13/x"})
        case _:
            return st.just({})


def switchings() -> st.SearchStrategy[Fact]:
    """Facts about an integration alone."""
    return st.builds(
        lambda event, integration, by, why: Fact(event=event, detail=write_detail(why, integration=integration, by=by)),
        st.sampled_from([Event.ENABLED, Event.DISABLED]),
        st.sampled_from(Integration),
        st.sampled_from(["command", "configuration", "service", "probe"]),
        WORDS,
    )


def written(facts: Sequence[Fact]) -> list[tuple[DeliveryRecord, Position]]:
    """Those facts as a reader of log.csv finds them, each with the position after it."""
    found, position = [], Position.start()
    for n, one in enumerate(facts, 1):
        at = NOON + seconds(n)
        _, line = encode(one, seq=n, at=at, exec_id=EXEC_ID, previous_chain=position.chain)
        record = decode(line)
        position = Position(offset=position.offset + len(line), seq=n, chain=record.chain)
        found.append((record, position))
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(facts=histories(), cuts=st.lists(st.integers(1, 24), max_size=4))
def test_a_rebuild_is_what_was_built_step_by_step(facts: list[Fact], cuts: list[int]) -> None:
    """Read row by row, in any groups, or all at once from an empty file: every table holds the same."""
    rows = written(facts)
    bounds = [0, *sorted({cut for cut in cuts if cut < len(rows)}), len(rows)]
    groups = [rows[begin:end] for begin, end in pairwise(bounds)]

    assert contents([rows]) == contents([[row] for row in rows]) == contents(groups)


def contents(groups: list[list[tuple[DeliveryRecord, Position]]]) -> list[str]:
    """All that a projection holds after it read these groups; begun anew once, as a rebuild does."""
    index = Index(":memory:")
    for group in (groups[0], None, *groups):
        if group is None:
            index.clear()
            assert index.position is None
        else:
            index.apply([record for record, _ in group], group[-1][1])
    assert groups[-1][-1][1] == index.position
    held = list(index._writer.iterdump())
    index.close()
    return held


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(facts=histories())
def test_whatever_happened_the_last_row_is_told(facts: list[Fact]) -> None:
    """Each package's stage and reason are those of its last row, and each stage counts its packages."""
    index = Index(":memory:")
    rows = written(facts)
    for record, position in rows:
        index.apply([record], position)
        if record.package:
            state = index.package(record.sha256, record.package)
            assert state is not None
            assert (record.to_stage, record.at) == (state.stage, state.changed_at)
            assert state in index.named(record.package)
            assert state in index.packages_of(record.sha256)
    counted = index.stage_counts()
    for stage in Stage:
        states = index.at_stage(stage)
        assert len(states) == counted[stage]
        assert sorted(state.changed_at for state in states) == [state.changed_at for state in states]
        assert (states[0].changed_at if states else None) == index.oldest_at(stage)
        assert {state.name for state in states} == set(index.names_at(stage))
    assert len(index.unbacked()) == index.unbacked_count()
    assert all(state.by_rollback and state.stage is R for state in index.rolled_back())
    index.close()


# --- the file ---------------------------------------------------------------------------------------------------------


def lived_in(home: House) -> Folders:
    """A closed spool with some history."""
    for name in ("a_v1.zip", os.fsdecode(b"\xff.zip"), "c.zip"):
        about = home.lay(package(name), O)
        home.complete(about, order_id=f"order of {package(name).sha256[:4]}")
    home.close()
    return home.folders


def damage_middle(path: str) -> None:
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xaa" * (size - 4096))


def make_old(path: str) -> None:
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA user_version = 999; DROP TABLE receipt")
    connection.close()


HARM = {
    "deleted": os.unlink,
    "empty": lambda path: os.truncate(path, 0),
    "garbage": lambda path: Path(path).write_bytes(os.urandom(8192)),
    "text": lambda path: Path(path).write_text("seq,at\n"),
    "cut short": lambda path: os.truncate(path, 5000),
    "damaged within": damage_middle,
    "of another version": make_old,
}


@pytest.mark.parametrize("harm", HARM)
def test_it_can_always_be_rebuilt(tmp_path: Path, harm: str) -> None:
    """Deleted, overwritten, cut, damaged within or of another version: it is made anew from the log, the same."""
    folders = lived_in(House(tmp_path / "spool"))
    before = dump(folders.index)
    HARM[harm](folders.index)
    index = Index(folders.index)
    assert index.position is None
    catch_up(folders, index)
    index.close()

    assert before == dump(folders.index)


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """A projection that is behind reads the rows it has missed, and only those."""
    folders = lived_in(House(tmp_path / "spool"))
    index = Index(folders.index)
    before = index.position
    catch_up(folders, index)
    assert before == index.position
    index.close()
    whole = dump(folders.index)
    with house(tmp_path / "spool") as home:
        home.record(Fact(event=Event.ENABLED, detail=write_detail(integration="s3")))
    stored = Index(folders.index)
    assert stored.position is not None
    assert before is not None
    assert before.seq + 1 == stored.position.seq
    stored.close()
    assert whole != dump(folders.index)


def test_a_failed_apply_changes_nothing(home: House) -> None:
    """Rows and position come together or not at all."""
    home.record(fact(package(), Event.ATTEMPTED, O, C, detail=write_detail(generation=1)))
    before = home.index.position
    good, bad = (record for record, _ in written([fact(package("b.zip"), Event.MOVED, O, R), Fact(event=Event.MOVED)]))

    def records() -> Iterator[DeliveryRecord]:
        yield good
        raise OSError("the reader died")

    assert before is not None
    with pytest.raises(OSError, match="died"):
        home.index.apply(records(), before)
    assert bad.package == ""
    assert [] == home.index.named("b.zip")
    assert before == home.index.position


def test_it_can_be_read_while_it_is_written(home: House) -> None:
    """Threads that ask get whole answers while another applies a thousand rows."""
    rows = written([fact(package(f"{n}.zip"), Event.MOVED, O, R) for n in range(1000)])
    done = threading.Event()

    def write() -> None:
        for record, position in rows:
            home.index.apply([record], position)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    counts = [0]
    while not done.is_set():
        counts.append(home.index.stage_counts()[R])
    writer.join()

    assert sorted(counts) == counts
    assert 1000 == home.index.stage_counts()[R]


def test_a_reader_changes_nothing(tmp_path: Path) -> None:
    """`status` opens it without making so much as a side file; a foreign file is not replaced but refused."""
    folders = lived_in(House(tmp_path / "spool"))
    before = sorted(os.listdir(os.path.dirname(folders.index)))
    index = Index(folders.index, read_only=True)
    assert 3 == index.stage_counts()[D]
    copy = index.in_memory()
    index.close()
    copy.apply([], Position(offset=1, seq=1, chain="c"))
    assert 3 == copy.stage_counts()[D]
    copy.close()
    assert before == sorted(os.listdir(os.path.dirname(folders.index)))

    make_old(folders.index)
    with pytest.raises(sqlite3.DatabaseError, match="version 999"):
        Index(folders.index, read_only=True)
    os.unlink(folders.index)
    with pytest.raises(sqlite3.Error):
        Index(folders.index, read_only=True)
    assert not os.path.exists(folders.index)


def test_a_reader_sees_a_running_writer(home: House) -> None:
    """While the daemon runs its side files are there; a reader sees what was applied last."""
    home.record(fact(package(), Event.MOVED, O, R))
    reader = Index(home.folders.index, read_only=True)

    assert 1 == reader.stage_counts()[R]
    home.record(fact(package("b.zip"), Event.MOVED, O, R))
    assert 2 == reader.stage_counts()[R]
    reader.close()


def test_side_files_that_do_not_match_are_refused(tmp_path: Path) -> None:
    """One side file without the other: nothing is guessed."""
    folders = lived_in(House(tmp_path / "spool"))
    Path(folders.index + "-wal").touch()
    with pytest.raises(sqlite3.OperationalError, match="side files"):
        Index(folders.index, read_only=True)


# --- the idempotency key, letter by letter (CONTRACT, GoTranscript) ---------------------------------------------------

ATTEMPT = (Event.ATTEMPTED, O, C, {"generation": 1, **HERE})
AGAIN = (Event.ATTEMPTED, C, C, {"generation": 1, **HERE})
SECOND = (Event.ATTEMPTED, O, C, {"generation": 2, **HERE})
ACCEPT = (Event.ACCEPTED, C, S, HERE)
UNKNOWN = (Event.UNKNOWN, C, C, {"failed": "yes"})
PARK = (Event.UNKNOWN, C, R, {"failed": "yes"})
BY_HAND = (Event.MOVED, R, D, {})
REQUEUE = (Event.REQUEUED, R, O, {})
DEFER = (Event.DEFERRED, C, O, {"sent": "no", "failed": "yes"})
ROLLBACK = (Event.ROLLBACK, C, R, {"sent": "no", "integration": "gotranscript"})
MAYBE_ROLLBACK = (Event.ROLLBACK, C, R, {"sent": "maybe", "integration": "gotranscript"})
REFUSE = (Event.REFUSED, C, R, {"by": "service"})

KEYS = {
    "never attempted": ((), 1, False, None),
    "attempted, no word since": ((ATTEMPT,), 1, True, None),
    "unknown": ((ATTEMPT, UNKNOWN), 1, True, None),
    "unknown, tried again": ((ATTEMPT, UNKNOWN, AGAIN), 1, True, None),
    "unknown, parked, requeued": ((ATTEMPT, PARK, REQUEUE), 1, True, None),
    "deferred": ((ATTEMPT, DEFER), 1, False, None),
    "deferred, tried again": ((ATTEMPT, DEFER, ATTEMPT), 1, True, None),
    "rolled back, not sent": ((ATTEMPT, ROLLBACK), 1, False, None),
    "rolled back, perhaps sent": ((ATTEMPT, UNKNOWN, MAYBE_ROLLBACK), 1, True, None),
    "rolled back and requeued": ((ATTEMPT, UNKNOWN, MAYBE_ROLLBACK, REQUEUE), 1, True, None),
    "refused": ((ATTEMPT, REFUSE), 2, False, None),
    "refused, requeued": ((ATTEMPT, REFUSE, REQUEUE), 2, False, None),
    "refused, attempted anew": ((ATTEMPT, REFUSE, REQUEUE, SECOND), 2, True, None),
    "refused twice": ((ATTEMPT, REFUSE, REQUEUE, SECOND, REFUSE), 3, False, None),
    "unknown, then refused": ((ATTEMPT, UNKNOWN, AGAIN, REFUSE), 2, False, None),
    "refused here, never sent": (((Event.REFUSED, O, R, {"by": "intake", "flaw": "corrupt"}),), 1, False, None),
    "unknown, then refused here": (
        (ATTEMPT, PARK, REQUEUE, (Event.REFUSED, O, R, {"by": "intake", "flaw": "corrupt"})), 1, True, None,
    ),
    "accepted": ((ATTEMPT, ACCEPT), 2, False, "call_v1.zip"),
    "unknown, then accepted": ((ATTEMPT, UNKNOWN, AGAIN, ACCEPT), 2, False, "call_v1.zip"),
    "completed": ((ATTEMPT, ACCEPT, (Event.COMPLETED, S, D, {})), 2, False, "call_v1.zip"),
    "accepted, then refused": ((ATTEMPT, ACCEPT, (Event.REFUSED, S, R, {"by": "service"})), 2, False, None),
    "accepted, cancelled by hand": ((ATTEMPT, ACCEPT, (Event.MOVED, S, R, {})), 2, False, "call_v1.zip"),
    "accepted, refused as duplicate": (
        (ATTEMPT, ACCEPT, (Event.REQUEUED, S, O, {}), (Event.REFUSED, O, R, {"by": "intake"})), 2, False, "call_v1.zip",
    ),
    "a forced second order": (
        (ATTEMPT, ACCEPT, (Event.REQUEUED, S, O, {"forced": "yes"}), SECOND), 2, True, "call_v1.zip",
    ),
    "parked, delivered by hand": ((ATTEMPT, PARK, BY_HAND), 2, False, "call_v1.zip"),
    "delivered by hand, never sent": (((Event.MOVED, O, D, {}),), 1, False, "call_v1.zip"),
    "backed up meanwhile": ((ATTEMPT, UNKNOWN, (Event.BACKED_UP, C, C, {})), 1, True, None),
    "crashed and recovered": ((ATTEMPT, (Event.RECOVERED, C, C, {})), 1, True, None),
}  # fmt: skip


@pytest.mark.parametrize("history", KEYS)
def test_which_key_comes_next(home: House, history: str) -> None:
    """A new key only after a known end; never after UNKNOWN, DEFERRED or ROLLBACK, nor after a crash."""
    steps, generation, unknown, accepted_as = KEYS[history]
    for event, source, target, detail in steps:
        order = "4711" if event is Event.ACCEPTED else ""
        home.record(fact(package(), event, source, target, order_id=order, detail=write_detail("", **detail)))
    content = home.index.content(package().sha256)

    following = content.generation + 1 if content.ended else content.generation
    assert (generation, unknown, accepted_as) == (following, content.unknown, content.accepted_as)


def test_twins_share_one_key(home: House) -> None:
    """The same bytes under another name are the same delivery."""
    first, twin = package("a.zip", b"same"), package("b.zip", b"same")
    home.record(fact(first, Event.ATTEMPTED, O, C, detail=write_detail(generation=1, **HERE)))
    content = home.index.content(twin.sha256)

    assert (1, False, True, THERE) == (content.generation, content.ended, content.unknown, content.destination)
    assert home.index.package(twin.sha256, twin.name) is None
    assert ContentState() == home.index.content(package("c.zip").sha256)


def test_an_acceptance_is_remembered_with_its_moment(home: House) -> None:
    """A duplicate's reason can name the earlier one: under which name, when, as which order."""
    home.complete(home.lay(package(), O), order_id="4711")
    accepted = next(record for record in home.records() if record.event is Event.ACCEPTED)
    content = home.index.content(package().sha256)

    assert ("call_v1.zip", accepted.at, "4711") == (content.accepted_as, content.accepted_at, content.order_id)
    renamed = fact(package("other.zip", b"call_v1.zip"), Event.MOVED, D, D, detail=write_detail(was="call_v1.zip"))
    home.record(renamed)
    content = home.index.content(package().sha256)
    assert ("other.zip", accepted.at, "4711") == (content.accepted_as, content.accepted_at, content.order_id)


def test_orders_are_known_for_ever(home: House) -> None:
    """An order id of the log is never taken for another package's, even after its package was refused and sent anew."""
    home.record(*(fact(package(), *step[:3], order_id="4711", detail=write_detail("", **step[3])) for step in (
        ATTEMPT, ACCEPT, (Event.REFUSED, S, R, {"by": "service"}), REQUEUE, SECOND,
    )))  # fmt: skip

    assert home.index.knows_order("4711")
    assert not home.index.knows_order("4712")
    assert not home.index.knows_order("4711\ud800")
    state = home.index.package(package().sha256, package().name)
    assert state is not None
    assert "" == state.order_id
    assert [state] == home.index.search("4711")


# --- a package --------------------------------------------------------------------------------------------------------


def state_of(home: House, about: Package) -> PackageState:
    found = home.index.package(about.sha256, about.name)
    assert found is not None
    return found


def test_a_delivered_package_tells_its_life(home: House) -> None:
    """Stage, tag, moments, rounds, order, service: as the rows say."""
    about = home.lay(package(), O)
    home.complete(about)
    state = state_of(home, about)

    attempted, accepted, completed = home.records()
    assert (D, Status.DELIVERED, Event.COMPLETED) == (state.stage, state.status, state.event)
    assert (attempted.at, completed.at, accepted.at, completed.at) == (
        state.first_at, state.changed_at, state.accepted_at, state.settled_at,
    )  # fmt: skip
    assert (1, 0, "4711", THERE) == (state.rounds, state.failures, state.order_id, state.destination)
    assert (about.bytes, about.trace_id) == (state.bytes, state.trace_id)
    assert 1 == home.index.settled_since(completed.at)
    assert 0 == home.index.settled_since(completed.at + seconds(1))


def test_failures_are_counted_until_one_succeeds(home: House) -> None:
    """Failed rounds add up, a refusal of a round that wasn't a failure doesn't, an acceptance starts anew."""
    about = package()
    retry = "2025-11-13T12:30:00.000Z"
    steps = (ATTEMPT, (Event.DEFERRED, C, O, {"failed": "yes", "sent": "no", "retry_at": retry}))
    home.record(*(fact(about, *step[:3], detail=write_detail("", **step[3])) for step in (*steps, *steps)))
    state = state_of(home, about)
    assert (2, 2, NOON + timedelta(minutes=30)) == (state.rounds, state.failures, state.retry_at)

    home.record(fact(about, *ATTEMPT[:3], detail=write_detail(generation=1)))
    assert state_of(home, about).retry_at is None
    home.record(fact(about, *ACCEPT[:3], order_id="1"))
    assert (3, 0) == (state_of(home, about).rounds, state_of(home, about).failures)


@pytest.mark.parametrize(
    ("path", "by_hand"),
    [
        ((O, D), True),
        ((O, R, D), True),
        ((O, S, D), False),
        ((O, D, D), True),
        ((O, S, D, D), False),
        ((O, S, D, AWAY, D), False),
        ((O, D, AWAY, D), True),
        ((O, S, D, R, D), True),
        ((O, D, R), False),
    ],
)
def test_what_counts_as_delivered_by_hand(home: House, path: tuple[Stage | None, ...], by_hand: bool) -> None:
    """Outbox or rejected → delivered is by hand; what was accepted, or settled before under any name, is not."""
    about = package()
    for source, target in pairwise(path):
        home.record(fact(about, Event.MOVED, source, target, actor=Actor.OPERATOR))
    state = state_of(home, about)

    assert by_hand is state.by_hand
    assert (D in path and path[-1] is D) is (state.settled_at is not None)


def test_what_a_rollback_rejected_is_found_until_it_leaves(home: House) -> None:
    """Lifting a rollback finds its packages, also after a rename within rejected/; not those parked before."""
    fallen, parked = package("a.zip"), package("b.zip")
    home.record(fact(fallen, Event.ROLLBACK, C, R, detail=write_detail(integration="gotranscript")))
    home.record(
        fact(parked, Event.ROLLBACK, R, R, status=Status.UNKNOWN, detail=write_detail(integration="gotranscript"))
    )
    assert ["a.zip"] == [state.name for state in home.index.rolled_back()]
    assert ["b.zip"] == [state.name for state in home.index.parked()]

    renamed = Package(name="a~2.zip", sha256=fallen.sha256, bytes=fallen.bytes, trace_id=fallen.trace_id)
    home.record(fact(renamed, Event.MOVED, R, R, detail=write_detail(was="a.zip")))
    assert ["a~2.zip"] == [state.name for state in home.index.rolled_back()]
    home.record(fact(renamed, Event.REQUEUED, R, O))
    assert [] == home.index.rolled_back()


def test_a_new_name_takes_all_that_is_known_along(home: House) -> None:
    """After a rename the old name is nobody's; the package is the same under the new one."""
    about = home.lay(package(), O)
    home.accept(about)
    before = state_of(home, about)
    renamed = Package(name="new.zip", sha256=about.sha256, bytes=about.bytes, trace_id=about.trace_id)
    home.record(fact(renamed, Event.MOVED, S, S, status=Status.SUBMITTED, detail=write_detail(was=about.name)))
    after = state_of(home, renamed)

    assert home.index.package(about.sha256, about.name) is None
    same = ("trace_id", "stage", "status", "first_at", "order_id", "accepted_at", "rounds", "destination")
    assert [getattr(before, word) for word in same] == [getattr(after, word) for word in same]


def test_forcing_lasts_until_the_next_order(home: House) -> None:
    """`--force` asks for one further order, not for all times; who asked is known until the next attempt."""
    about = package()
    home.record(fact(about, Event.REQUEUED, D, O, actor=Actor.OPERATOR, detail=write_detail(forced="yes")))
    assert (True, Actor.OPERATOR) == (state_of(home, about).forced, state_of(home, about).requeued_by)
    home.record(fact(about, *ATTEMPT[:3], detail=write_detail(generation=2)))
    assert (True, None) == (state_of(home, about).forced, state_of(home, about).requeued_by)
    home.record(fact(about, *ACCEPT[:3], order_id="2"))
    assert not state_of(home, about).forced


def test_what_is_not_backed_up_is_found(home: House) -> None:
    """Delivered packages are due for backup, the longest waiting first, until one was verified."""
    for name in ("a.zip", "b.zip"):
        home.complete(home.lay(package(name), O), order_id=name)
    home.record(fact(package("a.zip"), Event.BACKUP_FAILED, D, D))
    assert ["b.zip", "a.zip"] == [state.name for state in home.index.unbacked()]
    assert 1 == state_of(home, package("a.zip")).backup_failures

    home.record(fact(package("b.zip"), Event.BACKED_UP, D, D, detail=write_detail(key="2025/x")))
    state = state_of(home, package("b.zip"))
    assert (True, "2025/x") == (state.backed_up, state.backup_key)
    assert ["a.zip"] == [state.name for state in home.index.unbacked()]


def test_recent_problems_are_those_that_still_are(home: House) -> None:
    """Rejected, unknown and failing packages, the latest first; not what waits, works or is done."""
    home.record(
        fact(package("rejected.zip"), Event.REFUSED, O, R, status=Status.REJECTED),
        fact(package("fine.zip"), Event.MOVED, O, D, status=Status.DELIVERED),
    )
    home.record(
        fact(package("failing.zip"), Event.DEFERRED, C, O, status=Status.WAITING, detail=write_detail(failed="yes"))
    )
    home.record(fact(package("unknown.zip"), Event.UNKNOWN, C, C, status=Status.UNKNOWN))
    home.record(fact(package("waiting.zip"), Event.DEFERRED, C, O, status=Status.WAITING))

    names = [state.name for state in home.index.recent_problems(10)]
    assert ["unknown.zip", "failing.zip", "rejected.zip"] == names
    assert 1 == len(home.index.recent_problems(1))


@pytest.mark.parametrize("text", ["\udcff\ud800", "\x00", "'; DROP TABLE package; --", "\U0001f600" * 1000])
def test_no_text_harms_it(home: House, text: str) -> None:
    """Services and strangers write what they like: into reasons, order ids, trace ids and switch reasons."""
    about = Package(name="a.zip", sha256=package().sha256, bytes=1, trace_id=TraceId(text))
    home.record(fact(about, *ATTEMPT[:3], detail=write_detail(generation=1)))
    home.record(fact(about, *ACCEPT[:3], order_id=text, detail=write_detail(text)))
    home.record(Fact(event=Event.DISABLED, detail=write_detail(text, integration="s3", by="command")))

    spelled = text.encode("utf-8", "backslashreplace").decode()
    assert (spelled, spelled) == (state_of(home, about).order_id, state_of(home, about).reason)
    assert home.index.knows_order(text)
    assert [state_of(home, about)] == home.index.search(text)
    assert spelled == home.index.integration(Integration.S3).reason


# --- searching --------------------------------------------------------------------------------------------------------


def test_a_package_is_found_by_all_it_is_known_by(home: House) -> None:
    """Name, whole or begun SHA-256, trace or order; nothing by less than eight digits or by what is like it."""
    name = os.fsdecode(b"\xff\n.zip")
    about = Package(name=name, sha256=package(name).sha256, bytes=3, trace_id=TraceId("trace-1"))
    home.record(fact(about, *ATTEMPT[:3]), fact(about, *ACCEPT[:3], order_id="4711"))
    home.record(fact(package("other.zip"), Event.MOVED, O, R))
    state = state_of(home, about)

    for word in (name, about.sha256, about.sha256[:8], about.sha256[:40], "trace-1", "4711"):
        assert [state] == home.index.search(word), word
    for word in ("", "%", "_", about.sha256[:7], about.sha256[:8] + "g", "trace-", "471", name[:-1], "\ud800"):
        assert [] == home.index.search(word), word


def test_the_latest_of_a_name_comes_first(home: House) -> None:
    """A name may have been many contents, a content many names."""
    for data in (b"1", b"2"):
        home.record(fact(package("a.zip", data), Event.MOVED, O, R))
    home.record(fact(package("b.zip", b"1"), Event.MOVED, O, R))

    assert [package("a.zip", b"2").sha256, package("a.zip", b"1").sha256] == [
        s.sha256 for s in home.index.named("a.zip")
    ]
    assert ["b.zip", "a.zip"] == [s.name for s in home.index.packages_of(package("a.zip", b"1").sha256)]
    assert 2 == len(home.index.search("a.zip"))


# --- integrations and the sheet ---------------------------------------------------------------------------------------


def switched(event: Event, by: str) -> Fact:
    return Fact(event=event, detail=write_detail("why", integration="gotranscript", by=by))


@pytest.mark.parametrize(
    ("facts", "state", "configured"),
    [
        ((), "enabled", None),
        ((switched(Event.DISABLED, "command"),), "disabled", None),
        ((switched(Event.DISABLED, "service"),), "paused", None),
        ((switched(Event.DISABLED, "configuration"),), "enabled", False),
        ((switched(Event.ENABLED, "configuration"),), "enabled", True),
        ((switched(Event.DISABLED, "command"), switched(Event.ENABLED, "command")), "enabled", None),
        ((switched(Event.DISABLED, "configuration"), switched(Event.DISABLED, "command")), "disabled", False),
        ((switched(Event.DISABLED, "command"), switched(Event.ENABLED, "configuration")), "enabled", True),
    ],
)
def test_where_an_integration_stands(home: House, facts: tuple[Fact, ...], state: str, configured: bool | None) -> None:
    """The last word counts; what the configuration last said is remembered beside it."""
    home.record(*facts)
    found = home.index.integration(Integration.GOTRANSCRIPT)

    assert (state, state != "enabled", configured) == (found.state, found.held, found.configured)
    assert IntegrationState() == home.index.integration(Integration.SHEETS)


def test_a_rollback_is_about_its_package_and_its_integration(home: House) -> None:
    """One row, both told."""
    home.record(fact(package(), Event.ROLLBACK, C, R, detail=write_detail("too many", integration="gotranscript")))
    found = home.index.integration(Integration.GOTRANSCRIPT)

    assert ("rolled back", home.last().at, "too many") == (found.state, found.since, found.reason)
    assert state_of(home, package()).by_rollback


def test_the_sheets_cursor_is_kept_apart_from_the_logs(home: House) -> None:
    """Each sheet has its own place, which a rebuild forgets."""
    place = Position(offset=10, seq=2, chain="c" * 64)
    assert home.index.sheet_cursor("one") is None
    home.index.move_sheet_cursor("one", place)
    home.record(Fact(event=Event.ENABLED))

    assert (place, None) == (home.index.sheet_cursor("one"), home.index.sheet_cursor("two"))
    assert home.index.position == home.log.position
    home.index.clear()
    assert home.index.sheet_cursor("one") is None


def test_a_history_begins_with_the_header() -> None:
    """The first position is right after the header: what `written` builds is what a log would hold."""
    ((_, position),) = written([Fact(event=Event.ENABLED)])

    assert Position.start().offset == len(HEADER) < position.offset
    assert ({}, "x") == read_detail("x")
    assert Sha256(SHAS[0]) != SHAS[1]


# --- a disk that fails ------------------------------------------------------------------------------------------------


def test_a_file_that_failed_is_not_believed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an I/O error the projection is removed when it is closed: the next start makes it anew from the log."""
    path = tmp_path / "index.sqlite"
    index = Index(str(path))
    index.apply([], Position.start())
    monkeypatch.setattr(index_module, "checkpoint", _io_error)

    with pytest.raises(IndexUnusable, match=r"index\.sqlite: disk I/O error; .*start tfwatch again"):
        index.apply([], Position.start())
    index.close()

    assert [] == list(tmp_path.iterdir())


def test_changes_are_brought_in_now_and_then(tmp_path: Path) -> None:
    """The file beside it stays small, and not every row pays for a checkpoint."""
    index = Index(str(tmp_path / "index.sqlite"))
    said: list[str] = []
    index._writer.set_trace_callback(said.append)
    for _ in range(3000):
        index.apply([], Position.start())
    checkpoints = sum("wal_checkpoint" in statement for statement in said)
    beside = (tmp_path / "index.sqlite-wal").stat().st_size
    index.close()

    assert 1 <= checkpoints <= 10
    assert beside <= 2 * index_module.BESIDE_BYTES


def test_without_room_it_says_so_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk passes: nothing of what was to be written is in, and the file is kept."""
    path = tmp_path / "index.sqlite"
    index = Index(str(path))
    index.apply([], Position.start())
    index._writer.execute("PRAGMA max_page_count = 1")

    with pytest.raises(IndexUnwritable, match="free some space"):
        index.move_sheet_cursor("x" * 100_000, Position.start())
    index.close()

    assert path.exists()


def _io_error(connection: sqlite3.Connection, path: str, *, beyond: int) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    raise error


# --- made anew beside the old one -------------------------------------------------------------------------------------


def test_made_anew_it_is_what_it_would_have_become(home: House, tmp_path: Path) -> None:
    """All tables, what is looked up by other things than keys, and the file itself are as if it had grown."""
    for number in range(30):
        about = home.lay(package(f"call{number}_v1.zip"), O)
        home.attempt(about)
    grown = {table: home.index.table(table) for table in index_module.TABLES}
    anew = Index(str(tmp_path / "anew.sqlite"))
    with anew.made_anew():
        catch_up(home.folders, anew)

    assert grown == {table: anew.table(table) for table in index_module.TABLES}
    assert home.index.position == anew.position
    assert anew.is_sound()
    assert 30 == len(anew.at_stage(C))
    assert not (tmp_path / "anew.sqlite.new").exists()
    anew.close()
    kept = Index(str(tmp_path / "anew.sqlite"))
    assert home.index.position == kept.position
    kept.close()


def test_what_was_cut_short_is_not_believed(home: House, tmp_path: Path) -> None:
    """An index that was not finished is not there at the next start, and is made anew again."""
    path = str(tmp_path / "anew.sqlite")
    home.attempt(home.lay(package(), O))
    anew = Index(path)
    with pytest.raises(FileNotFoundError), anew.made_anew():
        catch_up(Folders(str(tmp_path / "gone")), anew)
    anew.close()

    again = Index(path)
    assert again.position is None
    with again.made_anew():
        catch_up(home.folders, again)
    assert home.index.position == again.position
    again.close()


# --- what asking costs ------------------------------------------------------------------------------------------------

_QUESTIONS: dict[str, Callable[[Index], object]] = {
    "package": lambda index: index.package("0" * 64, "a.zip"),
    "packages_of": lambda index: index.packages_of("0" * 64),
    "named": lambda index: index.named("a.zip"),
    "search": lambda index: index.search("0123456789abcdef"),
    "at_stage": lambda index: index.at_stage(S),
    "content": lambda index: index.content("0" * 64),
    "with_order": lambda index: index.with_order("dlv_1"),
    "knows_order": lambda index: index.knows_order("dlv_1"),
    "unbacked": lambda index: index.unbacked(),
    "unbacked_count": lambda index: index.unbacked_count(),
    "rolled_back": lambda index: index.rolled_back(),
    "stage_counts": lambda index: index.stage_counts(),
    "oldest_at": lambda index: index.oldest_at(D),
    "oldest": lambda index: index.oldest(D),
    "settled_since": lambda index: index.settled_since(NOON),
    "parked": lambda index: index.parked(),
    "recent_problems": lambda index: index.recent_problems(20),
    "figures": lambda index: index.figures(NOON),
    "settled.before": lambda index: index.settled.before(D, NOON, limit=10),
}


@pytest.mark.parametrize("question", _QUESTIONS)
def test_no_question_reads_a_whole_table(home: House, question: str) -> None:
    """Of what grows with the log, each answer is looked up: SQLite's own plan for each statement says so."""
    asked: list[str] = []
    home.index._reader.set_trace_callback(asked.append)
    _QUESTIONS[question](home.index)
    home.index._reader.set_trace_callback(None)
    plans = [
        step
        for sql in asked
        if sql.startswith("SELECT")
        for *_, step in home.index._reader.execute(f"EXPLAIN QUERY PLAN {sql}")
    ]

    assert plans
    # `total` has a row for each figure; the index of what is not backed up holds nothing else.
    small = ("SCAN total", "SCAN package USING INDEX package_unbacked")
    assert [] == [step for step in plans if step.startswith("SCAN ") and step not in small]
    if question.startswith("unbacked"):
        assert small[1] == plans[0]


def test_delivered_packages_are_counted_again_when_one_more_is(home: House) -> None:
    """What is remembered between two rows is never what was so before the last of them."""
    assert 0 == home.index.settled_since(NOON)
    about = home.lay(package(), O)
    home.desk.settle(about, Event.MOVED, waiting(about), to=D)

    assert 1 == home.index.settled_since(NOON)
    assert 0 == home.index.settled_since(NOON + timedelta(days=1))
