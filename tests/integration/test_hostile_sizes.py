"""Files of sizes, times and kinds that no honest program makes: bounded work for us, no harm to anybody's package."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from tests.support.daemon import Spool, make_zip, wait_until, zip_bytes
from tests.support.host import without_power
from tests.support.portal import ordered
from tests.support.stranger import assert_alive, heard, stranger
from tfwatch.sandbox.server import Sandbox

pytestmark = pytest.mark.root


# --- files that are larger than anything ------------------------------------------------------------------------------

TIB = 1 << 40


def whole_zip_of_1_tib(path: Path) -> None:
    """A sound ZIP structure around a hole: a few KiB on disk."""
    small = zip_bytes(seed=1)
    end = small.index(b"PK\5\6")
    directory_at = struct.unpack_from("<L", small, end + 16)[0]
    directory = small[directory_at:end]
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(directory), TIB)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, TIB + len(directory), 1)
    with path.open("wb") as file:
        file.write(small[:directory_at])
        file.seek(TIB)
        file.write(directory + record + locator)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(directory), 0xFFFFFFFF, 0))


def nothing_of_1_tib(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(TIB)


def test_huge_files_full_of_holes_hold_nobody_up(sandbox: Sandbox, spool: Spool, outbox: Path) -> None:
    """More of them than there are lanes, finished or not: each stays in the outbox, is reported, and costs no time."""
    spool.configure(spool={"incomplete_timeout_seconds": 1})
    spool.start()
    names = {f"{kind}-{n}.zip" for n in range(10) for kind in ("whole", "empty")}
    for name in names:
        (whole_zip_of_1_tib if name.startswith("whole") else nothing_of_1_tib)(spool.home / "ready")
        (spool.home / "ready").rename(outbox / name)
    assert_alive(spool)
    wait_until(
        lambda: all(any(name in text for text in spool.state()["problems"]) for name in names), "all are reported"
    )
    assert names == spool.names("outbox")
    assert 1 == ordered(sandbox).total()
    assert set() == spool.names("rejected") | spool.claimed()
    assert "intake.max_bytes" in spool.cli("status").stdout
    assert 0 == spool.stop()


TIMES = {"1901": -2_147_483_648, "1969": -1, "1970": 0, "2038": 2_147_483_648, "2446": 15_032_385_535}
"""Seconds since 1970 that ext4 can hold at most, and what is odd on the way."""


def test_times_that_no_clock_shows(sandbox: Sandbox, spool: Spool, outbox: Path) -> None:
    """A file from 1901 or 2446 is sent like any other, and every command can still tell of it."""
    for n, (year, moment) in enumerate(TIMES.items()):
        os.utime(make_zip(outbox / f"{year}.zip", seed=n), (moment, moment))
    spool.configure(integrations={"gotranscript": {"enabled": False}})
    spool.start()
    spool.wait_for_state(lambda state: state["stages"]["outbox"] == len(TIMES), "all are seen")
    for words in (["status"], ["status", "--json"], ["why", "1901.zip"], ["fsck"]):
        done = spool.cli(*words)
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
    spool.configure(integrations={"gotranscript": {"enabled": True}})
    spool.wait_for("delivered", *(f"{year}.zip" for year in TIMES))
    assert len(TIMES) == ordered(sandbox).total()


GROWER = """
fd = os.open("growing.zip", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
os.write(fd, bytes.fromhex(sys.argv[1]))
os.close(fd)
say("begun")
while True:
    # Never open when it is looked at for long, never whole, never still.
    with open("growing.zip", "ab") as file:
        file.write(b"more" * 100)
    time.sleep(0.05)
"""


def test_a_file_that_grows_for_ever(sandbox: Sandbox, spool: Spool, outbox: Path) -> None:
    """It is neither sent nor refused, and holds nobody up; once it stops it is refused as truncated."""
    spool.configure(spool={"incomplete_timeout_seconds": 5})
    spool.start(wrap=without_power("lease"))
    with stranger(outbox, GROWER, zip_bytes(seed=1)[:-1].hex()) as grower:
        assert "begun" == heard(grower)
        assert_alive(spool)
        size = (outbox / "growing.zip").stat().st_size
        wait_until(lambda: (outbox / "growing.zip").stat().st_size > size + 50_000, "it grows for longer than that")
        assert set() == spool.names("rejected")
    spool.wait_for("rejected", "growing.zip")
    assert "flaw=truncated" in spool.row("REFUSED", "growing.zip")["detail"]
    assert 1 == ordered(sandbox).total()


def test_a_device_is_never_opened(sandbox: Sandbox, spool: Spool, outbox: Path) -> None:
    """A device node named like a ZIP is reported and left; /dev/zero has no end."""
    os.mknod(outbox / "zero.zip", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    spool.start()
    assert_alive(spool)
    spool.wait_for_state(lambda state: "zero.zip" in state["oddities"], "it is reported")
    assert "outbox/zero.zip: is a character device, not a regular file" in spool.output.read_text()


@pytest.mark.parametrize("declared", [10_000_000, 65_000])
def test_ten_million_entries(sandbox: Sandbox, spool: Spool, outbox: Path, declared: int) -> None:
    """A central directory of half a gigabyte, true or lying about its count: refused in little memory and time."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *[0] * 7, 5, *[0] * 6) + b"a.txt"
    body = b"PK\3\4\x14\0" + bytes(20) + b"\x05\0\0\0a.txt"
    size = 10_000_000 * len(entry)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, declared, declared, size, len(body))
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(body) + size, 1)
    spool.start()
    assert spool.process is not None
    with (spool.home / "ready").open("wb") as file:
        file.write(body)
        for _ in range(100):
            file.write(entry * 100_000)
        file.write(record + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, size, len(body), 0))
    before = peak_kib(spool.process.pid)
    (spool.home / "ready").rename(outbox / "many.zip")
    spool.wait_for("rejected", "many.zip", seconds=90)
    assert 20_000 > peak_kib(spool.process.pid) - before
    assert f"flaw={'too_many_entries' if declared > 100_000 else 'corrupt'} " in spool.row("REFUSED")["detail"]
    (spool.root / "rejected" / "many.zip").unlink()


def peak_kib(pid: int) -> int:
    """The most memory a process has had, KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
