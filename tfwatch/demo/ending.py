"""The demo's last page: where everything went, asked of each place, and whether that is right."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tfwatch.demo.audit import Evidence, Finding
from tfwatch.demo.table import COLOURS
from tfwatch.ledger.rows import COLUMNS
from tfwatch.model import Stage, read_detail
from tfwatch.spool.folders import Folders
from tfwatch.spool.names import printable

_STAGES: Final = (Stage.OUTBOX, Stage.SUBMITTED, Stage.DELIVERED, Stage.REJECTED)
_SHEET_COLUMNS: Final = ("event", "package", "status", "order_id")


def show(console: Console, folders: Folders, seen: Evidence, bucket: str) -> None:
    """Folders, log, orders, objects and sheet rows, one after the other."""
    _rule(console, f"Folders: {folders.root}")
    console.print(_tree(folders))
    _rule(console, "log.csv")
    console.print(_log(seen))
    _rule(console, "The portal's orders")
    console.print(_orders(seen))
    _rule(console, f"S3, bucket {bucket}")
    console.print(_objects(seen))
    _rule(console, "The sheet, worksheet log")
    console.print(_sheet(seen))


def show_why(console: Console, name: str, told: str) -> None:
    """What `tfwatch why` says of one package."""
    _rule(console, f"tfwatch why {name}")
    console.print(told.rstrip(), markup=False, highlight=False, soft_wrap=True)


def show_verdict(console: Console, findings: Sequence[Finding], strays: Sequence[str]) -> None:
    """One line for each package: where it is, or what is wrong."""
    _rule(console, "Did each package end where it should?")
    for finding in findings:
        sample = finding.sample
        mark = Text("✗ ", style="red") if finding.problems else Text("✓ ", style="green")
        line = mark.append(f"{sample.name:<20}", style="default").append(f" {sample.stage}/")
        console.print(line.append(f"  {sample.note}", style="dim") if sample.note else line, soft_wrap=True)
        for problem in finding.problems:
            console.print(Text(f"    {problem}", style="red"), soft_wrap=True)
    for stray in strays:
        console.print(Text(f"✗ {stray}", style="red"), soft_wrap=True)


def as_json(findings: Sequence[Finding], strays: Sequence[str], seen: Evidence) -> dict[str, Any]:
    """The same as plain values: `ok`, `packages` (a list), `problems` that belong to none of them."""
    return {
        "ok": not strays and not any(finding.problems for finding in findings),
        "packages": [_package(finding, seen) for finding in findings],
        "problems": list(strays),
    }


def _package(finding: Finding, seen: Evidence) -> dict[str, Any]:
    sample = finding.sample
    log = [row for row in seen.rows if row.package == sample.name]
    return {
        "package": sample.name,
        "sha256": sample.sha256,
        "note": sample.note,
        "expected_stage": sample.stage.value,
        "found_in": [stage.value for stage in seen.places[sample.name]],
        "events": [row.event.value for row in log],
        "orders": [order["id"] for order in seen.orders if order["filename"] == sample.name],
        "objects": [asdict(one) for one in seen.objects if one.key.endswith(f"-{sample.name}")],
        "sheet_rows": [row.seq + 1 for row in log if row.seq + 1 in seen.sheet],
        "problems": list(finding.problems),
    }


# --- the parts ------------------------------------------------------------------------------------------------------


def _rule(console: Console, title: str) -> None:
    console.print()
    console.rule(Text(title, style="bold"), align="left", style="dim")


def _tree(folders: Folders) -> Tree:
    tree = Tree(Text(f"{folders.root}/"), guide_style="dim")
    for stage in _STAGES:
        branch = tree.add(Text(f"{stage}/", style=COLOURS[stage]))
        for name in sorted(os.listdir(folders.folder(stage))):
            branch.add(Text(printable(name), style="dim" if name.endswith(".txt") else "default"))
    tree.add(Text("log.csv"))
    return tree


def _log(seen: Evidence) -> Table:
    table = _plain_table("seq", "event", "package", "from", "to", "status", "order_id", "detail")
    for row in seen.rows:
        facts, message = read_detail(row.detail)
        said = message or facts.get("base_url") or facts.get("word") or facts.get("bucket", "")
        table.add_row(
            str(row.seq),
            row.event.value,
            printable(row.package),
            row.from_stage or "",
            row.to_stage or "",
            row.status.value if row.status else "",
            row.order_id,
            Text(printable(said), overflow="ellipsis", no_wrap=True),
        )
    table.expand = True
    table.columns[-1].ratio = 1
    return table


def _orders(seen: Evidence) -> Table:
    table = _plain_table("order", "package", "version", "status", "trace_id", "requests")
    for order in seen.orders:
        cells = (order[key] for key in ("id", "filename", "version", "status", "trace_id", "requests"))
        table.add_row(*(printable(str(cell)) for cell in cells))
    return table


def _objects(seen: Evidence) -> Table:
    table = _plain_table("key", "bytes", "order-id", "sha256")
    for one in seen.objects:
        table.add_row(printable(one.key), str(one.bytes), one.order_id, f"{one.sha256[:16]}…")
    return table


def _sheet(seen: Evidence) -> Table:
    table = _plain_table("row", *_SHEET_COLUMNS)
    for number, cells in seen.sheet.items():
        if number > 1:
            shown = dict(zip(COLUMNS, cells, strict=False))
            table.add_row(f"log!A{number}", *(printable(shown.get(column, "")) for column in _SHEET_COLUMNS))
    return table


def _plain_table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column != "detail")
    return table
