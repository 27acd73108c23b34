"""The Google Sheets adapter: set-up, quota, people who edit, and everything that goes wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.google import EMPTY, HEADER, Google, google_sheets, row, rows
from tfwatch.adapters import sheets
from tfwatch.errors import ServiceError, SheetDrift, TransientError
from tfwatch.sandbox.faults import Fault, FaultKind, Target


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


def test_worksheet_is_set_up_once(google: Google) -> None:
    """Header, frozen row and one colour for each status word; connecting again adds nothing."""
    google.connect().mirror(1, rows(1, 2))
    first = google.worksheet("log")
    google.connect().mirror(3, rows(3, 1))

    again = google.worksheet("log")
    assert list(HEADER) == first["values"][0]
    assert (1, 18) == (
        first["properties"]["gridProperties"]["frozenRowCount"],
        first["properties"]["gridProperties"]["columnCount"],
    )
    words = [rule["booleanRule"]["condition"]["values"][0]["userEnteredValue"] for rule in first["conditionalFormats"]]
    assert ["delivered", "rejected", "sending", "submitted", "unknown", "waiting"] == sorted(words)
    assert first["conditionalFormats"] == again["conditionalFormats"]
    assert 4 == len(again["values"])


def test_a_worksheet_made_by_hand_is_adopted(google: Google) -> None:
    """An empty worksheet of that name gets header, columns, frozen row and colours."""
    google.sandbox.edit_sheet(worksheet="Sheet1", action="rename", title="log")

    google.connect().mirror(1, rows(1, 1500))

    shown = google.worksheet("log")
    assert [list(HEADER), row(1)] == shown["values"][:2]
    assert 1 == shown["properties"]["gridProperties"]["frozenRowCount"]
    assert 6 == len(shown["conditionalFormats"])


def test_nothing_is_taken_as_a_formula(google: Google) -> None:
    """Values are written RAW."""
    google.connect().mirror(1, [row(1, detail='=HYPERLINK("http://x")')])

    assert [] == google.worksheet("log")["formulas"]


def test_second_worksheet_carries_the_number(google: Google) -> None:
    """Row 500,001 is row 2 of `log-2`, under a header of its own."""
    google.connect().mirror(500_000, rows(500_000, 2))

    assert [list(HEADER), row(500_001)] == google.worksheet("log-2")["values"]
    assert row(500_000) == google.worksheet("log")["values"][500_000]


def test_a_backlog_drains_in_under_sixty_calls(google: Google) -> None:
    """100,000 rows in batches of 2,000: set-up, growth and writes together stay below a minute's quota."""
    sheet = google.connect()

    for first in range(1, 100_001, 2000):
        sheet.mirror(first, rows(first, 2000))

    assert google.calls() < 60
    assert [] == google.time.slept
    assert [row(100_000), EMPTY] == [list(cells) for cells in sheet.read(100_000, 2)]


def test_the_quota_is_waited_for(google: Google) -> None:
    """However many batches come, Google never has to refuse one."""
    sheet = google.connect()

    for seq in range(1, 131):
        sheet.mirror(seq, rows(seq, 1))

    assert 0 == google.sandbox.sheets()["throttled"]
    assert google.time.slept


def test_a_large_batch_is_split(google: Google) -> None:
    """A batch of more than 2 MB goes in several requests, every row in its place."""
    sheet = google.connect()
    large = [row(seq, detail="\u00e7" * 10_000) for seq in range(1, 101)]

    sheet.mirror(1, large)

    writes = google.sandbox.sheets()["writes"]
    assert writes == 2 + 4
    assert large == [list(cells) for cells in sheet.read(1, 100)]


def test_a_cell_too_long_is_cut(google: Google) -> None:
    """A cell Google would refuse is shortened, and says so."""
    sheet = google.connect()

    sheet.mirror(1, [row(1, detail="x" * 60_000)])

    detail = sheet.read(1, 1)[0][16]
    assert 50_000 == len(detail)
    assert detail.endswith("x\u2026 [cut]")


@pytest.mark.parametrize(
    "what", [{"action": "set", "range": "C1", "value": "mine"}, {"action": "delete_rows", "first": 1}]
)
def test_a_foreign_header_is_never_overwritten(google: Google, what: dict) -> None:
    """Whoever edited the header is told; the worksheet stays as it is."""
    google.connect().mirror(1, rows(1, 3))
    google.sandbox.edit_sheet(worksheet="log", **what)
    before = google.worksheet("log")

    with pytest.raises(SheetDrift) as raised:
        google.connect().mirror(4, rows(4, 1))

    assert before == google.worksheet("log")
    assert "rename" in raised.value.hint


def test_someone_elses_worksheet_is_left_alone(google: Google) -> None:
    """A worksheet of our name that holds other things below a free first row isn't ours."""
    google.sandbox.edit_sheet(worksheet="Sheet1", action="set", range="A2", value="shopping list")
    google.sandbox.edit_sheet(worksheet="Sheet1", action="rename", title="log")

    with pytest.raises(SheetDrift):
        google.connect().mirror(1, rows(1, 1))


def test_an_edited_header_is_noticed_while_running(google: Google) -> None:
    """The worksheet is looked at anew now and then, not only at the start."""
    sheet = google.connect()
    sheet.mirror(1, rows(1, 1))
    google.sandbox.edit_sheet(worksheet="log", action="set", range="A1", value="mine")
    google.time.now += 1000

    with pytest.raises(SheetDrift):
        sheet.mirror(2, rows(2, 1))


def test_a_lost_worksheet_is_made_again(google: Google) -> None:
    """A worksheet that a person renamed or deleted comes back with the next rows."""
    sheet = google.connect()
    sheet.mirror(1, rows(1, 2))
    google.sandbox.edit_sheet(worksheet="log", action="rename", title="old")

    sheet.mirror(3, rows(3, 1))

    assert [EMPTY, EMPTY, row(3)] == [list(cells) for cells in sheet.read(1, 3)]
    assert list(HEADER) == google.worksheet("log")["values"][0]


