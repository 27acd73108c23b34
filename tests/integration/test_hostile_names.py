"""Names are bytes from strangers: whatever they hold, the package is delivered and the log says exactly which it was.

Nothing here uses the product's own reader of log.csv: rows are read as the contract's §3 describes them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.daemon import Spool, make_zip, wait_until, zip_bytes
from tests.support.daemon import spool as make_spool
from tests.support.portal import digest, ordered
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import PortalSettings, SandboxSettings

STEMS: dict[str, tuple[str, ...]] = {
    "blanks": (" ", "  two  spaces  ", "tab\there", "line\nbreak", "CR\rLF\r\nboth", "\u2028", "\u0085", "\u200b"),
    "control characters": ("\x01", "\x1b[31mred\x1b[0m", "\x7f", "bell\a", "back\b\b\b\bspace"),
    "other scripts": ("🎧 entrevista №7", "ação", "ac\u0327a\u0303o", "עברית", "\u202egpj.exe", "\ufeff", "\ufffd"),
    "other cases": ("İ", "\ufb00", "ß", "CASE"),
    "options": ("-", "--force", "-c", "-rf"),
    "formulas": ("=1+1", "+1", "@SUM(A1)", "=cmd|' calc'!A0", "-1+1", "'=1", "''=1", '"=1"', "\t=1", "\r=1"),
    "quotes": ("'", "''", "'quoted'", '"', '""', '"a","b"', "a,b", ";", "«»"),
    "shells": ("$(reboot)", "`id`", "|", "*", "?", "#", "&amp;", "a b && c", "~", "!"),
    "templates": ("%n%s%x", "{0}", "{name!r}", "<red>", "[bold]", "a%00b", "a%2Fb"),
    "escapes": ("\\", "\\n", "\\x41", "\\\\x41", "\\xff", "\\u0041", "C:\\temp\\x", "a\\"),
    "our own words": ("log.csv", "1,2025-11-13T10:35:33.120Z,x,COMPLETED", "key=value; message", "sha256=0 was=x"),
    "our own names": ("~2", "a", "a~2", "a.zip", "a.reason.txt", "job_v", "_v1", "job_v1_v2.3", "a_v1~9"),
    "as long as can be": ("x" * 251, "é" * 125 + "y", "🎧" * 62 + "abc", "x" * 249, "é" * 124 + "y"),
}
UNDECODABLE = (b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", b"caf\xe9", b"\xf0\x9f\x8e", b"ok\xffok", b"=\xff", b"\xff" * 251)


def random_stems(count: int) -> Iterator[bytes]:
    """Any bytes but NUL and slash, of any length."""
    rng = random.Random(2025)
    for _ in range(count):
        yield b"x" + rng.randbytes(rng.randrange(1, 251)).replace(b"\0", b"=").replace(b"/", b"'")


ALL: list[str] = [
    *(f"{stem}.zip" for stems in STEMS.values() for stem in stems),
    *(os.fsdecode(stem + b".zip") for stem in (*UNDECODABLE, *random_stems(40))),
    *("upper.ZIP", "mixed.zIp"),
]


@dataclass(frozen=True, slots=True)
class Run:
    """A day on which every name came twice: whole in the morning, corrupt (and under the same name) at noon."""

    spool: Spool
    orders: list[dict[str, Any]]
    counted: dict[str, int]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    home = tmp_path_factory.mktemp("names")
    with (
        Sandbox(SandboxSettings(portal=PortalSettings(verdict_delay=0.1, reject_pattern=""))) as sandbox,
        make_spool(home, sandbox.url, sandbox.api_key) as spool,
    ):
        spool.start()
        drop_all(spool, whole=True)
        wait_until(lambda: len(spool.names("delivered")) == len(ALL), "all are delivered", 60)
        drop_all(spool, whole=False)
        wait_until(lambda: len(spool.names("rejected")) == len(ALL), "all are refused", 60)
        assert 0 == spool.stop()
        yield Run(spool, sandbox.orders(), dict(ordered(sandbox)))


def content_of(name: str, *, whole: bool = True) -> bytes:
    raw = os.fsencode(name)
    content = zip_bytes(members={"name.txt": raw})
    return content if whole else content.replace(b"name.txt" + raw, b"name.txt" + b"\0" * len(raw))


def drop_all(spool: Spool, *, whole: bool) -> None:
    for number, name in enumerate(ALL):
        ready = make_zip(spool.home / f"ready-{number}")
        ready.write_bytes(content_of(name, whole=whole))
        ready.rename(spool.root / "outbox" / name)


# --- an independent reader of log.csv ---------------------------------------------------------------------------------


def decoded(cell: str) -> bytes:
    """What a text cell stands for: without its neutralising mark, `\\xNN` as that byte and `\\\\` as a backslash."""
    if re.match(r"'+[=+\-@]", cell):
        cell = cell[1:]
    return re.sub(
        rb"\\(?:x([0-9a-f]{2})|\\)",
        lambda found: bytes.fromhex(found[1].decode()) if found[1] else b"\\",
        cell.encode(),
    )


def lines_of(spool: Spool) -> list[bytes]:
    raw = (spool.root / "log.csv").read_bytes()
    assert raw.endswith(b"\r\n")
    return raw.removesuffix(b"\r\n").split(b"\r\n")


def rows_of(spool: Spool) -> list[dict[str, str]]:
    text = (spool.root / "log.csv").read_bytes().decode()
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_every_name_is_delivered_once(day: Run) -> None:
    """Each package lies in delivered/ under exactly its own name, and the portal has one order of its content."""
    assert set(ALL) == day.spool.names("delivered")
    for name in ALL:
        assert content_of(name) == (day.spool.root / "delivered" / name).read_bytes()
    assert {digest(content_of(name)): 1 for name in ALL} == day.counted


def test_the_log_gives_back_every_name(day: Run) -> None:
    """A row's `package`, decoded by the contract's rules, is the name's bytes to the last one."""
    found = {row["sha256"]: decoded(row["package"]) for row in rows_of(day.spool)}
    for name in ALL:
        assert os.fsencode(name) == found[digest(content_of(name))]


