"""log.csv after a crash or a visitor: what a crash leaves is mended, what was tampered with is found and left alone."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.logs import EXEC_ID, NOON, five_rows, moved, names, no_sync, opened
from tfwatch.ledger.log import LogDamaged, LogPoisoned, Position, PositionMismatch, read_log
from tfwatch.ledger.rows import GENESIS, HEADER, encode


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.csv"


@pytest.fixture
def rows(path: Path) -> list[bytes]:
    """The lines of the log at `path`, header first: it has five rows."""
    return five_rows(path)


# --- torn tails -------------------------------------------------------------------------------------------------------


def test_a_cut_at_any_byte_loses_only_the_torn_row(path: Path, rows: list[bytes]) -> None:
    """Wherever a crash cuts the log, all whole rows stay, the torn one is kept aside, and appending goes on."""
    whole = b"".join(rows)
    ends = [sum(map(len, rows[:n])) for n in range(1, len(rows) + 1)]
    torn_path = path.with_name("torn")
    for size in range(len(HEADER), len(whole) + 1):
        path.write_bytes(whole[:size])
        torn_path.unlink(missing_ok=True)
        kept = max(end for end in ends if end <= size)
        with opened(path, sync=no_sync) as log:
            assert (kept, size - kept) == (log.position.offset, log.cut)
            log.append([moved("next")])
        assert whole[:kept] == path.read_bytes()[:kept]
        assert whole[kept:size] == (torn_path.read_bytes() if torn_path.exists() else b"")
        assert "next" == names(path)[-1]


@pytest.mark.parametrize("zeros", [1, 63, 4096, 500_000])
def test_zeros_after_a_power_cut_are_a_torn_tail(path: Path, rows: list[bytes], zeros: int) -> None:
    """A file that grew before its data came holds zeros: after whole rows, and after every part of a row."""
    whole = b"".join(rows[:-1])
    for part in {0, 1, 30, *range(len(rows[-1]) - 70, len(rows[-1]))}:
        path.write_bytes(whole + rows[-1][:part] + bytes(zeros))
        with opened(path, sync=no_sync) as log:
            assert (len(whole), part + zeros) == (log.position.offset, log.cut)


def test_garbage_lines_at_the_end_are_a_torn_tail(path: Path, rows: list[bytes]) -> None:
    """Bad rows at the very end are cut, also several, also well-formed ones with a chain of their own."""
    stray = encode(moved("x"), seq=9, at=NOON, exec_id=EXEC_ID, previous_chain="0" * 64)[1]
    tail = b"\xff\xfe\r\n" + stray + b"half"
    path.write_bytes(b"".join(rows) + tail)

    with opened(path) as log:
        assert (5, len(tail)) == (log.position.seq, log.cut)
    assert tail == path.with_name("torn").read_bytes()


@pytest.mark.parametrize("tail", [b"x" * (1024 * 1024 + 1), b"x\n" * 1001])
def test_too_much_garbage_is_damage(path: Path, rows: list[bytes], tail: bytes) -> None:
    """More than a crash can tear is not cut away unasked."""
    path.write_bytes(b"".join(rows) + tail)

    with pytest.raises(LogDamaged, match=r"row 6 \(line 7, byte \d+\)"), opened(path):
        pass
    assert b"".join(rows) + tail == path.read_bytes()


def test_a_torn_tail_is_never_overwritten(path: Path, rows: list[bytes]) -> None:
    """What an earlier repair put aside stays there."""
    path.with_name("torn").write_bytes(b"earlier")
    path.write_bytes(b"".join(rows)[:-1])

    with opened(path):
        pass
    assert b"earlier" + rows[-1][:-1] == path.with_name("torn").read_bytes()


def test_the_tail_is_kept_aside_before_it_is_cut(path: Path, rows: list[bytes]) -> None:
    """A repair that can't save the tail doesn't cut it."""
    path.write_bytes(b"".join(rows)[:-1])
    path.with_name("torn").mkdir()

    with pytest.raises(OSError, match="torn"), opened(path):
        pass
    assert b"".join(rows)[:-1] == path.read_bytes()


def test_a_half_made_header_is_made_whole(path: Path) -> None:
    """A log whose creation was torn holds a part of the header and nothing else: it is made anew."""
    for size in range(len(HEADER)):
        path.write_bytes(HEADER[:size])
        with opened(path, sync=no_sync) as log:
            assert Position.start() == log.position
        assert HEADER == path.read_bytes()


@pytest.mark.parametrize("content", [b"seq;at\r\n", HEADER.replace(b"\r\n", b"\n") + b"1,x\n", bytes(50)])
def test_another_header_is_damage(path: Path, content: bytes) -> None:
    """A file that is no log of ours is left alone."""
    path.write_bytes(content)

    with pytest.raises(LogDamaged, match="its header"), opened(path):
        pass
    assert content == path.read_bytes()


# --- tampering --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [0x01, 0x40, 0xFF])
def test_a_changed_byte_is_found(path: Path, rows: list[bytes], flip: int) -> None:
    """No byte of any row but the last can change unnoticed: the row is named and nothing is touched."""
    whole = b"".join(rows)
    for offset in range(len(HEADER), len(whole) - len(rows[-1])):
        changed = bytearray(whole)
        changed[offset] ^= flip
        path.write_bytes(changed)
        row = 1 + sum(offset >= sum(map(len, rows[: n + 1])) for n in range(1, len(rows)))

        with pytest.raises(LogDamaged) as read:
            list(read_log(str(path)))
        with pytest.raises(LogDamaged) as at_open, opened(path, sync=no_sync):
            pass
        assert [row, row] == [read.value.seq, at_open.value.seq]
        assert changed == path.read_bytes()


@pytest.mark.parametrize(
    "order",
    [(2, 3, 4, 5), (1, 3, 4, 5), (1, 2, 3, 5, 4, 5), (2, 1, 3, 4, 5), (1, 2, 4, 3, 5), (1, 1, 2, 3, 4, 5), (1, 4, 5)],
)
def test_removed_added_and_reordered_rows_are_found(path: Path, rows: list[bytes], order: tuple[int, ...]) -> None:
    """Rows can't be taken out, swapped or repeated: the first that doesn't belong is named."""
    path.write_bytes(HEADER + b"".join(rows[n] for n in order))
    expected = next(n for n, row in enumerate(order, 1) if n != row)

    with pytest.raises(LogDamaged, match=f"row {expected} .*tfwatch fsck") as caught, opened(path):
        pass
    assert (expected, expected + 1) == (caught.value.seq, caught.value.line)
    assert HEADER + b"".join(rows[n] for n in order) == path.read_bytes()


def test_an_added_line_is_found(path: Path, rows: list[bytes]) -> None:
    """A blank or foreign line before any row is damage, not a torn tail: a good row follows."""
    for n in range(1, len(rows)):
        for line in (b"\n", b"\r\n", b"a note\n"):
            path.write_bytes(b"".join([*rows[:n], line, *rows[n:]]))
            with pytest.raises(LogDamaged, match=f"row {n} "), opened(path):
                pass


def test_a_forged_row_with_a_right_chain_is_found_by_reading(path: Path, rows: list[bytes]) -> None:
    """Whoever recomputes the chain must still write a row of ours."""
    forged = rows[-1].split(b",")
    forged[4] = b"DONE"
    row = b",".join(forged[:-1])
    chain = hashlib.sha256(rows[-2][-66:-2] + b"\n" + row).hexdigest().encode()
    path.write_bytes(b"".join(rows[:-1]) + row + b"," + chain + b"\r\n")

    with pytest.raises(LogDamaged, match=r"row 5 .*'DONE' is no word"):
        list(read_log(str(path)))
    with pytest.raises(LogDamaged, match=r"row 5 .*'DONE' is no word"), opened(path):
        pass


def test_an_unfinished_line_ends_a_live_reading(path: Path, rows: list[bytes]) -> None:
    """While a daemon writes, a reader stops before the half row; otherwise the half row is damage."""
    path.write_bytes(b"".join(rows)[:-1])

    assert 4 == len(list(read_log(str(path), live=True)))
    with pytest.raises(LogDamaged, match="line end is missing"):
        list(read_log(str(path)))


def test_a_live_reading_still_finds_damage(path: Path, rows: list[bytes]) -> None:
    """Being patient with the last line is no excuse for the ones before it."""
    path.write_bytes(b"".join(rows).replace(b"MOVED", b"moved", 1))

    with pytest.raises(LogDamaged, match="row 1 "):
        list(read_log(str(path), live=True))


# --- the projection's position ----------------------------------------------------------------------------------------


def test_open_verifies_only_from_the_position(path: Path, rows: list[bytes]) -> None:
    """With a position that is found in the log, rows long before it aren't read again."""
    positions = [position for _, position in read_log(str(path))]
    path.write_bytes(b"".join(rows).replace(b",a,", b",b,", 1))

    with opened(path, start=positions[2]) as log:
        assert positions[-1] == log.position
    with pytest.raises(LogDamaged), opened(path):
        pass


