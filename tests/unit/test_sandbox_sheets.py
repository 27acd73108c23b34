"""The sandbox's Sheets service, seen by an unmodified gspread with a real service-account login."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import google.auth.exceptions
import gspread
import httpx
import pytest
from google.oauth2.service_account import Credentials
from gspread.utils import ValueRenderOption
from requests import Response

from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.tokens import make_service_account

SCOPE = "https://www.googleapis.com/auth/spreadsheets"
MANY = {"writes_per_minute": 100_000, "reads_per_minute": 100_000}


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@pytest.fixture
def sandbox(shared: Sandbox) -> Sandbox:
    shared.reset()
    shared.set_settings(sheets=MANY)
    return shared


def login(sandbox: Sandbox, account: dict[str, str] | None = None, scope: str = SCOPE) -> gspread.Client:
    class HereClient(gspread.HTTPClient):
        def request(self, method: str, endpoint: str, *args: Any, **kwargs: Any) -> Response:
            return super().request(
                method, endpoint.replace("https://sheets.googleapis.com", sandbox.url), *args, **kwargs
            )

    # with a subject google-auth does not ask Google where this account's requests may go (seen in 2.62)
    credentials = Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
        account or sandbox.service_account(), scopes=[scope], subject="person@sandbox.invalid"
    )
    return gspread.Client(auth=credentials, http_client=HereClient)


def opened(sandbox: Sandbox) -> gspread.Spreadsheet:
    return login(sandbox).open_by_key(sandbox.spreadsheet_id)


def content(sandbox: Sandbox, title: str) -> dict[str, Any]:
    worksheets: Any = sandbox.sheets()["worksheets"]
    return next(sheet for sheet in worksheets if sheet["properties"]["title"] == title)


def code_of(caught: pytest.ExceptionInfo[gspread.exceptions.APIError]) -> tuple[int, str]:
    return caught.value.code, caught.value.error["status"]


def test_a_day_with_gspread(sandbox: Sandbox) -> None:
    """Making, filling, reading, growing, freezing and deleting sheets works as with Google."""
    book = opened(sandbox)
    log = book.add_worksheet("log-2", rows=10, cols=4)
    log.update([["seq", "at"], ["1", "x"]], "A1", raw=True)
    log.freeze(rows=1)
    log.add_rows(5)
    log.batch_update([{"range": "A3:B3", "values": [["2", "y"]]}, {"range": "D15", "values": [["z"]]}], raw=True)

    assert [["seq", "at"], ["1", "x"], ["2", "y"]] == log.get("A1:B3")
    assert ["seq", "1", "2"] == log.col_values(1)
    assert [[["z"]], [["2", "y"]]] == [list(values) for values in log.batch_get(["D15", "A3:D3"])]
    again = opened(sandbox).worksheet("log-2")
    assert (15, 4, 1) == (again.row_count, again.col_count, again.frozen_row_count)
    log.batch_clear(["A2:B2"])
    assert [["seq", "at"], [], ["2", "y"]] == log.get("A1:B3")
    log.append_row(["end"])
    assert ["end"] == log.row_values(16)
    book.del_worksheet(log)
    assert ["Sheet1"] == [sheet.title for sheet in book.worksheets()]


def test_raw_is_never_run_and_typed_is(sandbox: Sandbox) -> None:
    """RAW keeps text as text; USER_ENTERED turns it into numbers and formulas, and the sandbox says which."""
    sheet = opened(sandbox).sheet1
    sheet.update([["=1+1", "+2", "007", "TRUE"]], "A1", raw=True)
    assert [["=1+1", "+2", "007", "TRUE"]] == sheet.get("A1:D1")
    assert [] == content(sandbox, "Sheet1")["formulas"]
    sheet.update([["=1+1", "'=1", "007", "TRUE"]], "A2", raw=False)
    assert ["A2"] == content(sandbox, "Sheet1")["formulas"]
    assert [["#FORMULA: =1+1", "=1", 7, True]] == sheet.get("A2:D2", value_render_option=ValueRenderOption.unformatted)
    assert [["=1+1"]] == sheet.get("A2", value_render_option=ValueRenderOption.formula)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("A1001:B1001", "Range ('Sheet1'!A1001:B1001) exceeds grid limits. Max rows: 1000, max columns: 26"),
        ("Z1:AA1", "exceeds grid limits. Max rows: 1000, max columns: 26"),
        ("A1:B1:C1", "Unable to parse range"),
    ],
)
def test_outside_of_the_grid_is_a_400(sandbox: Sandbox, place: str, message: str) -> None:
    """Nothing outside of the grid can be read or written; a batch is written whole or not at all."""
    sheet = opened(sandbox).sheet1
    with pytest.raises(gspread.exceptions.APIError) as caught:
        sheet.batch_update([{"range": "A1", "values": [["x"]]}, {"range": place, "values": [["a", "b"]]}])
    assert (400, "INVALID_ARGUMENT") == code_of(caught)
    assert message in caught.value.error["message"]
    assert caught.value.error["message"].startswith("Invalid data[1]: ")
    assert [] == content(sandbox, "Sheet1")["values"]


def test_more_values_than_the_range_holds(sandbox: Sandbox) -> None:
    """Values that don't fit their range are refused."""
    sheet = opened(sandbox).sheet1
    with pytest.raises(gspread.exceptions.APIError, match="tried writing to row"):
        sheet.batch_update([{"range": "A1:B1", "values": [["a"], ["b"]]}])
    with pytest.raises(gspread.exceptions.APIError, match="tried writing to column"):
        sheet.batch_update([{"range": "A1:B1", "values": [["a", "b", "c"]]}])
    with pytest.raises(gspread.exceptions.APIError, match="50000 characters"):
        sheet.update([["x" * 50_001]], "A1")


