"""Names from strangers on their way out: into S3, into the sheet, into every command that a person types them into."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator

import pytest

from tests.support.daemon import wait_until, zip_bytes
from tests.support.s3_servers import moto
from tests.support.scene import PREFIX, Scene, scene

RAW: tuple[bytes, ...] = (
    *(b"-rf.zip", b"--json.zip", b"-c.zip", b"--.zip", b"x..zip.zip", b"~root.zip", b"$(id).zip", b"a;b.zip"),
    *(b"=cmd|' calc'!A0.zip", b"+1.zip", b"@SUM(1).zip", b"\t=1.zip", b"x\\..\\..\\evil.zip", b"x%2f..%2fevil.zip"),
    b"a.zip\r\nX-Amz-Acl: public-read\r\n\r\n.zip",
    b"a.zip\n2025-01-01 00:00:00.000 ERROR    forged\nEVENT=ALERT\nPACKAGE=forged.zip",
    b'a"; filename="other.zip',
    b"\x1b[2J\x1b]0;owned\x07.zip",
    "\u202epiz.exe\u2066.zip".encode(),
    "ação 🎧 №7.zip".encode(),
    b"\xff\xfe\xed\xa0\x80.zip",
    b"x" * 251 + b".zip",
    "é".encode() * 125 + b"y.zip",
    b"\xff" * 251 + b".zip",
    b"<script>alert(1)</script>.zip".replace(b"/", b"\\"),
)
NAMES = [os.fsdecode(raw) for raw in RAW]


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """All are delivered, backed up and in the sheet; a corrupt one came after each, under the same name. It runs."""
    with scene(tmp_path_factory.mktemp("outside"), moto("http")) as made:
        made.spool.start()
        for n, name in enumerate(NAMES):
            made.drop(name, seed=n)
        made.wait_until_settled()
        for n, name in enumerate(NAMES):
            content = bytearray(zip_bytes(seed=1000 + n))
            content[100] ^= 1
            (made.spool.home / "ready").write_bytes(content)
            (made.spool.home / "ready").rename(made.spool.root / "outbox" / name)
        wait_until(lambda: len(made.spool.names("rejected")) == len(NAMES), "the corrupt ones are refused", 60)
        yield made


def test_each_backup_is_that_package(evening: Scene) -> None:
    """Every key is one line of UTF-8 in its day's folder, and holds the very content; headers carry ASCII alone."""
    client = evening.server.client()
    found = dict(evening.objects())
    assert set(evening.dropped) == set(found.values())
    for key, sha256 in found.items():
        assert re.fullmatch(re.escape(PREFIX) + r"\d{4}/\d\d/\d\d/[0-9a-f]{12}-[^/]+", key), key
        assert key.split("/")[-1].startswith(sha256[:12])
        assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", key), key
        head = client.head_object(Bucket=evening.bucket, Key=key)
        assert {"sha256", "trace-id", "order-id"} == head["Metadata"].keys()
        assert sha256 == head["Metadata"]["sha256"]
        assert "x-amz-acl" not in {name.lower() for name in head["ResponseMetadata"]["HTTPHeaders"]}


def test_no_cell_of_the_sheet_runs(evening: Scene) -> None:
    """What people see in the sheet is the log, cell for cell, and none begins like a formula."""
    wait_until(lambda: evening.logged() == evening.shown(), "the sheet shows the log", 60)
    for row in evening.shown():
        assert not any(re.match(r"[=+\-@\t\r]", cell) for cell in row), row


def test_the_portal_got_plain_names(evening: Scene) -> None:
    """A name can't end the header it stands in: the order's filename is one line, and no other field appeared."""
    for order in evening.sandbox.orders():
        filename = str(order["filename"])
        assert 1 == len(filename.splitlines()), filename
        assert filename != "other.zip"
    assert len(NAMES) == len(evening.sandbox.orders())


def test_why_finds_each_by_its_name(evening: Scene) -> None:
    """Typed after `--`, every name is found as it is, and what is told of it is plain text on one screen."""
    odd = [name for name in NAMES if not name.isprintable() or name.startswith("-") or len(os.fsencode(name)) == 255]
    for name in odd:
        done = evening.spool.cli("why", "--", name)
        assert 0 == done.returncode, (name, done.stdout, done.stderr)
        (sha256,) = {row["sha256"] for row in evening.spool.rows() if row["event"] == "ACCEPTED"} & {
            hashlib.sha256(zip_bytes(seed=NAMES.index(name))).hexdigest()
        }
        assert sha256 in done.stdout.replace("\n", ""), done.stdout
        assert_plain(done.stdout)


def test_status_and_fsck_stay_plain(evening: Scene) -> None:
    """Neither escapes nor line ends of a name reach the terminal, and nothing differs for its sake."""
    for word in ("status", "fsck"):
        done = evening.spool.cli(word)
        assert 0 == done.returncode, done.stdout + done.stderr
        assert_plain(done.stdout)


def test_each_can_be_requeued_by_its_name(evening: Scene) -> None:
    """All rejected ones in one command: each goes back to the outbox and is refused once more, under its own name."""
    rejected = sorted(evening.spool.names("rejected"))
    done = evening.spool.cli("requeue", "--", *rejected)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert_plain(done.stdout)
    wait_until(lambda: evening.spool.events().count("REFUSED") == 2 * len(NAMES), "all are refused again", 60)
    wait_until(lambda: set(rejected) == evening.spool.names("rejected"), "they keep their names")
    evening.spool.assert_sound()


def assert_plain(text: str) -> None:
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", text), text
    assert not [line for line in text.splitlines() if line.startswith(("2025-01-01 00:00", "EVENT=", "PACKAGE="))]


def test_contents_are_what_was_dropped(evening: Scene) -> None:
    """Whatever they are called, what lies in delivered/ is what was dropped."""
    for n, name in enumerate(NAMES):
        content = (evening.spool.root / "delivered" / name).read_bytes()
        assert hashlib.sha256(zip_bytes(seed=n)).hexdigest() == hashlib.sha256(content).hexdigest()
