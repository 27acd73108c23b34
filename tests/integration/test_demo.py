"""The demo as people start it, and the judge that decides about its exit code."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.support.daemon import make_zip, wait_until
from tfwatch.demo.audit import Evidence, Stored, judge, strays
from tfwatch.demo.samples import Sample, samples
from tfwatch.ledger.rows import COLUMNS
from tfwatch.model import DeliveryRecord, Event, Fact, Stage

ALL = {sample.name: sample for sample in samples()}
DELIVERED, REFUSED, BROKEN = (ALL[name] for name in ("podcast-042_v2.zip", "reject-ruido_v1.zip", "entrevista_v1.zip"))


# --- the real thing ---------------------------------------------------------------------------------------------------


@contextmanager
def demo(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`tfwatch demo` in a process of its own; its temporary files lie in `folder`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tfwatch", "demo", *words],
        env=os.environ | {"TMPDIR": str(folder), "GOTRANSCRIPT_BASE_URL": "http://192.0.2.1/never"},
        stdout=subprocess.PIPE, stderr=(folder.parent / "err").open("w"), text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for left in running_in(folder):
            left.kill()


def running_in(folder: Path) -> list[psutil.Process]:
    """Processes that were started with a path below `folder`."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or ())
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Long: a Unix socket's whole path would not fit below it (107 bytes)."""
    made = tmp_path / ("t" * 100)
    made.mkdir()
    return made


def test_each_package_ends_where_it_should_and_one_can_go_on_playing(folder: Path) -> None:
    """The document says so, another ZIP is delivered and shown while it is kept; after Ctrl-C only folders are left."""
    with demo(folder, "--keep", "--json") as running:
        document = read_document(running)
        assert document["ok"], json.dumps(document, indent=1) + (folder.parent / "err").read_text()
        assert list(ALL) == [one["package"] for one in document["packages"]]
        assert [[one["expected_stage"]] for one in document["packages"]] == [
            one["found_in"] for one in document["packages"]
        ]
        spool = next(folder.glob("tfwatch-demo-*")) / "spool"
        make_zip(folder / "played.part").rename(spool / "outbox" / "played_v1.zip")
        wait_until((spool / "delivered" / "played_v1.zip").exists, "played_v1.zip in delivered/")
        assert "played_v1.zip" in read_page(folder.parent / "err", "why?q=played_v1.zip")
        assert BROKEN.name in read_page(folder.parent / "err")
        running.send_signal(signal.SIGINT)
        assert 0 == running.wait(30)
    assert [] == running_in(folder)
    assert (spool / "delivered" / "played_v1.zip").exists()


def read_document(running: subprocess.Popen[str]) -> Any:
    """The JSON on stdout, which stays open afterwards."""
    assert running.stdout is not None
    text = ""
    for line in running.stdout:
        text += line
        if line == "}\n":
            return json.loads(text)
    raise AssertionError(f"the demo ended without a document: {text}")


def read_page(said: Path, word: str = "") -> str:
    """What a browser gets below the address that the demo names."""
    found = re.search(r"status page +(http://\S+/)$", said.read_text(), re.MULTILINE)
    assert found is not None
    answer = httpx.get(found[1] + word)
    assert 200 == answer.status_code
    return answer.text


def test_nothing_is_left_when_it_is_stopped_halfway(folder: Path) -> None:
    """SIGTERM in the middle: exit 130, no process, no folder."""
    with demo(folder) as running:
        wait_until(lambda: running_in(folder), "its servers run")
        running.send_signal(signal.SIGTERM)
        assert 130 == running.wait(30)
        assert [] == running_in(folder)
        assert [] == list(folder.iterdir())


# --- the samples ------------------------------------------------------------------------------------------------------


def test_samples_are_packages_as_transcribeflow_builds_them() -> None:
    """Named `{job}_v{version}.zip`, four members in a folder named like the job, a trace id; one alone is damaged."""
    for sample in ALL.values():
        with zipfile.ZipFile(io.BytesIO(sample.content)) as archive:
            job = archive.namelist()[0].partition("/")[0]
            members = {
                f"{job}/{name}" for name in ("transcript.txt", "manifest.json", "segments.json", "subtitles.srt")
            }
            assert members == set(archive.namelist())
            assert sample.name.startswith(f"{job}_v")
            assert 32 == len(json.loads(archive.read(f"{job}/manifest.json"))["trace_id"])
            assert (sample is BROKEN) == (archive.testzip() is not None)


# --- the judge --------------------------------------------------------------------------------------------------------