def test_deleted_rows_are_grown_again(google: Google) -> None:
    """A grid that a person made smaller grows again."""
    sheet = google.connect()
    sheet.mirror(1, rows(1, 2))
    google.sandbox.edit_sheet(worksheet="log", action="delete_rows", first=3, count=49_999)

    sheet.mirror(50_000, rows(50_000, 1))

    assert [row(50_000)] == [list(cells) for cells in sheet.read(50_000, 1)]


def test_a_sorted_sheet_is_seen(google: Google) -> None:
    """What a person sorted reads back sorted, so that it can be noticed."""
    sheet = google.connect()
    sheet.mirror(1, rows(1, 3))
    google.sandbox.edit_sheet(worksheet="log", action="sort", column=1, descending=True)

    assert rows(1, 3)[::-1] == [list(cells) for cells in sheet.read(1, 3)]


TRANSIENT = [
    Fault(kind=FaultKind.STATUS, target=Target.SHEETS, status=503),
    Fault(kind=FaultKind.STATUS, target=Target.SHEETS, status=500),
    Fault(kind=FaultKind.RESET, target=Target.SHEETS),
    Fault(kind=FaultKind.RESET_EARLY, target=Target.SHEETS),
    Fault(kind=FaultKind.GARBAGE, target=Target.SHEETS),
    Fault(kind=FaultKind.TRUNCATED, target=Target.SHEETS),
    Fault(kind=FaultKind.RESET, target=Target.TOKEN),
]


@pytest.mark.parametrize("fault", TRANSIENT, ids=lambda fault: f"{fault.target}-{fault.kind}")
def test_trouble_that_passes_is_transient(google: Google, fault: Fault) -> None:
    """Network, 5xx and unreadable answers ask for another try, which then writes each row once."""
    sheet = google.connect()
    google.sandbox.set_faults(fault)
    with pytest.raises(TransientError):
        sheet.mirror(1, rows(1, 2))
    google.sandbox.set_faults()

    sheet.mirror(1, rows(1, 2))

    assert [*rows(1, 2), EMPTY] == [list(cells) for cells in sheet.read(1, 3)]
    assert 6 == len(google.worksheet("log")["conditionalFormats"])


@pytest.mark.parametrize(("retry_after", "waits"), [(7, 7.0), (None, 60.0)])
def test_a_spent_quota_says_how_long(google: Google, retry_after: int | None, waits: float) -> None:
    """429 carries the seconds Google asked for, else the minute its quota runs."""
    google.sandbox.set_faults(Fault(kind=FaultKind.STATUS, target=Target.SHEETS, status=429, retry_after=retry_after))

    with pytest.raises(TransientError) as raised:
        google.connect().mirror(1, rows(1, 1))

    assert (429, waits) == (raised.value.code, raised.value.retry_after)


@pytest.mark.parametrize("status", [403, 404])
def test_a_sheet_not_shared_says_with_whom(google: Google, status: int) -> None:
    """The hint names the service account's address, which is what a person needs."""
    google.sandbox.set_faults(Fault(kind=FaultKind.STATUS, target=Target.SHEETS, status=status))

    with pytest.raises(ServiceError) as raised:
        google.connect().mirror(1, rows(1, 1))

    assert "share the sheet with tfwatch@sandbox.invalid" in raised.value.hint


def test_an_unknown_sheet_is_a_service_error(google: Google) -> None:
    """A mistyped id is a person's to mend."""
    with pytest.raises(ServiceError) as raised:
        google.connect(spreadsheet_id="nonsense").mirror(1, rows(1, 1))

    assert 404 == raised.value.code


def test_a_revoked_token_is_replaced(google: Google) -> None:
    """A token that ends early costs nothing but a new one."""
    sheet = google.connect()
    sheet.mirror(1, rows(1, 1))
    google.sandbox.revoke_tokens()

    sheet.mirror(2, rows(2, 1))

    assert rows(1, 2) == [list(cells) for cells in sheet.read(1, 2)]


def test_a_foreign_key_is_refused(google: Google) -> None:
    """A service account that Google doesn't know is a person's to mend, and its key is not shown."""
    with google_sheets() as other:
        stranger = {**other.sandbox.service_account(), "token_uri": google.sandbox.service_account()["token_uri"]}

    with pytest.raises(ServiceError) as raised:
        google.connect(service_account_json=json.dumps(stranger)).mirror(1, rows(1, 1))

    assert "invalid_grant" in raised.value.message
    assert "PRIVATE" not in str(raised.value)


@pytest.mark.parametrize("text", ["{", "{}", "/nowhere/key.json", '{"private_key": "secret-words"}'])
def test_an_unreadable_key_is_a_service_error(google: Google, text: str) -> None:
    """What isn't a key is said at once, without a word of it."""
    with pytest.raises(ServiceError) as raised:
        google.connect(service_account_json=text)

    assert "secret-words" not in f"{raised.value} {raised.value.__cause__}"


def test_a_full_spreadsheet_is_a_service_error() -> None:
    """Past Google's number of cells a person must act; the words are Google's."""
    with google_sheets(max_cells=100_000) as google:
        sheet = google.connect()

        with pytest.raises(ServiceError) as raised:
            sheet.mirror(1, rows(1, 1))

    assert "above the limit" in raised.value.message


def test_settings_hide_the_key() -> None:
    """A repr of the settings shows no secret."""
    shown = repr(sheets.SheetsSettings(spreadsheet_id="s", service_account_json="secret-words"))

    assert "secret-words" not in shown
