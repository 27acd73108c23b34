"""The log in a Google spreadsheet: log row n always has the same place, so writing twice is writing once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

from google.oauth2.service_account import Credentials
from gspread.utils import absolute_range_name, rowcol_to_a1

from tfwatch.adapters.sheets_http import SheetsHTTP
from tfwatch.adapters.sheets_layout import (
    GROWTH,
    ROWS_PER_WORKSHEET,
    Span,
    fitted,
    missing_colours,
    pieces,
    spans,
)
from tfwatch.errors import ServiceError, ServiceFailure, SheetDrift
from tfwatch.language import tr
from tfwatch.ports import Reach, SheetPort

_T = TypeVar("_T")

_SCOPES: Final = ("https://www.googleapis.com/auth/spreadsheets",)
_FIELDS: Final = (
    "sheets(properties(sheetId,title,gridProperties(rowCount,columnCount,frozenRowCount)),"
    "conditionalFormats(ranges,booleanRule(condition)))"
)
_LAST_ROW: Final = ROWS_PER_WORKSHEET + 1
_LOOK_AGAIN_SECONDS: Final = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetsSettings:
    """Which spreadsheet shows the log, and who writes it.

    `service_account_json`: the JSON that Google gave, or the path of a file with it. `worksheet`: the first one's
    name; the next are `log-2`, `log-3`, … `api_base_url` None: Google. `timeout_seconds`: how long to wait for the next
    byte of an answer.
    """

    spreadsheet_id: str
    service_account_json: str = field(repr=False)
    worksheet: str = "log"
    api_base_url: str | None = None
    timeout_seconds: float = 60.0


def connect(
    settings: SheetsSettings,
    *,
    header: Sequence[str],
    clock: Callable[[], float],
    sleep: Callable[[float], object],
) -> SheetPort:
    """A sheet with these columns. Makes no request; raises `ServiceError` for an unreadable service account.

    `clock`: monotonic seconds. `sleep` waits that many for the quota; it may return early when the daemon stops.
    """
    http = SheetsHTTP(
        _credentials(settings.service_account_json),
        base_url=settings.api_base_url,
        timeout_seconds=settings.timeout_seconds,
        clock=clock,
        sleep=sleep,
    )
    return _GoogleSheet(settings, tuple(header), http, clock)


@dataclass(slots=True, kw_only=True)
class _Worksheet:
    """A worksheet as last seen. `ready`: columns, colours and frozen row are as they should be.

    `headed`: so is the header; else it travels with the next rows.
    """

    sheet_id: int
    rows: int
    columns: int
    frozen: bool
    rules: Sequence[dict[str, Any]]
    ready: bool = False
    headed: bool = False


class _GoogleSheet:
    def __init__(
        self, settings: SheetsSettings, header: tuple[str, ...], http: SheetsHTTP, clock: Callable[[], float]
    ) -> None:
        self._id = settings.spreadsheet_id
        self._name = settings.worksheet
        self._header = header
        self._http = http
        self._clock = clock
        self._seen: dict[str, _Worksheet] | None = None
        self._seen_at = 0.0

    def mirror(self, first_seq: int, rows: Sequence[Sequence[str]]) -> None:
        for span in spans(self._name, first_seq, len(rows)):
            skip = span.first_seq - first_seq
            cells = [[fitted(cell) for cell in row] for row in rows[skip : skip + span.count]]
            for offset, piece in pieces(cells):
                self._trusting(partial(self._write, span, span.top + offset, piece))

    def read(self, first_seq: int, count: int) -> Sequence[Sequence[str]]:
        found: list[list[str]] = []
        for span in spans(self._name, first_seq, count):
            found += self._trusting(partial(self._read, span))
        return found

    def probe(self) -> Reach:
        asked_at, proven, failure = datetime.now(UTC), "", None
        try:
            self._http.fetch_sheet_metadata(self._id, {"fields": "properties.title"})
            proven = "the service account may log in and read the spreadsheet; writing shows with the first row"
        except ServiceFailure as error:
            failure = error
        return Reach(
            proven=proven,
            failure=failure,
            date=self._http.date,
            asked_at=asked_at,
            answered_at=datetime.now(UTC),
        )

    def close(self) -> None:
        self._http.session.close()

    # --- cells ------------------------------------------------------------------------------------------------------

    def _write(self, span: Span, top: int, rows: Sequence[Sequence[str]]) -> None:
        last = top + len(rows) - 1
        sheet = self._made_ready(span, last)
        self._make_room(sheet, last)
        data = [self._values(span.title, top, rows)]
        if not sheet.headed:
            data.insert(0, self._values(span.title, 1, [self._header]))
        self._http.values_batch_update(self._id, {"valueInputOption": "RAW", "data": data})
        sheet.headed = True

    def _read(self, span: Span) -> list[list[str]]:
        sheet = self._worksheets().get(span.title)
        last = min(span.top + span.count - 1, sheet.rows if sheet else 0)
        rows = self._values_at(span.title, span.top, last) if span.top <= last else []
        return [*rows, *([[""] * len(self._header)] * (span.count - len(rows)))]

    def _values_at(self, title: str, top: int, last: int) -> list[list[str]]:
        # What was written RAW as text is shown as that text, whatever it looks like.
        where = self._range(title, top, last)
        answer = self._http.values_get(self._id, where, {"valueRenderOption": "FORMATTED_VALUE"})
        width = len(self._header)
        rows = [[*(str(cell) for cell in row), *[""] * (width - len(row))] for row in answer.get("values", [])]
        return [*rows, *([[""] * width] * (last - top + 1 - len(rows)))]

    def _values(self, title: str, top: int, rows: Sequence[Sequence[str]]) -> dict[str, Any]:
        return {"range": self._range(title, top, top + len(rows) - 1), "majorDimension": "ROWS", "values": rows}

    def _range(self, title: str, top: int, last: int) -> str:
        return absolute_range_name(title, f"A{top}:{rowcol_to_a1(last, len(self._header))}")

    # --- worksheets -------------------------------------------------------------------------------------------------

    def _made_ready(self, span: Span, last: int) -> _Worksheet:
        sheet = self._worksheets().get(span.title)
        if sheet is None:
            sheet = self._add(span.title, last)
        elif not sheet.headed:
            sheet.headed = self._is_headed(span)
        if not sheet.ready:
            if changes := self._changes(sheet):
                self._change(changes)
            sheet.ready = True
        return sheet

    def _worksheets(self) -> dict[str, _Worksheet]:
        """By title; asked anew now and then, since people rename and delete worksheets."""
        if self._seen is None or self._clock() - self._seen_at > _LOOK_AGAIN_SECONDS:
            answer = self._http.fetch_sheet_metadata(self._id, {"fields": _FIELDS})
            self._seen = {sheet["properties"]["title"]: _worksheet(sheet) for sheet in answer.get("sheets", [])}
            self._seen_at = self._clock()
        return self._seen

    def _add(self, title: str, last: int) -> _Worksheet:
        rows = min(_LAST_ROW, last + GROWTH)
        grid = {"rowCount": rows, "columnCount": len(self._header), "frozenRowCount": 1}
        answer = self._change([{"addSheet": {"properties": {"title": title, "gridProperties": grid}}}])
        sheet = _worksheet(answer["replies"][0]["addSheet"])
        self._worksheets()[title] = sheet
        return sheet

    def _is_headed(self, span: Span) -> bool:
        """Whether our header is there; False if the first row is free for it. Raises `SheetDrift` for anything else."""
        top, first = self._values_at(span.title, 1, 2)
        if tuple(top) == self._header:
            return True
        first_here = span.first_seq - (span.top - 2)
        if any(top) or (any(first) and first[0] != str(first_here)):
            raise SheetDrift(
                tr(
                    "worksheet {title!r} does not begin with tfwatch's header: it was edited, or is someone else's",
                    title=span.title,
                ),
                rows=(),
                hint=tr(
                    "rename that worksheet; tfwatch then makes a new {title!r} and fills it from log.csv",
                    title=span.title,
                ),
            )
        return False

    def _changes(self, sheet: _Worksheet) -> list[dict[str, Any]]:
        requests: list[dict[str, Any]] = []
        width = len(self._header)
        if sheet.columns < width:
            growth = {"sheetId": sheet.sheet_id, "dimension": "COLUMNS", "length": width - sheet.columns}
            requests.append({"appendDimension": growth})
        if not sheet.frozen:
            properties = {"sheetId": sheet.sheet_id, "gridProperties": {"frozenRowCount": 1}}
            frozen = {"properties": properties, "fields": "gridProperties.frozenRowCount"}
            requests.append({"updateSheetProperties": frozen})
        if "status" in self._header:
            requests += missing_colours(sheet.sheet_id, self._header.index("status"), sheet.rules)
        return requests

    def _make_room(self, sheet: _Worksheet, last: int) -> None:
        if sheet.rows < last:
            rows = min(_LAST_ROW, last + GROWTH)
            growth = {"sheetId": sheet.sheet_id, "dimension": "ROWS", "length": rows - sheet.rows}
            self._change([{"appendDimension": growth}])
            sheet.rows = rows

    def _change(self, requests: Sequence[dict[str, Any]]) -> Any:
        return self._http.batch_update(self._id, {"requests": requests})

    def _trusting(self, act: Callable[[], _T]) -> _T:
        """Act on what was last seen; if Google says it isn't so (400: no such worksheet or row), look and act again."""
        try:
            return act()
        except ServiceError as error:
            if error.code != 400:
                raise
        self._seen = None
        return act()