@pytest.mark.parametrize(
    "tampered",
    [
        lambda rows: b"".join(rows[:-1]),
        lambda rows: b"".join(rows)[:-1],
        lambda rows: b"".join(rows[:-1]) + rows[-1].replace(b",e,", b",f,"),
        lambda rows: b"".join(rows[:3] + rows[4:]),
        lambda rows: b"".join(rows).replace(b"a", b"aa", 1),
        lambda rows: HEADER,
        lambda rows: b"",
        None,
    ],
)
def test_a_log_that_is_not_the_one_remembered(
    path: Path, rows: list[bytes], tampered: Callable[[list[bytes]], bytes] | None
) -> None:
    """An edited, shortened, replaced or removed log is told apart from a torn one, and nothing is changed."""
    *_, (_, end) = read_log(str(path))
    path.unlink()
    if tampered is not None:
        path.write_bytes(tampered(rows))

    with pytest.raises(PositionMismatch, match=r"log\.csv, row 5 .*tfwatch fsck"), opened(path, start=end):
        pass
    assert tampered is None or tampered(rows) == path.read_bytes()
    assert path.exists() == (tampered is not None)
    assert not path.with_name("torn").exists()


@pytest.mark.parametrize(("offset", "seq"), [(3, 1), (10**12, 5), (300, 0)])
def test_a_position_from_nowhere(path: Path, rows: list[bytes], offset: int, seq: int) -> None:
    """A position that no row of this log ever had is refused."""
    with pytest.raises(LogDamaged), opened(path, start=Position(offset=offset, seq=seq, chain=GENESIS)):
        pass
    assert b"".join(rows) == path.read_bytes()