def all_well() -> Evidence:
    """What is seen when each sample ended where it should."""
    rows: list[DeliveryRecord] = []
    for sample in ALL.values():
        order = f"dlv_{sample.name}" if sample.ordered else ""
        for event in sample.events:
            fact = Fact(event=event, package=sample.name, sha256=sample.sha256, order_id=order)
            rows.append(DeliveryRecord(**_fields(fact), seq=len(rows) + 1, at=None, exec_id="x", chain="c"))  # type: ignore[arg-type]
    cells = [[row.package if column == "package" else str(row.seq) for column in COLUMNS] for row in rows]
    return Evidence(
        places={sample.name: (sample.stage,) for sample in ALL.values()},
        reasons=frozenset(sample.name for sample in ALL.values() if sample.stage is Stage.REJECTED),
        rows=rows,
        cells=cells,
        objects=[stored(sample) for sample in ALL.values() if sample.delivered],
        sheet={1: list(COLUMNS)} | dict(enumerate(cells, start=2)),
        orders=[order_of(sample) for sample in ALL.values() if sample.ordered],
    )


def _fields(fact: Fact) -> dict[str, Any]:
    return {name: getattr(fact, name) for name in Fact.__dataclass_fields__}


def stored(sample: Sample) -> Stored:
    key = f"2025/11/13/{sample.sha256[:12]}-{sample.name}"
    return Stored(key=key, bytes=len(sample.content), sha256=sample.sha256, order_id="")


def order_of(sample: Sample) -> dict[str, str]:
    return {"id": f"dlv_{sample.name}", "filename": sample.name, "sha256": sample.sha256}


def spoilt(sample: Sample, seen: Evidence) -> list[str]:
    """What the judge has against this one sample; against the others it must have nothing."""
    findings = {finding.sample.name: finding.problems for finding in judge(list(ALL.values()), seen)}
    problems = findings.pop(sample.name)
    assert not any(findings.values())
    return list(problems)


def test_the_judge_has_nothing_to_say_when_all_is_well() -> None:
    """No problems and no strays."""
    seen = all_well()
    assert [] == spoilt(DELIVERED, seen)
    assert [] == strays(list(ALL.values()), seen)


@pytest.mark.parametrize("place", [(), (Stage.SUBMITTED,), (Stage.DELIVERED, Stage.OUTBOX)])
def test_the_judge_sees_a_file_in_a_wrong_folder(place: tuple[Stage, ...]) -> None:
    """Nowhere, elsewhere, or in two places at once."""
    seen = all_well()
    assert spoilt(DELIVERED, replace(seen, places={**seen.places, DELIVERED.name: place}))


def test_the_judge_sees_a_missing_reason_file() -> None:
    """A rejected package without a word why has not ended well."""
    seen = all_well()
    assert spoilt(BROKEN, replace(seen, reasons=seen.reasons - {BROKEN.name}))


def test_the_judge_sees_a_wrong_log() -> None:
    """A milestone too few."""
    seen = all_well()
    rows = [row for row in seen.rows if (row.package, row.event) != (DELIVERED.name, Event.COMPLETED)]
    assert spoilt(DELIVERED, replace(seen, rows=rows))


@pytest.mark.parametrize("sample", [DELIVERED, REFUSED, BROKEN], ids=lambda sample: sample.name)
def test_the_judge_sees_an_order_too_many(sample: Sample) -> None:
    """Two orders for one package, or one for a package that must not be sent."""
    seen = all_well()
    assert spoilt(sample, replace(seen, orders=[*seen.orders, order_of(sample)]))


def test_the_judge_sees_missing_and_wrong_orders() -> None:
    """No order, one the log doesn't know, and one for other bytes."""
    seen = all_well()
    others = [order for order in seen.orders if order["filename"] != DELIVERED.name]
    assert spoilt(DELIVERED, replace(seen, orders=others))
    for change in ({"id": "dlv_other"}, {"sha256": "0" * 64}):
        assert spoilt(DELIVERED, replace(seen, orders=[*others, order_of(DELIVERED) | change]))


def test_the_judge_sees_missing_wrong_and_needless_backups() -> None:
    """No object, one with other content, and one of a package that was refused."""
    seen = all_well()
    others = [one for one in seen.objects if DELIVERED.name not in one.key]
    assert spoilt(DELIVERED, replace(seen, objects=others))
    assert spoilt(DELIVERED, replace(seen, objects=[*others, replace(stored(DELIVERED), bytes=1)]))
    assert spoilt(REFUSED, replace(seen, objects=[*seen.objects, stored(REFUSED)]))


def test_the_judge_sees_a_row_that_the_sheet_lacks_or_shows_otherwise() -> None:
    """Log row n stands in sheet row n + 1, cell for cell."""
    seen = all_well()
    number = next(n for n, row in seen.sheet.items() if DELIVERED.name in row)
    without = {n: row for n, row in seen.sheet.items() if n != number}
    assert spoilt(DELIVERED, replace(seen, sheet=without))
    assert spoilt(DELIVERED, replace(seen, sheet=without | {number: ["edited", *seen.sheet[number][1:]]}))


def test_strays_are_named() -> None:
    """Orders and objects of no sample are told of, whoever made them."""
    seen = all_well()
    other = replace(DELIVERED, name="other.zip")
    found = strays(
        list(ALL.values()),
        replace(seen, orders=[*seen.orders, order_of(other)], objects=[*seen.objects, stored(other)]),
    )
    assert ["orders", "objects"] == [words.split()[0] for words in found]