def _worksheet(sheet: dict[str, Any]) -> _Worksheet:
    properties = sheet["properties"]
    grid = properties.get("gridProperties", {})  # a chart on a sheet of its own has none
    return _Worksheet(
        sheet_id=properties.get("sheetId", 0),
        rows=grid.get("rowCount", 0),
        columns=grid.get("columnCount", 0),
        frozen=grid.get("frozenRowCount", 0) > 0,
        rules=sheet.get("conditionalFormats", []),
    )


class _Login(Credentials):
    """A service account that speaks to its token server and nobody else.

    google-auth 2.5x also asks iamcredentials.googleapis.com, in the background, where requests may go (a "regional
    access boundary"); the sheet needs no such answer, and a sandbox's account must not be shown to Google.
    """

    def before_request(self, request: Any, method: str, url: str, headers: Any) -> None:
        """Log in when the token is no longer good, and add it to the headers."""
        if not self.valid:
            self.refresh(request)  # type: ignore[no-untyped-call]
        self.apply(headers)  # type: ignore[no-untyped-call]


def _credentials(service_account: str) -> Credentials:
    """Raises `ServiceError`; its words hold nothing of the key."""
    hint = tr("give integrations.sheets.service_account_json the JSON that Google gave, or its path")
    try:
        text = service_account if service_account.lstrip().startswith("{") else _read(service_account)
        info = json.loads(text)
        credentials: Credentials = _Login.from_service_account_info(info, scopes=_SCOPES)  # type: ignore[no-untyped-call]
        return credentials
    except OSError as error:
        words = tr("the service account's file can't be read: {error}", error=error.strerror)
        raise ServiceError(words, hint=hint) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ServiceError(tr("the service account isn't a readable key from Google"), hint=hint) from None


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
