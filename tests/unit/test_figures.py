"""The durable figures: whatever happened, however it was read, they are what log.csv counts up to."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.recount import of_the_log, recount
from tests.unit.house import EXEC_ID, NOON, House, fact, package
from tests.unit.logs import ignore, no_sync, opened
from tests.unit.test_index import histories
from tfwatch.app import catch_up
from tfwatch.ledger.index import Index
from tfwatch.ledger.log import Position, read_log
from tfwatch.ledger.rows import HEADER, decode, encode
from tfwatch.model import Actor, DeliveryRecord, Event, Fact, Stage, write_detail
from tfwatch.observe.metrics import Present, snapshot_metrics
from tfwatch.observe.observability import document

O, C, S, D, R = Stage.OUTBOX, Stage.CLAIMED, Stage.SUBMITTED, Stage.DELIVERED, Stage.REJECTED  # noqa: E741
Row = tuple[DeliveryRecord, Position]


class Still:
    """A source of figures in which nothing is under way."""

    def __init__(self, index: Index) -> None:
        self.index = index

    def present(self, now: datetime) -> Present:
        return Present(
            packages={}, oldest_seconds={}, in_flight=0, backup_pending=0, sheet_sync_latency_seconds=None,
            sheet_pending_rows=0, integration_enabled={}, watch_latency_seconds=None,
        )  # fmt: skip


def shown(index: Index, now: datetime) -> dict[str, Any]:
    """The document as somebody reads it."""
    return json.loads(json.dumps(document(snapshot_metrics(Still(index), now))))  # type: ignore[no-any-return]


# --- any history ------------------------------------------------------------------------------------------------------

GAPS = st.sampled_from([0.0, 0.0, 0.001, 0.7, 59.0, 3599.999, 3600.0, 20_000.0, 86_399.5, 86_400.0, 90_000.0])
MILLISECONDS = st.none() | st.sampled_from([0, 10, 11, 999, 1000, 1001, 700_000_000])


@st.composite
def pasts(draw: st.DrawFn) -> list[tuple[Fact, float]]:
    """Facts with what the figures are made of, each so many seconds after the one before it."""
    found = []
    for one in draw(histories()):
        details = [one.detail]
        if one.event is Event.ACCEPTED:
            details.append(write_detail("taken", profile="deliveries", since_claim_ms=draw(MILLISECONDS)))
        changed = {name: getattr(one, name) for name in Fact.__dataclass_fields__} | {
            "attempt": draw(st.none() | st.integers(1, 4)),
            "duration_ms": draw(MILLISECONDS),
            "detail": draw(st.sampled_from(details)),
        }
        found.append((Fact(**changed), draw(GAPS)))
        if draw(st.integers(0, 4)) == 0:
            found.append((draw(CALLS), draw(GAPS)))
    return found


CALLS = st.builds(
    lambda integration, outcome: Fact(
        event=Event.WEBHOOK, detail=write_detail(integration=integration, outcome=outcome)
    ),
    st.sampled_from(["gotranscript", "tess\udcffa", None]),
    st.sampled_from(["accepted", "replayed", None]),
)


def written(past: Sequence[tuple[Fact, float]], path: Path) -> list[Row]:
    """A log with that past, on disk, and its rows as a reader finds them."""
    rows, lines, position, at = [], [HEADER], Position.start(), NOON
    for n, (one, gap) in enumerate(past, 1):
        at += timedelta(seconds=gap)
        _, line = encode(one, seq=n, at=at, exec_id=EXEC_ID, previous_chain=position.chain)
        record = decode(line)
        position = Position(offset=position.offset + len(line), seq=n, chain=record.chain)
        rows.append((record, position))
        lines.append(line)
    path.write_bytes(b"".join(lines))
    return rows


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(past=pasts(), cuts=st.lists(st.integers(1, 40), max_size=4), later=GAPS)
def test_every_figure_is_what_the_log_counts_up_to(
    past: list[tuple[Fact, float]], cuts: list[int], later: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Read in any groups, at any moment afterwards: each total, rate, average and hour is a recount of log.csv."""
    log = tmp_path_factory.getbasetemp() / "any.csv"
    rows = written(past, log)
    bounds = [0, *sorted({cut for cut in cuts if cut < len(rows)}), len(rows)]
    with closing(Index(":memory:")) as index:
        for begin, end in pairwise(bounds):
            index.apply([record for record, _ in rows[begin:end]], rows[end - 1][1])
            document = shown(index, rows[end - 1][0].at)
            assert recount(log, document) == of_the_log(document)
        document = shown(index, rows[-1][0].at + timedelta(seconds=later))
        assert recount(log, document) == of_the_log(document)


# --- the window -------------------------------------------------------------------------------------------------------


