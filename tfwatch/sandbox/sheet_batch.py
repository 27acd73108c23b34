"""`spreadsheets.batchUpdate`: changes to the sheets themselves, all of one request or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfwatch.sandbox.grid import DEFAULT_COLUMNS, DEFAULT_ROWS, GridFull, Spreadsheet, Worksheet

Json = dict[str, Any]


class BadRequest(Exception):
    """The request makes no sense to the service: 400 INVALID_ARGUMENT with this message."""


def apply(book: Spreadsheet, requests: list[Json]) -> list[Json]:
    """Carry out the requests in turn and return a reply for each. On `BadRequest` nothing has changed."""
    before = book.sheets
    book.sheets = [sheet.copy() for sheet in before]
    replies = []
    try:
        for number, request in enumerate(requests):
            replies.append(_apply_one(book, number, request))
    except BadRequest:
        book.sheets = before
        raise
    return replies


def _apply_one(book: Spreadsheet, number: int, request: Json) -> Json:
    if len(request) != 1:
        raise BadRequest(f"Invalid value at 'requests[{number}]': exactly one kind of request must be set.")
    ((kind, arguments),) = request.items()
    handler = _HANDLERS.get(kind)
    if handler is None:
        raise BadRequest(
            f"Invalid JSON payload received. Unknown name \"{kind}\" at 'requests[{number}]': Cannot find field."
        )
    try:
        reply = handler(book, arguments)
        book.check_size()
    except (BadRequest, GridFull) as error:
        raise BadRequest(f"Invalid requests[{number}].{kind}: {error}") from error
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise BadRequest(f"Invalid requests[{number}].{kind}: missing or malformed field ({error})") from error
    return reply


def _sheet(book: Spreadsheet, sheet_id: int) -> Worksheet:
    try:
        return book.by_id(sheet_id)
    except KeyError:
        raise BadRequest(f"No grid with id: {sheet_id}") from None


def _add_sheet(book: Spreadsheet, arguments: Json) -> Json:
    properties = arguments.get("properties", {})
    ids = {sheet.sheet_id for sheet in book.sheets}
    sheet_id = properties.get("sheetId", max(ids) + 1_000_003)
    if sheet_id in ids:
        raise BadRequest(f"Sheet with id {sheet_id} already exists.")
    title = properties.get("title", f"Sheet{len(book.sheets) + 1}")
    _check_title(book, title)
    grid = properties.get("gridProperties", {})
    sheet = Worksheet(sheet_id, title, grid.get("rowCount", DEFAULT_ROWS), grid.get("columnCount", DEFAULT_COLUMNS))
    sheet.frozen_rows = grid.get("frozenRowCount", 0)
    sheet.frozen_columns = grid.get("frozenColumnCount", 0)
    book.sheets.insert(properties.get("index", len(book.sheets)), sheet)
    return {"addSheet": {"properties": sheet.properties(book.sheets.index(sheet))}}


def _check_title(book: Spreadsheet, title: str) -> None:
    if title.casefold() in (taken.casefold() for taken in book.titles()):
        raise BadRequest(f'A sheet with the name "{title}" already exists. Please enter another name.')


def _delete_sheet(book: Spreadsheet, arguments: Json) -> Json:
    sheet = _sheet(book, arguments["sheetId"])
    if len(book.sheets) == 1:
        raise BadRequest("You can't remove all the sheets in a document.")
    book.sheets.remove(sheet)
    return {}


def _update_sheet_properties(book: Spreadsheet, arguments: Json) -> Json:
    properties = arguments["properties"]
    sheet = _sheet(book, properties.get("sheetId", 0))
    fields = {name.strip().replace("/", ".") for name in arguments["fields"].split(",")}
    if "*" in fields:
        raise BadRequest("the sandbox takes named fields only")
    grid = properties.get("gridProperties", {})
    for field in sorted(fields):
        _update_field(book, sheet, field, properties, grid)
    return {}


def _update_field(book: Spreadsheet, sheet: Worksheet, field: str, properties: Json, grid: Json) -> None:
    match field.removeprefix("gridProperties."):
        case "title":
            if properties["title"] != sheet.title:
                _check_title(book, properties["title"])
            sheet.title = properties["title"]
        case "index":
            book.sheets.remove(sheet)
            book.sheets.insert(properties["index"], sheet)
        case "rowCount":
            _resize(sheet, grid["rowCount"], sheet.columns)
        case "columnCount":
            _resize(sheet, sheet.rows, grid["columnCount"])
        case "frozenRowCount":
            sheet.frozen_rows = grid.get("frozenRowCount", 0)
        case "frozenColumnCount":
            sheet.frozen_columns = grid.get("frozenColumnCount", 0)
        case "gridProperties":
            _resize(sheet, grid.get("rowCount", sheet.rows), grid.get("columnCount", sheet.columns))
            sheet.frozen_rows = grid.get("frozenRowCount", 0)
            sheet.frozen_columns = grid.get("frozenColumnCount", 0)
        case "hidden" | "tabColor" | "tabColorStyle" | "rightToLeft" | "hideGridlines":
            pass  # looks only
        case _:
            raise BadRequest(f"Invalid field: {field}")


def _resize(sheet: Worksheet, rows: int, columns: int) -> None:
    if rows < 1 or columns < 1:
        raise BadRequest("You can't delete all the rows or columns on the sheet.")
    sheet.resize(rows, columns)


def _append_dimension(book: Spreadsheet, arguments: Json) -> Json:
    sheet = _sheet(book, arguments.get("sheetId", 0))
    length = arguments["length"]
    if length < 1:
        raise BadRequest("length must be greater than 0")
    if arguments["dimension"] == "ROWS":
        sheet.resize(sheet.rows + length, sheet.columns)
    else:
        sheet.resize(sheet.rows, sheet.columns + length)
    return {}


def _add_conditional_format(book: Spreadsheet, arguments: Json) -> Json:
    rule = arguments["rule"]
    sheet = _sheet(book, rule["ranges"][0].get("sheetId", 0))
    if not {"booleanRule", "gradientRule"} & set(rule):
        raise BadRequest("A conditional format rule must have a booleanRule or a gradientRule.")
    index = arguments.get("index", 0)
    if not 0 <= index <= len(sheet.conditional_formats):
        raise BadRequest(f"No conditional format on sheet: {sheet.sheet_id} at index: {index}")
    sheet.conditional_formats.insert(index, rule)
    return {}


def _delete_conditional_format(book: Spreadsheet, arguments: Json) -> Json:
    sheet = _sheet(book, arguments.get("sheetId", 0))
    index = arguments.get("index", 0)
    if not 0 <= index < len(sheet.conditional_formats):
        raise BadRequest(f"No conditional format on sheet: {sheet.sheet_id} at index: {index}")
    return {"deleteConditionalFormatRule": {"rule": sheet.conditional_formats.pop(index)}}


def _sort_range(book: Spreadsheet, arguments: Json) -> Json:
    area = arguments["range"]
    sheet = _sheet(book, area.get("sheetId", 0))
    keys = [(spec.get("dimensionIndex", 0), spec.get("sortOrder") == "DESCENDING") for spec in arguments["sortSpecs"]]
    bottom = min(area.get("endRowIndex", sheet.rows), sheet.used_rows())
    right = min(area.get("endColumnIndex", sheet.columns), sheet.columns)
    left = area.get("startColumnIndex", 0)
    if any(not left <= column < right for column, _ in keys):
        raise BadRequest("Cannot sort by a column outside of the range.")
    sheet.sort(area.get("startRowIndex", 0), left, bottom, right, keys)
    return {}


def _looks_only(book: Spreadsheet, arguments: Json) -> Json:
    """Formats and widths: checked for an existing sheet, not kept."""
    area = arguments["range"]
    _sheet(book, area.get("sheetId", 0))
    if "fields" not in arguments:
        raise BadRequest("At least one field must be listed in 'fields'.")
    return {}


_HANDLERS: dict[str, Callable[[Spreadsheet, Json], Json]] = {
    "addSheet": _add_sheet,
    "deleteSheet": _delete_sheet,
    "updateSheetProperties": _update_sheet_properties,
    "appendDimension": _append_dimension,
    "addConditionalFormatRule": _add_conditional_format,
    "deleteConditionalFormatRule": _delete_conditional_format,
    "sortRange": _sort_range,
    "repeatCell": _looks_only,
    "updateDimensionProperties": _looks_only,
}
