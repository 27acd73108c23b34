"""The control API under /_sandbox/: look into the services' own books, and make them misbehave."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tfwatch.sandbox import a1, cells
from tfwatch.sandbox.faults import parse_faults
from tfwatch.sandbox.grid import Spreadsheet, Worksheet
from tfwatch.sandbox.outbound import NotLoopback
from tfwatch.sandbox.services import Services
from tfwatch.sandbox.wire import JSON, TooLarge, problem, read_body

_MAX_BODY = 2**20
_MAX_LISTED = 100_000


class Control:
    """The endpoints. Errors are problem documents: 404 for what isn't there, 422 for what makes no sense."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[Route]:
        """Every endpoint; none of them is ever made to fail."""

        def route(path: str, method: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
            return Route("/_sandbox" + path, _answering(endpoint), methods=[method])

        return [
            route("/orders", "GET", self._orders),
            route("/orders/{order_id}/verdict", "POST", self._verdict),
            route("/requests", "GET", self._requests),
            route("/faults", "GET", self._show_faults),
            route("/faults", "PUT", self._set_faults),
            route("/settings", "GET", self._show_settings),
            route("/settings", "PUT", self._set_settings),
            route("/sheets", "GET", self._sheets),
            route("/sheets/edit", "POST", self._edit),
            route("/service-account", "GET", self._service_account),
            route("/reset", "POST", self._reset),
        ]

    async def _orders(self, request: Request) -> Response:
        offset = int(request.query_params.get("offset", 0))
        limit = min(_MAX_LISTED, int(request.query_params.get("limit", _MAX_LISTED)))
        return JSON({"count": len(self._services.book), "orders": self._services.orders(offset, limit)})

    async def _verdict(self, request: Request) -> Response:
        body = await _object(request)
        order_id = request.path_params["order_id"]
        order = self._services.give_verdict(order_id, str(body["status"]), str(body.get("message", "")))
        return problem(404, "there is no such order") if order is None else JSON(order.as_json())

    async def _requests(self, request: Request) -> Response:
        return JSON(self._services.journal.as_json())

    async def _show_faults(self, request: Request) -> Response:
        return JSON([{**asdict(fault), "hits": hits} for fault, hits in self._services.faults.listing()])

    async def _set_faults(self, request: Request) -> Response:
        self._services.set_faults(parse_faults(await read_body(request, _MAX_BODY)))
        return await self._show_faults(request)

    async def _show_settings(self, request: Request) -> Response:
        return JSON(self._services.settings())

    async def _set_settings(self, request: Request) -> Response:
        self._services.set_settings(await _object(request))
        return JSON(self._services.settings())

    async def _sheets(self, request: Request) -> Response:
        with_values = request.query_params.get("values") != "false"
        return JSON(sheets_as_json(self._services, with_values=with_values))

    async def _edit(self, request: Request) -> Response:
        edit(self._services.spreadsheet(), await _object(request))
        return JSON({"status": "done"})

    async def _service_account(self, request: Request) -> Response:
        return JSON(self._services.tokens.account())

    async def _reset(self, request: Request) -> Response:
        self._services.reset()
        return JSON({"status": "done"})


def sheets_as_json(services: Services, *, with_values: bool = True) -> dict[str, object]:
    """The whole spreadsheet, and how many reads, writes and throttled requests there were.

    A cell taken as a formula is shown as its text, and listed once more under `formulas`.
    """
    book = services.spreadsheet()
    sheets = []
    for index, sheet in enumerate(book.sheets):
        shown: dict[str, object] = {
            "properties": sheet.properties(index),
            "conditionalFormats": sheet.conditional_formats,
            "formulas": [f"{a1.column_letters(column)}{row + 1}" for row, column, _ in sheet.formulas()],
        }
        if with_values:
            rows = sheet.read(0, 0, sheet.used_rows(), sheet.columns)
            shown["values"] = [[cells.shown(cell, "FORMULA") for cell in row] for row in rows]
        sheets.append(shown)
    counts = {name: services.sheets.counts[name] for name in ("reads", "writes", "throttled")}
    return {"spreadsheet_id": book.id, "tokens_issued": services.tokens.issued, **counts, "worksheets": sheets}


def edit(book: Spreadsheet, what: dict[str, Any]) -> None:
    """Do to a worksheet what a person does by hand, without quota or login.

    `worksheet`: its title. `action` is one of: `set` (`range`, `value`, as typed) · `sort` (`column` from 1,
    `descending`, `header_rows` left in place, 1 if not given) · `delete_rows`, `insert_rows` (`first` from 1,
    `count`) · `rename` (`title`). Raises KeyError and ValueError for what makes no sense.
    """
    sheet = book.by_title(what["worksheet"])
    match what["action"]:
        case "set":
            _, span = a1.parse(f"{a1.write(sheet.title, 0, 0, 1, 1).rpartition('!')[0]}!{what['range']}", book.titles())
            sheet.write(span.top, span.left, [[cells.typed(what["value"])]])
        case "sort":
            _sort(sheet, what["column"] - 1, descending=what.get("descending", False), top=what.get("header_rows", 1))
        case "delete_rows":
            sheet.delete_rows(what["first"] - 1, what.get("count", 1))
        case "insert_rows":
            sheet.insert_rows(what["first"] - 1, what.get("count", 1))
        case "rename":
            sheet.title = what["title"]
        case other:
            raise ValueError(f"{other} is not something to do to a sheet")


def _sort(sheet: Worksheet, column: int, *, descending: bool, top: int) -> None:
    sheet.sort(top, 0, sheet.used_rows(), sheet.columns, [(column, descending)])


def _answering(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def answering(request: Request) -> Response:
        try:
            return await endpoint(request)
        except KeyError as error:
            return problem(422, f"missing or unknown: {error}")
        except ValidationError as error:
            return problem(422, str(error.errors(include_input=False, include_url=False, include_context=False)))
        except (TooLarge, NotLoopback, ValueError, TypeError) as error:
            return problem(422, str(error))

    return answering


async def _object(request: Request) -> dict[str, Any]:
    body = json.loads(await read_body(request, _MAX_BODY))
    if not isinstance(body, dict):
        raise TypeError("the body must be a JSON object")
    return body