def test_structure_changes_are_all_or_nothing(sandbox: Sandbox) -> None:
    """One bad request of a batchUpdate undoes the ones before it."""
    book = opened(sandbox)
    bad: dict[str, Any]
    for bad in ({"flyToTheMoon": {}}, {"addSheet": {"properties": {"title": "sheet1"}}}, {"appendDimension": {}}):
        with pytest.raises(gspread.exceptions.APIError) as caught:
            book.batch_update({"requests": [{"addSheet": {"properties": {"title": "new"}}}, bad]})
        assert (400, "INVALID_ARGUMENT") == code_of(caught)
    assert ["Sheet1"] == [sheet.title for sheet in book.worksheets()]


def test_cells_are_bounded(sandbox: Sandbox) -> None:
    """A spreadsheet has 10 million cells at most."""
    book = opened(sandbox)
    with pytest.raises(gspread.exceptions.APIError, match="above the limit of 10000000 cells"):
        book.add_worksheet("huge", rows=600_000, cols=18)
    assert 500_001 == book.add_worksheet("log", rows=500_001, cols=18).row_count


def test_colours_are_found_again(sandbox: Sandbox) -> None:
    """Conditional formats are kept, shown under their field mask, and can be deleted."""
    book = opened(sandbox)
    rule = {
        "ranges": [{"sheetId": 0, "startRowIndex": 1}],
        "booleanRule": {"condition": {"type": "TEXT_EQ", "values": [{"userEnteredValue": "rejected"}]}, "format": {}},
    }
    book.batch_update({"requests": [{"addConditionalFormatRule": {"rule": rule, "index": 0}}]})
    shown = book.fetch_sheet_metadata({"fields": "sheets(properties(title),conditionalFormats)"})
    assert {"sheets": [{"properties": {"title": "Sheet1"}, "conditionalFormats": [rule]}]} == shown
    book.batch_update({"requests": [{"deleteConditionalFormatRule": {"sheetId": 0, "index": 0}}]})
    assert "conditionalFormats" not in book.fetch_sheet_metadata()["sheets"][0]


def test_a_person_sorts_and_edits(sandbox: Sandbox) -> None:
    """What a person does by hand shows to the program, by the control API and by sortRange alike."""
    sheet = opened(sandbox).sheet1
    sheet.update([["h"], ["b"], ["a"], ["c"]], "A1")
    sandbox.edit_sheet(worksheet="Sheet1", action="sort", column=1, descending=True)
    assert ["h", "c", "b", "a"] == sheet.col_values(1)
    sheet.sort((1, "asc"), range="A2:A4")
    assert ["h", "a", "b", "c"] == sheet.col_values(1)
    edit = {"worksheet": "Sheet1", "action": "set", "range": "A2", "value": "=EVIL()"}
    assert 200 == httpx.post(f"{sandbox.url}/_sandbox/sheets/edit", json=edit).status_code
    sandbox.edit_sheet(worksheet="Sheet1", action="insert_rows", first=1)
    assert ["A3"] == content(sandbox, "Sheet1")["formulas"]
    sandbox.edit_sheet(worksheet="Sheet1", action="delete_rows", first=3)
    assert ["", "h", "b", "c"] == sheet.col_values(1)
    sandbox.edit_sheet(worksheet="Sheet1", action="rename", title="it's mine")
    assert [["h"]] == opened(sandbox).worksheet("it's mine").get("A2")


