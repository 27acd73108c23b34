"""log.csv, changed in any way: what reads it names a broken row, and nothing but that ever goes wrong."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.fuzz.rounds import look_for_a_failure
from tests.support.extent import Extent
from tfwatch.fsck.log_chain import Chain
from tfwatch.ledger.log import Log, Position
from tfwatch.ledger.rows import HEADER, MAX_ROW_BYTES
from tfwatch.model import Event, Fact, Stage, Status, write_detail
from tfwatch.spool.names import printable

NAMES = (
    "42_v1.zip",
    '"a","b".zip',
    "=1+1.zip",
    "a\r\nb.zip",
    "\udcff\udcfe.zip",
    "ação 🎧.zip",
    "\u202egpj.zip",
    "'.zip",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A log as the daemon writes it, of names that are bytes from strangers."""
    path = tmp_path_factory.mktemp("log") / "log.csv"
    log = Log.open(
        str(path), torn_path=str(path) + ".torn", exec_id="20250101T000000Z_FUZZ00",
        clock=lambda: datetime(2025, 1, 1, tzinfo=UTC), on_commit=lambda records, position: None,
    )  # fmt: skip
    with closing(log):
        for number in range(40):
            log.append([_fact(number)])
    return path.read_bytes()


def _fact(number: int) -> Fact:
    return Fact(
        event=Event.ATTEMPTED, package=NAMES[number % len(NAMES)], sha256=f"{number:064x}", trace_id=f"{number:032x}",
        bytes=number, from_stage=Stage.OUTBOX, to_stage=Stage.CLAIMED, attempt=1, status=Status.SENDING,
        detail=write_detail("said: \n", key=f"k{number}", name=NAMES[number % len(NAMES)]),
    )  # fmt: skip


cases = st.tuples(
    st.sampled_from(("flip", "remove", "swap", "copy", "insert", "truncate", "edit", "noise")),
    st.integers(0, 1 << 24), st.integers(0, 1 << 24), st.binary(min_size=1, max_size=200),
)  # fmt: skip


def changed(whole: bytes, kind: str, a: int, b: int, data: bytes) -> bytes:
    lines = whole.splitlines(keepends=True)
    one, other, at = 1 + a % (len(lines) - 1), 1 + b % (len(lines) - 1), a % len(whole)
    match kind:
        case "flip":
            return whole[:at] + bytes([whole[at] ^ 1 << b % 8]) + whole[at + 1 :]
        case "remove":
            del lines[one]
        case "swap":
            lines[one], lines[other] = lines[other], lines[one]
        case "copy":
            lines.insert(one, lines[other])
        case "insert":
            return whole[:at] + data + whole[at:]
        case "truncate":
            return whole[:at]
        case "edit":
            return whole[:at] + data + whole[at + len(data) :]
        case _:
            return HEADER + data * (b % 2000)
    return b"".join(lines)


def test_any_change_is_found(extent: Extent, whole: bytes, tmp_path: Path) -> None:
    """Bits, rows, pieces, noise: the chain breaks at that row or the next, or rows are missing at the end."""
    path, told = tmp_path / "log.csv", Counter[str]()
    lines = whole.splitlines(keepends=True)
    last = Position(offset=len(whole), seq=len(lines) - 1, chain=lines[-1][-66:-2].decode())

    def check(case: tuple[str, int, int, bytes]) -> None:
        content = changed(whole, *case)
        if content == whole:
            return
        path.write_bytes(content)
        chain = Chain(str(path), live=False)
        rows = list(chain.rows())
        assert chain.breaks or chain.end.seq < last.seq or chain.end != last, case
        same = next((n for n, (x, y) in enumerate(zip(content, whole, strict=False)) if x != y), len(content))
        first_changed = whole[:same].count(b"\r\n")
        if chain.breaks:
            assert chain.breaks[0].seq in (first_changed, first_changed + 1), case
            assert all(printable(broken.problem) == broken.problem for broken in chain.breaks), case
        assert len(rows) <= max(0, first_changed), "no row after the change is believed"
        told[case[0]] += 1

    checked = look_for_a_failure(extent, cases, check)
    print(f"\n{checked:,} changed logs, all found: {dict(told)}; seed {extent.seed}; rows of {MAX_ROW_BYTES:,} at most")
    assert {"flip", "remove", "swap", "truncate"} <= told.keys()
