"""The Sheets v4 service: login, quota and errors as Google does them, in front of spreadsheets in memory."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tfwatch.sandbox import fieldmask, sheet_batch
from tfwatch.sandbox.faults import Faults, Target
from tfwatch.sandbox.grid import Spreadsheet
from tfwatch.sandbox.settings import SheetsSettings
from tfwatch.sandbox.sheet_values import Values
from tfwatch.sandbox.tokens import TokenService
from tfwatch.sandbox.wire import JSON, TooLarge, read_body

MAX_BODY = 32 * 2**20
_WINDOW_SECONDS = 60.0
_AUTH = "https://www.googleapis.com/auth/"
_WRITE_SCOPES = {_AUTH + "spreadsheets", _AUTH + "drive", _AUTH + "drive.file"}
_READ_SCOPES = _WRITE_SCOPES | {_AUTH + "spreadsheets.readonly", _AUTH + "drive.readonly"}
_STATUS_WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class Use(StrEnum):
    """What a request counts as against the quota."""

    READ = "Read"
    WRITE = "Write"


class GoogleError(Exception):
    """The service's answer is an error of this HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class SheetsService:
    """One spreadsheet behind Google's REST interface. `clock`: monotonic seconds, for the quota."""

    def __init__(self, settings: SheetsSettings, tokens: TokenService, clock: Callable[[], float]) -> None:
        self.settings = settings
        self._tokens = tokens
        self._clock = clock
        self._spent: dict[tuple[str, Use], deque[float]] = {}
        self.counts: Counter[str] = Counter()
        self.book = self._new_book()

    def reset(self) -> None:
        """An empty spreadsheet, an unused quota, counters at zero."""
        self.book = self._new_book()
        self._spent.clear()
        self.counts.clear()

    def _new_book(self) -> Spreadsheet:
        return Spreadsheet(self.settings.spreadsheet_id, self.settings.title, self.settings.max_cells)

    def routes(self, faults: Faults) -> list[Route]:
        """The endpoints, made to fail as told."""
        root = "/v4/spreadsheets/{id}"

        def route(path: str, method: str, use: Use, action: _Action) -> Route:
            endpoint = faults.guard(Target.SHEETS, self._serving(use, action), google_error)
            return Route(root + path, endpoint, methods=[method])

        return [
            route("/values:batchUpdate", "POST", Use.WRITE, self._values_batch_update),
            route("/values:batchClear", "POST", Use.WRITE, self._values_batch_clear),
            route("/values:batchGet", "GET", Use.READ, self._values_batch_get),
            route("/values/{range:path}:append", "POST", Use.WRITE, self._values_append),
            route("/values/{range:path}:clear", "POST", Use.WRITE, self._values_clear),
            route("/values/{range:path}", "PUT", Use.WRITE, self._values_update),
            route("/values/{range:path}", "GET", Use.READ, self._values_get),
            route(":batchUpdate", "POST", Use.WRITE, self._batch_update),
            route("", "GET", Use.READ, self._metadata),
        ]

    def _serving(self, use: Use, action: _Action) -> Callable[[Request], Awaitable[Response]]:
        async def serving(request: Request) -> Response:
            try:
                raw = await read_body(request, MAX_BODY)
                self._admit(request, use)
                return JSON(action(Values(self.book), request, _json_object(raw)))
            except TooLarge as error:
                return google_error(413, str(error))
            except GoogleError as error:
                return google_error(error.code, error.message)
            except (sheet_batch.BadRequest, ValueError) as error:
                return google_error(400, str(error))

        return serving

    def _admit(self, request: Request, use: Use) -> None:
        grant = self._tokens.grant(request.headers.get("authorization", ""))
        if grant is None:
            raise GoogleError(
                401,
                "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other "
                "valid authentication credential.",
            )
        if not grant.scopes & (_WRITE_SCOPES if use is Use.WRITE else _READ_SCOPES):
            raise GoogleError(403, "Request had insufficient authentication scopes.")
        self._spend(grant.email, use)
        if request.path_params["id"] != self.book.id:
            raise GoogleError(404, "Requested entity was not found.")

    def _spend(self, user: str, use: Use) -> None:
        limit = self.settings.writes_per_minute if use is Use.WRITE else self.settings.reads_per_minute
        now = self._clock()
        spent = self._spent.setdefault((user, use), deque())
        while spent and spent[0] <= now - _WINDOW_SECONDS:
            spent.popleft()
        if len(spent) >= limit:
            self.counts["throttled"] += 1
            raise GoogleError(
                429,
                f"Quota exceeded for quota metric '{use} requests' and limit '{use} requests per minute per user' of "
                "service 'sheets.googleapis.com' for consumer 'project_number:1'.",
            )
        spent.append(now)
        self.counts["writes" if use is Use.WRITE else "reads"] += 1

    def _metadata(self, values: Values, request: Request, body: dict[str, Any]) -> object:
        if request.query_params.get("includeGridData") == "true":
            raise GoogleError(400, "The sandbox serves no grid data here; use values.get.")
        metadata = self.book.metadata()
        fields = request.query_params.get("fields")
        return fieldmask.select(metadata, fieldmask.parse(fields)) if fields else metadata

    def _batch_update(self, values: Values, request: Request, body: dict[str, Any]) -> object:
        requests = body.get("requests")
        if not isinstance(requests, list) or not requests:
            raise GoogleError(400, "Must specify at least one request.")
        return {"spreadsheetId": self.book.id, "replies": sheet_batch.apply(self.book, requests)}

    def _values_get(self, values: Values, request: Request, body: dict[str, Any]) -> object:
        return values.get(request.path_params["range"], **_render(request))

    def _values_batch_get(self, values: Values, request: Request, body: dict[str, Any]) -> object:
        ranges = request.query_params.getlist("ranges")
        got = [values.get(text, **_render(request)) for text in ranges]
        return {"spreadsheetId": self.book.id, "valueRanges": got}

    def _values_update(self, values: Values, request: Request, body: dict[str, Any]) -> object:
        option = request.query_params.get("valueInputOption")
        (reply,) = values.update([{"range": request.path_params["range"], **body}], option, prefix=False)
        return reply

    def _values_batch_update(self, values: Values, request: Request, body: dict[str, Any]) -> object:
        return values.batch_update(body.get("data", []), body.get("valueInputOption"))

    def _values_append(self, values: Values, request: Request, body: dict[str, Any]) -> object:
        return values.append(request.path_params["range"], body, request.query_params.get("valueInputOption"))

    def _values_clear(self, values: Values, request: Request, body: dict[str, Any]) -> object:
        (cleared,) = values.clear([request.path_params["range"]])
        return {"spreadsheetId": self.book.id, "clearedRange": cleared}

    def _values_batch_clear(self, values: Values, request: Request, body: dict[str, Any]) -> object:
        return {"spreadsheetId": self.book.id, "clearedRanges": values.clear(body.get("ranges", []))}


_Action = Callable[[Values, Request, dict[str, Any]], object]


def google_error(code: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error as Google's APIs shape it."""
    error = {"code": code, "message": message, "status": _STATUS_WORDS.get(code, "UNKNOWN")}
    return JSON({"error": error}, status_code=code, headers=headers)


def _render(request: Request) -> dict[str, str]:
    return {
        "major": request.query_params.get("majorDimension", "ROWS"),
        "render": request.query_params.get("valueRenderOption", "FORMATTED_VALUE"),
    }


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw or b"{}")
    except ValueError as error:
        raise GoogleError(400, "Invalid JSON payload received.") from error
    if not isinstance(body, dict):
        raise GoogleError(400, "Invalid JSON payload received. The body must be an object.")
    return body
