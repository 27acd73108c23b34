"""What every sheet keeps to: the fake, and the Google adapter against the sandbox's Sheets service and login."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.fake_sheet import FakeSheet
from tests.support.google import EMPTY, HEADER, Google, google_sheets, row, rows
from tfwatch.ports import SheetPort


@pytest.fixture(scope="module")
def running() -> Iterator[Google]:
    with google_sheets() as google:
        yield google


@pytest.fixture
def google(running: Google) -> Google:
    running.sandbox.reset()
    running.sandbox.set_faults()
    running.time.slept.clear()
    return running


@pytest.fixture(params=["fake", "google"])
def sheet(request: pytest.FixtureRequest) -> Iterator[SheetPort]:
    if request.param == "fake":
        yield FakeSheet(width=len(HEADER))
    else:
        sheet = request.getfixturevalue("google").connect()
        yield sheet
        sheet.close()


def test_what_is_mirrored_is_there(sheet: SheetPort) -> None:
    """A row reads back as it was written, in its place, and rows never written are empty."""
    sheet.mirror(1, rows(1, 3))

    assert [*rows(1, 3), EMPTY] == [list(cells) for cells in sheet.read(1, 4)]


def test_mirroring_twice_is_once(sheet: SheetPort) -> None:
    """A batch sent again changes nothing and adds nothing."""
    sheet.mirror(1, rows(1, 3))
    sheet.mirror(2, rows(2, 2))

    assert [*rows(1, 3), EMPTY] == [list(cells) for cells in sheet.read(1, 4)]


def test_rows_may_come_in_any_order(sheet: SheetPort) -> None:
    """A row's place depends on its seq alone."""
    sheet.mirror(5, rows(5, 1))
    sheet.mirror(2, rows(2, 1))

    assert [EMPTY, row(2), EMPTY, EMPTY, row(5)] == [list(cells) for cells in sheet.read(1, 5)]


def test_rows_past_half_a_million_go_on(sheet: SheetPort) -> None:
    """A batch may cross from one worksheet to the next."""
    sheet.mirror(499_999, rows(499_999, 4))

    assert rows(499_999, 4) == [list(cells) for cells in sheet.read(499_999, 4)]


def test_reading_what_was_never_written_is_empty(sheet: SheetPort) -> None:
    """Where there is no worksheet yet, all is empty."""
    assert [EMPTY, EMPTY] == [list(cells) for cells in sheet.read(700_000, 2)]


texts = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=30)
cells = st.lists(
    texts | st.sampled_from(["=1+1", "'=1+1", "+5", "007", "1e5", "TRUE", "2025-11-13", "12:30", " x ", "@a", "5%"]),
    min_size=len(HEADER),
    max_size=len(HEADER),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given=cells)
def test_any_text_stays_that_text(sheet: SheetPort, given: list[str]) -> None:
    """What looks like a number, a date or a formula is text and stays so."""
    sheet.mirror(1, [given])

    assert [given] == [list(cells) for cells in sheet.read(1, 1)]


def test_a_probe_writes_nothing(sheet: SheetPort) -> None:
    """A sheet that works is proven to, tells its clock, and no row of it changes."""
    reach = sheet.probe()

    assert reach.failure is None
    assert reach.proven
    assert reach.date is not None
    assert [EMPTY, EMPTY] == [list(cells) for cells in sheet.read(1, 2)]
