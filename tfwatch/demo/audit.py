"""Did each package end where it should? The folders, the log, the bucket, the sheet and the portal are each asked."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tfwatch.demo.samples import MILESTONES, Sample
from tfwatch.demo.servers import Bucket
from tfwatch.demo.sight import read_rows
from tfwatch.ledger.rows import COLUMNS
from tfwatch.model import DeliveryRecord, Stage
from tfwatch.sandbox.server import Sandbox
from tfwatch.spool.folders import Folders
from tfwatch.spool.names import reason_name

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_PACKAGE: Final = COLUMNS.index("package")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One object as S3 tells of it. `sha256`: from its metadata."""

    key: str
    bytes: int
    sha256: str
    order_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that was seen, each place asked for itself.

    `cells`: the log's rows as a spreadsheet program reads log.csv. `sheet`: worksheet row number → its cells.
    `orders`: the portal's own list.
    """

    places: Mapping[str, tuple[Stage, ...]]
    reasons: frozenset[str]
    rows: Sequence[DeliveryRecord]
    cells: Sequence[Sequence[str]]
    objects: Sequence[Stored]
    sheet: Mapping[int, Sequence[str]]
    orders: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What became of one sample. `problems`: what isn't as it should be, in plain words; empty when all is."""

    sample: Sample
    problems: tuple[str, ...]


def gather(folders: Folders, samples: Sequence[Sample], s3: S3Client, bucket: Bucket, sandbox: Sandbox) -> Evidence:
    """Ask everyone. Raises `tfwatch.ledger.reading.LogDamaged` and boto3's errors."""
    names = [sample.name for sample in samples]
    return Evidence(
        places={name: tuple(stage for stage in Stage if folders.look(stage, name)) for name in names},
        reasons=frozenset(name for name in names if os.path.exists(folders.path(Stage.REJECTED, reason_name(name)))),
        rows=read_rows(folders),
        cells=_cells(folders.log),
        objects=_objects(s3, bucket),
        sheet=_sheet(sandbox),
        orders=sandbox.orders(),
    )


def judge(samples: Sequence[Sample], seen: Evidence) -> list[Finding]:
    """Hold what was seen against what each sample must have come to."""
    return [Finding(sample=sample, problems=tuple(_problems(sample, seen))) for sample in samples]


def strays(samples: Sequence[Sample], seen: Evidence) -> list[str]:
    """What belongs to none of the samples: orders, objects and rows that nobody should have made."""
    names = {sample.name for sample in samples}
    orders = [str(order["id"]) for order in seen.orders if order["filename"] not in names]
    objects = [one.key for one in seen.objects if not any(one.key.endswith(f"-{name}") for name in names)]
    rows = [str(row.seq) for row in seen.rows if row.package and row.package not in names]
    found = (("orders at the portal", orders), ("objects in the bucket", objects), ("rows in log.csv", rows))
    return [f"{what} that belong to no package: {', '.join(which)}" for what, which in found if which]


def _problems(sample: Sample, seen: Evidence) -> list[str]:
    return [
        *_wrong_place(sample, seen),
        *_wrong_log(sample, seen),
        *_wrong_orders(sample, seen),
        *_wrong_backup(sample, seen),
        *_wrong_sheet(sample, seen),
    ]


def _wrong_place(sample: Sample, seen: Evidence) -> list[str]:
    places = seen.places[sample.name]
    problems = []
    if places != (sample.stage,):
        found = " and ".join(f"{place}/" for place in places) or "no folder"
        problems.append(f"lies in {found}, not in {sample.stage}/")
    if (sample.name in seen.reasons) != (sample.stage is Stage.REJECTED):
        problems.append("has a reason file" if sample.name in seen.reasons else "has no reason file beside it")
    return problems


def _wrong_log(sample: Sample, seen: Evidence) -> list[str]:
    events = tuple(row.event for row in seen.rows if row.package == sample.name and row.event in MILESTONES)
    if events == sample.events:
        return []
    return [f"log.csv has {', '.join(events) or 'nothing'} about it, not {', '.join(sample.events)}"]


def _wrong_orders(sample: Sample, seen: Evidence) -> list[str]:
    """Exactly one order for each content that is sent, and none for any other; the portal's books decide."""
    orders = [order for order in seen.orders if order["filename"] == sample.name]
    wanted = 1 if sample.ordered else 0
    if len(orders) != wanted:
        return [f"the portal has {len(orders)} orders for it, not {wanted}"]
    logged = {row.order_id for row in seen.rows if row.package == sample.name and row.order_id}
    if logged != {order["id"] for order in orders}:
        return [f"the portal's order and the log's differ: {', '.join(sorted(logged)) or 'none'}"]
    return [
        f"the portal got other bytes: SHA-256 {order['sha256']}" for order in orders if order["sha256"] != sample.sha256
    ]


def _wrong_backup(sample: Sample, seen: Evidence) -> list[str]:
    objects = [one for one in seen.objects if one.key.endswith(f"/{sample.sha256[:12]}-{sample.name}")]
    wanted = 1 if sample.delivered else 0
    if len(objects) != wanted:
        return [f"the bucket has {len(objects)} objects of it, not {wanted}"]
    return [
        f"{one.key} in the bucket has other content"
        for one in objects
        if (one.bytes, one.sha256) != (len(sample.content), sample.sha256)
    ]


def _wrong_sheet(sample: Sample, seen: Evidence) -> list[str]:
    """Row n of the log stands in row n + 1 of the sheet, below the header, cell for cell."""
    missing = [
        seq
        for seq, row in enumerate(seen.cells, start=1)
        if row[_PACKAGE] == sample.name and list(seen.sheet.get(seq + 1, ())) != list(row)
    ]
    return [f"the sheet doesn't show row {seq} of the log" for seq in missing]


def _cells(log: str) -> list[list[str]]:
    try:
        with open(log, newline="", encoding="utf-8") as file:
            return list(csv.reader(file))[1:]
    except FileNotFoundError:
        return []


def _objects(s3: S3Client, bucket: Bucket) -> list[Stored]:
    listing = s3.list_objects_v2(Bucket=bucket.name)
    found = []
    for one in listing.get("Contents", ()):
        head = s3.head_object(Bucket=bucket.name, Key=one["Key"])
        metadata = head["Metadata"]
        found.append(
            Stored(
                key=one["Key"],
                bytes=head["ContentLength"],
                sha256=metadata.get("sha256", ""),
                order_id=metadata.get("order-id", ""),
            )
        )
    return found


def _sheet(sandbox: Sandbox) -> dict[int, list[str]]:
    worksheets: Any = sandbox.sheets()["worksheets"]
    rows: list[Any] = next((one["values"] for one in worksheets if one["properties"]["title"] == "log"), [])
    return {number: [str(cell) for cell in row[: len(COLUMNS)]] for number, row in enumerate(rows, start=1)}