# --- others at work ---------------------------------------------------------------------------------------------------


def _append_a_line(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"note\r\n")


MEDDLING: dict[str, Callable[[Path], object]] = {
    "removed": lambda path: path.unlink(),
    "replaced": lambda path: path.rename(path.with_name("old")).with_name("log.csv").write_bytes(HEADER),
    "shortened": lambda path: os.truncate(path, path.stat().st_size - 1),
    "lengthened": _append_a_line,
}


@pytest.mark.parametrize("how", MEDDLING)
def test_meddling_with_an_open_log_is_noticed(path: Path, how: str) -> None:
    """A log removed, replaced, cut or written by somebody else is found by a check and by the next append."""
    with opened(path) as log:
        log.append([moved("a")])
        log.check_inode()
        MEDDLING[how](path)
        with pytest.raises(LogDamaged, match="tfwatch fsck"):
            log.check_inode()
        left = path.read_bytes() if path.exists() else None
        with pytest.raises(LogPoisoned, match="tfwatch fsck"):
            log.append([moved("b")])
        assert left == (path.read_bytes() if path.exists() else None)


def test_a_path_of_any_bytes_can_be_named(tmp_path: Path) -> None:
    """A message about a log in a strange folder is still one printable line."""
    folder = tmp_path / os.fsdecode(b"\xff\n")
    folder.mkdir()
    (folder / "log.csv").write_bytes(b"no log\r\n")

    with pytest.raises(LogDamaged) as caught, opened(folder / "log.csv"):
        pass
    assert re.fullmatch(r".*\\xff\\x0a/log\.csv.*", str(caught.value).encode().decode())
