"""Everything the sandbox serves, put together, and what may be done to it from outside."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from tfwatch.sandbox.callbacks import Courier
from tfwatch.sandbox.faults import Fault, Faults
from tfwatch.sandbox.grid import Spreadsheet
from tfwatch.sandbox.journal import Journal
from tfwatch.sandbox.orders import Order, OrderBook
from tfwatch.sandbox.outbound import require_loopback_url
from tfwatch.sandbox.portal import Portal
from tfwatch.sandbox.public_api import PublicApi
from tfwatch.sandbox.settings import SandboxSettings, changed
from tfwatch.sandbox.sheets import SheetsService
from tfwatch.sandbox.tokens import TokenService

_HIDDEN = ("api_key", "callback_secret")


class Services:
    """The portal, the Sheets service and the token endpoint of one sandbox. Belongs to one event loop's thread.

    `sheets_clock`: monotonic seconds, for quotas and tokens. Raises `NotLoopback` for a callback URL elsewhere.
    """

    def __init__(
        self, settings: SandboxSettings, base_url: str, sheets_clock: Callable[[], float] = time.monotonic
    ) -> None:
        if settings.portal.callback_url is not None:
            require_loopback_url(settings.portal.callback_url)
        self._settings = settings
        self.journal = Journal()
        self.faults = Faults(settings.faults, random.Random(settings.seed))  # noqa: S311 - repeatable, not secret
        self.book = OrderBook(settings.portal, time.monotonic)
        self._courier = Courier(self.book, base_url)
        self._portal = Portal(self.book, self._courier)
        self._public_api = PublicApi(self.book, self._courier)
        self.tokens = TokenService(base_url, settings.service_account, self._token_lifetime, sheets_clock)
        self.sheets = SheetsService(settings.sheets, self.tokens, sheets_clock)

    def _token_lifetime(self) -> int:
        return self.sheets.settings.token_expires_in

    def routes(self) -> list[Route]:
        """Every endpoint of the services."""
        faults = self.faults
        return [
            *self._portal.routes(faults),
            *self.sheets.routes(faults),
            *self._public_api.routes(faults),
            *self.tokens.routes(faults),
        ]

    def set_faults(self, faults: Sequence[Fault]) -> None:
        """Put these faults in force instead of the ones before."""
        self.faults.replace(faults)

    def set_settings(self, changes: Mapping[str, Mapping[str, object]]) -> None:
        """Change some settings under `portal` and `sheets`; all or none.

        Raises `pydantic.ValidationError` for unknown keys and bad values, `NotLoopback` for a callback URL elsewhere,
        and ValueError for another section.
        """
        if set(changes) - {"portal", "sheets"}:
            raise ValueError("settings are under `portal` and `sheets`")
        portal = changed(self.book.settings, changes.get("portal", {}))
        sheets = changed(self.sheets.settings, changes.get("sheets", {}))
        if portal.callback_url is not None:
            require_loopback_url(portal.callback_url)
        self.book.settings, self.sheets.settings = portal, sheets
        if "wallet" in changes.get("portal", {}):
            self._public_api.refill()

    def settings(self) -> dict[str, dict[str, Any]]:
        """The settings in force; secrets are only said to be there."""
        portal = asdict(self.book.settings)
        for name in _HIDDEN:
            portal[name] = "<set>" if portal[name] else None
        return {"portal": portal, "sheets": asdict(self.sheets.settings)}

    def orders(self, offset: int = 0, limit: int = 100_000) -> list[dict[str, object]]:
        """The portal's own list, in the sequence the orders were opened."""
        return [order.as_json() for order in self.book.listing(offset, limit)]

    def give_verdict(self, order_id: str, word: str, message: str = "") -> Order | None:
        """Settle an order now and tell the client; None if there is no such order."""
        order = self.book.give_verdict(order_id, word, message)
        if order is not None:
            self._courier.tell(order)
        return order

    def spreadsheet(self) -> Spreadsheet:
        """The one spreadsheet."""
        return self.sheets.book

    def reset(self) -> None:
        """Back to how it was at the start: no orders, no requests, an empty sheet, first settings and faults."""
        self.book.settings, self.sheets.settings = self._settings.portal, self._settings.sheets
        self.book.clear()
        self._portal.keys.clear()
        self._public_api.refill()
        self.sheets.reset()
        self.journal.clear()
        self.faults.replace(self._settings.faults)


class Application:
    """The ASGI application: notes each request and its answer; a client that leaves early is nothing unusual."""

    def __init__(self, routes: Sequence[Route], journal: Journal) -> None:
        self._router = Router(routes, redirect_slashes=False)
        self._journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        entry = self._journal.open(scope)

        async def noting(message: Message) -> None:
            if entry is not None and message["type"] == "http.response.start":
                entry.status = message["status"]
            await send(message)

        try:
            await self._router(scope, receive, noting)
        except (ClientDisconnect, asyncio.CancelledError):
            pass  # a task is cancelled only once the sandbox stops and has closed the connection
        finally:
            if entry is not None:
                self._journal.close(entry)