def test_quota_is_per_minute(sandbox: Sandbox) -> None:
    """Past the quota there is a 429 in Google's shape, for writes and reads apart."""
    sandbox.set_settings(sheets={"writes_per_minute": 2, "reads_per_minute": 3})
    sheet = opened(sandbox).sheet1
    for _ in range(2):
        sheet.update([["x"]], "A1")
    with pytest.raises(gspread.exceptions.APIError) as caught:
        sheet.update([["x"]], "A1")
    assert (429, "RESOURCE_EXHAUSTED") == code_of(caught)
    assert "Write requests per minute per user" in caught.value.error["message"]
    assert [["x"]] == sheet.get("A1")
    shown = sandbox.sheets()
    assert (2, 3, 1) == (shown["writes"], shown["reads"], shown["throttled"])


def test_quota_and_tokens_follow_the_clock() -> None:
    """After a minute there is quota again, and after its life a token is worth nothing."""
    now = [1000.0]
    with Sandbox(sheets_clock=lambda: now[0]) as sandbox:
        sandbox.set_settings(sheets={"writes_per_minute": 1, "token_expires_in": 3600})
        sheet = opened(sandbox).sheet1
        sheet.update([["x"]], "A1")
        now[0] += 59
        with pytest.raises(gspread.exceptions.APIError, match="Quota exceeded"):
            sheet.update([["x"]], "A1")
        now[0] += 1
        sheet.update([["x"]], "A1")
        now[0] += 3600
        sheet.update([["x"]], "A1")
        assert 2 == sandbox.sheets()["tokens_issued"]


def test_wrong_key_is_refused(sandbox: Sandbox) -> None:
    """A JWT signed by another key than the account's gets no token."""
    stranger = make_service_account(sandbox.url)
    with pytest.raises(google.auth.exceptions.RefreshError, match="invalid_grant"):
        login(sandbox, stranger).open_by_key(sandbox.spreadsheet_id)
    for changed in ({"client_email": "other@sandbox.invalid"},):
        with pytest.raises(google.auth.exceptions.RefreshError, match="invalid_grant"):
            login(sandbox, {**sandbox.service_account(), **changed}).open_by_key(sandbox.spreadsheet_id)
    reply = httpx.post(f"{sandbox.url}/token", data={"grant_type": "password"})
    assert (400, "unsupported_grant_type") == (reply.status_code, reply.json()["error"])


def test_wrong_scope_or_document(sandbox: Sandbox) -> None:
    """403 without the scope, 404 for another document, 401 without a token."""
    with pytest.raises(PermissionError) as forbidden:
        login(sandbox, scope="https://www.googleapis.com/auth/cloud-platform").open_by_key(sandbox.spreadsheet_id)
    assert isinstance(forbidden.value.__cause__, gspread.exceptions.APIError)
    reader = login(sandbox, scope=SCOPE + ".readonly").open_by_key(sandbox.spreadsheet_id)
    with pytest.raises(gspread.exceptions.APIError) as caught:
        reader.sheet1.update([["x"]], "A1")
    assert (403, "PERMISSION_DENIED") == code_of(caught)
    with pytest.raises(gspread.exceptions.SpreadsheetNotFound):
        login(sandbox).open_by_key("other")
    assert 401 == httpx.get(f"{sandbox.url}/v4/spreadsheets/{sandbox.spreadsheet_id}").status_code


def test_an_expired_token_is_renewed(sandbox: Sandbox) -> None:
    """A revoked token gets a 401 on the wire, and google-auth logs in again by itself."""
    sheet = opened(sandbox).sheet1
    issued = sandbox.sheets()["tokens_issued"]
    sandbox.revoke_tokens()
    sheet.update([["x"]], "A1")
    assert sandbox.sheets()["tokens_issued"] == issued + 1  # type: ignore[operator]
    journal: Any = sandbox.requests()
    assert 401 in {entry["status"] for entry in journal["requests"]}


def test_a_hundred_thousand_rows(sandbox: Sandbox) -> None:
    """100,000 rows of 18 cells go in and come out within seconds."""
    log = opened(sandbox).add_worksheet("log", rows=100_001, cols=18)
    row = ["cell with some text"] * 17
    began = time.monotonic()
    for first in range(0, 100_000, 10_000):
        block = [[str(number), *row] for number in range(first, first + 10_000)]
        log.batch_update([{"range": f"A{first + 2}:R{first + 10_001}", "values": block}], raw=True)
    assert ["99999", *row] == log.row_values(100_001)
    assert 10_000 == len(log.get("A90002:R100001"))
    assert time.monotonic() - began < 20