def accepted(n: int, at: datetime) -> DeliveryRecord:
    one = fact(package(f"{n}.zip"), Event.ACCEPTED, C, S, order_id=str(n), duration_ms=n, attempt=1)
    return DeliveryRecord.of(one, seq=n, at=at, exec_id=EXEC_ID, chain="c")


def test_the_last_day_is_counted_from_a_full_second() -> None:
    """The document names where its 24 hours begin: a row of that moment counts, one a millisecond earlier doesn't."""
    with closing(Index(":memory:")) as index:
        begin = NOON - timedelta(days=1)
        for n, at in enumerate([begin - timedelta(milliseconds=1), begin, NOON], 1):
            index.apply([accepted(n, at)], Position.start())
        figures = index.figures(NOON + timedelta(milliseconds=999))
    assert begin == figures.window_begins_at
    assert 2.5 == figures.avg_delivery_latency_ms
    assert 3 == figures.deliveries["accepted"]


def test_a_year_ends_in_the_middle_of_the_window() -> None:
    """Hours go on over New Year; each begins on the full hour, the last one is under way."""
    eve = datetime(2025, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    with closing(Index(":memory:")) as index:
        for n, at in enumerate([eve, eve + timedelta(milliseconds=1)], 1):
            index.apply([accepted(n, at)], Position.start())
        hours = index.figures(eve + timedelta(minutes=30)).hourly
    assert [1, 1] == [hour.accepted for hour in hours[-2:]]
    assert datetime(2026, 1, 1, tzinfo=UTC) == hours[-1].begin
    assert 24 == len(hours)
    assert all(after.begin - before.begin == timedelta(hours=1) for before, after in pairwise(hours))


def test_a_clock_set_back_loses_nothing(tmp_path: Path) -> None:
    """Rows never go back in time, and neither do the figures: what was logged last is within the last day."""
    times = iter([NOON, NOON - timedelta(days=3), NOON - timedelta(days=3), NOON + timedelta(seconds=1)])
    with (
        closing(Index(":memory:")) as index,
        opened(tmp_path / "log.csv", clock=lambda: next(times), on_commit=index.apply, sync=no_sync) as log,
    ):
        for n in range(4):
            log.append([fact(package(f"{n}.zip"), Event.ACCEPTED, C, S, order_id=str(n), duration_ms=8)])
            now = shown(index, NOON - timedelta(days=3))
            assert n + 1 == now["deliveries"]["accepted"] == sum(hour["accepted"] for hour in now["hourly"])
            assert recount(tmp_path / "log.csv", now) == of_the_log(now)


def test_what_is_older_than_a_day_takes_no_room() -> None:
    """However long the log gets: of each second since a day before this hour one row at most, and one before that."""
    with closing(Index(":memory:")) as index:
        at = NOON
        for n in range(1, 301):
            at += timedelta(minutes=10)
            index.apply([accepted(n, at), accepted(n, at + timedelta(milliseconds=1))], Position.start())
        assert 24 * 6 + 2 == len(index.table("running"))
        assert 600 == index.figures(at).deliveries["accepted"]


# --- which rows count -------------------------------------------------------------------------------------------------

SERVICE = write_detail(by="service")
HERE = write_detail(by="intake", flaw="duplicate")
ROWS = {
    "accepted": (Event.ACCEPTED, C, S, {"attempt": 1}, {"accepted"}),
    "completed": (Event.COMPLETED, S, D, {}, {"completed"}),
    "refused by the service": (Event.REFUSED, C, R, {"attempt": 1, "detail": SERVICE}, {"refused", "failed"}),
    "its verdict was no": (Event.REFUSED, S, R, {"detail": SERVICE}, {"refused_later"}),
    "refused here": (Event.REFUSED, O, R, {"detail": HERE}, {"refused_here"}),
    "deferred after tries": (Event.DEFERRED, C, O, {"attempt": 4}, {"deferred", "failed"}),
    "put back at a stop": (Event.DEFERRED, C, O, {"detail": write_detail(sent="no")}, {"deferred"}),
    "unknown after tries": (Event.UNKNOWN, C, C, {"attempt": 1}, {"unknown", "failed"}),
    "parked without a try": (Event.UNKNOWN, C, R, {}, {"unknown", "fallback"}),
    "parked after tries": (Event.UNKNOWN, C, R, {"attempt": 2}, {"unknown", "failed", "fallback"}),
    "rolled back, nothing sent": (
        Event.ROLLBACK, C, R, {"attempt": 4, "detail": write_detail(integration="gotranscript", sent="no")},
        {"rolled_back", "failed", "fallback"},
    ),
    "rolled back, its attempt was told before": (
        Event.ROLLBACK, C, R, {"attempt": 4, "detail": write_detail(integration="gotranscript", sent="maybe")},
        {"rolled_back", "fallback"},
    ),
    "delivered by hand": (Event.MOVED, R, D, {"actor": Actor.OPERATOR}, {"by_hand", "fallback"}),
    "seen done by a person": (Event.MOVED, S, D, {"actor": Actor.OPERATOR}, set()),
    "renamed": (Event.MOVED, D, D, {"actor": Actor.OPERATOR}, set()),
    "taken away": (Event.MOVED, O, None, {"actor": Actor.OPERATOR}, set()),
    "attempted": (Event.ATTEMPTED, O, C, {"attempt": 1}, set()),
    "requeued": (Event.REQUEUED, R, O, {}, set()),
    "recovered": (Event.RECOVERED, C, C, {}, set()),
    "backed up": (Event.BACKED_UP, D, D, {}, {"backed_up"}),
    "backup failed": (Event.BACKUP_FAILED, D, D, {}, {"backup_failed"}),
    "a new copy was asked for": (Event.BACKUP_FAILED, D, D, {"actor": Actor.OPERATOR}, {"asked_again"}),
    "pruned": (Event.PRUNED, D, None, {}, set()),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_what_a_row_counts_as(row: str) -> None:
    """Each kind of row adds one to these figures and to no other."""
    event, source, target, words, meant = ROWS[row]
    record = DeliveryRecord.of(
        fact(package(), event, source, target, **words), seq=1, at=NOON, exec_id=EXEC_ID, chain="c"
    )
    with closing(Index(":memory:")) as index:
        index.apply([record], Position.start())
        figures = index.figures(NOON)
    found = {word for word, count in figures.deliveries.items() if count}
    found |= {{"failed": "backup_failed"}.get(word, word) for word, count in figures.backups.items() if count}
    found |= {"fallback"} if figures.fallback_total else set()
    assert meant == found
    assert figures.fallback_total == figures.fallback_count


def test_the_success_rate_is_of_attempts_that_reached_for_the_service() -> None:
    """ACCEPTED / (ACCEPTED + failed): what was refused here, a duplicate or put back at a stop is in neither."""
    with closing(Index(":memory:")) as index:
        assert index.figures(NOON).delivery_success_rate is None
        for n, row in enumerate(ROWS, 1):
            event, source, target, words, _ = ROWS[row]
            one = fact(package(f"{n}.zip"), event, source, target, **words)
            record = DeliveryRecord.of(one, seq=n, at=NOON, exec_id=EXEC_ID, chain="c")
            index.apply([record], Position.start())
        figures = index.figures(NOON)
    assert 1 / 6 == figures.delivery_success_rate
    assert 1 / 2 == figures.backup_success_rate
    assert 5 == figures.fallback_count


# --- kept -------------------------------------------------------------------------------------------------------------


def test_they_survive_a_restart_and_a_lost_index(tmp_path: Path) -> None:
    """The same figures after the daemon was started again, and after the index was deleted and made anew."""
    home = House(tmp_path / "spool")
    for name in ("a_v1.zip", "b.zip"):
        home.complete(home.lay(package(name), O), order_id=f"order of {name}")
    home.record(Fact(event=Event.WEBHOOK, detail=write_detail(integration="gotranscript", outcome="accepted")))
    now = NOON + timedelta(hours=1)
    before = shown(home.index, now)
    home.close()
    with closing(Index(home.folders.index)) as again:
        assert before == shown(again, now)
    os.unlink(home.folders.index)
    with closing(Index(home.folders.index)) as anew:
        assert before != shown(anew, now)
        catch_up(home.folders, anew)
        assert before == shown(anew, now)
    assert {"gotranscript": {"accepted": 1}} == before["webhooks"]
    assert recount(Path(home.folders.log), before) == of_the_log(before)


def test_a_row_that_could_not_be_applied_is_counted_once(tmp_path: Path) -> None:
    """Figures come with the position, in one transaction: a failed group leaves none of them, its repeat all."""
    path = tmp_path / "log.csv"
    with opened(path, on_commit=ignore, sync=no_sync) as log:
        log.append([fact(package(f"{n}.zip"), Event.ACCEPTED, C, S, order_id=str(n)) for n in range(3)])
    records = [record for record, _ in read_log(str(path))]

    def broken() -> Any:
        yield from records
        raise OSError("the reader died")

    with closing(Index(":memory:")) as index:
        with pytest.raises(OSError, match="died"):
            index.apply(broken(), Position.start())
        assert 0 == index.figures(NOON).deliveries["accepted"]
        assert dict.fromkeys(Stage, 0) == index.stage_counts()
        index.apply(records, Position.start())
        assert 3 == index.figures(NOON).deliveries["accepted"]
        assert 3 == index.stage_counts()[S]