def test_one_line_is_one_row_of_18_cells(day: Run) -> None:
    """No name breaks a line for any reader, shifts a column, or starts a cell as a formula."""
    lines, rows = lines_of(day.spool), rows_of(day.spool)
    assert len(lines) == len(rows) + 1
    for line, row in zip(lines[1:], rows, strict=True):
        assert [list(row.values())] == list(csv.reader([line.decode()], strict=True))
        assert 18 == len(row)
        assert None not in row
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row.values())
        assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", line.decode()), line
    assert [str(number) for number in range(1, len(rows) + 1)] == [row["seq"] for row in rows]


def test_the_chain_holds(day: Run) -> None:
    """Each row's chain is the SHA-256 of the chain before it, a newline, and the row as written."""
    header, *lines = lines_of(day.spool)
    chain = hashlib.sha256(header).hexdigest()
    for line in lines:
        row, _, written = line.rpartition(b",")
        chain = hashlib.sha256(chain.encode() + b"\n" + row).hexdigest()
        assert chain == written.decode(), row


def test_a_refused_name_has_its_reason_beside_it(day: Run) -> None:
    """Each corrupt one lies in rejected/ under a derived name of at most 255 bytes, with one reason file of its own."""
    rejected = set(os.listdir(day.spool.root / "rejected"))
    reasons = {name for name in rejected if name.endswith(".reason.txt")} - {
        name for name in rejected if name.lower().endswith(".zip")
    }
    assert 2 * len(ALL) == len(rejected)
    assert len(ALL) == len(reasons)
    assert all(len(os.fsencode(name)) <= 255 for name in rejected)
    for row in rows_of(day.spool):
        if row["event"] == "REFUSED":
            package = decoded(row["package"])
            reason = day.spool.root / "rejected" / os.fsdecode(reason_of(package))
            text = reason.read_text()
            assert "\nWhy: " in text
            assert 1 == text.count("was refused and not sent"), "the name can't forge a line"
            first_line = text.splitlines()[0]
            assert first_line.endswith(" was refused and not sent."), first_line


def reason_of(package: bytes) -> bytes:
    """`<name>.reason.txt`; past 255 bytes cut at a UTF-8 boundary, with `~` and 8 digits of a hash."""
    if len(package) + len(".reason.txt") <= 255:
        return package + b".reason.txt"
    cut = package[: 255 - len("~12345678.reason.txt")]
    while package[len(cut)] & 0xC0 == 0x80:
        cut = cut[:-1]
    return cut + b"~" + hashlib.sha256(package).hexdigest()[:8].encode() + b".reason.txt"


def test_a_name_that_came_again_is_numbered(day: Run) -> None:
    """What was refused at noon had its name taken: `~2` before the ending, however long or odd the name is."""
    refused = {decoded(row["package"]) for row in rows_of(day.spool) if row["event"] == "REFUSED"}
    assert refused == {os.fsencode(name) for name in day.spool.names("rejected")}
    for name in map(os.fsencode, ALL):
        assert name not in refused
        if len(name) <= 253:
            assert name[:-4] + b"~2" + name[-4:] in refused or name[:-4] + b"~3" + name[-4:] in refused


def test_no_name_forges_a_line_of_the_journal(day: Run) -> None:
    """Every line of the daemon's output begins with its time; control characters and escapes are spelled out."""
    for line in day.spool.output.read_bytes().splitlines():
        assert re.match(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [A-Z]+ +", line), line
        assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", line), line
