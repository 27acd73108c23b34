"""The sandbox's Sheets service and login, adapters on it, and rows to write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tfwatch.adapters import sheets
from tfwatch.ports import SheetPort
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import SandboxSettings
from tfwatch.sandbox.settings import SheetsSettings as SandboxSheets

COLUMNS = """\
seq at exec_id trace_id event package sha256 bytes from_stage to_stage attempt order_id status code duration_ms actor
detail chain"""
HEADER = tuple(COLUMNS.split())
EMPTY = [""] * len(HEADER)


@dataclass
class Time:
    """A clock that only sleeping moves."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@dataclass
class Google:
    """The sandbox, and adapters on it."""

    sandbox: Sandbox
    time: Time

    def connect(self, **changes: str) -> SheetPort:
        given = {
            "spreadsheet_id": self.sandbox.spreadsheet_id,
            "service_account_json": json.dumps(self.sandbox.service_account()),
            "api_base_url": self.sandbox.url,
            **changes,
        }
        return sheets.connect(sheets.SheetsSettings(**given), header=HEADER, clock=self.time, sleep=self.time.sleep)

    def worksheet(self, title: str) -> dict:
        return next(sheet for sheet in self.sandbox.sheets()["worksheets"] if sheet["properties"]["title"] == title)

    def calls(self) -> int:
        shown = self.sandbox.sheets()
        return shown["reads"] + shown["writes"]


@contextmanager
def google_sheets(**settings: int) -> Iterator[Google]:
    """A Google whose quota is counted on the clock that the adapter sleeps on. `settings`: the sandbox's own."""
    time = Time()
    with Sandbox(SandboxSettings(sheets=SandboxSheets(**settings)), sheets_clock=time) as sandbox:
        yield Google(sandbox, time)


def row(seq: int, detail: str = "; said \u00e7\u00e3o") -> list[str]:
    return [str(seq), "2025-11-13T10:35:33.120Z", *["x"] * 10, "delivered", "200", "", "tfwatch", detail, "f" * 64]


def rows(first: int, count: int) -> list[list[str]]:
    return [row(seq) for seq in range(first, first + count)]
