"""The outbox: what is taken from it, what is left there and reported, what is refused, and that each is sent once."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.daemon import Spool, make_zip, wait_until, zip_bytes
from tests.support.forwarder import Forwarder
from tests.support.host import without_power
from tests.support.portal import digest, ordered
from tests.unit.zips import DEFLATED, Member, handmade, megabytes_of_zeros
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import VerdictWhen

# --- what is left alone -----------------------------------------------------------------------------------------------


def test_other_files_stay_and_are_counted(sandbox: Sandbox, spool: Spool) -> None:
    """Only `*.zip` counts, in any case; what is hidden or bears another ending stays untouched and is counted."""
    outbox = spool.root / "outbox"
    others = ("notes.txt", ".hidden.zip", "a.zip.part", "b.filepart", "c.zip.tmp", "d.zip.crdownload", "zip", ".zip")
    for name in others:
        (outbox / name).write_bytes(zip_bytes())
    spool.start()
    for n, name in enumerate(("UPPER.ZIP", "mixed.Zip", "lower.zip")):
        spool.drop(name, seed=n)
    spool.wait_for("delivered", "UPPER.ZIP", "mixed.Zip", "lower.zip")
    spool.wait_for_state(lambda state: state["ignored"] == len(others), "all others are counted")
    assert set(others) == set(os.listdir(outbox))
    assert 3 == ordered(sandbox).total()


def a_symlink(path: Path) -> None:
    path.symlink_to(make_zip(path.parents[2] / f"behind-{path.name}", seed=1))


def a_dangling_symlink(path: Path) -> None:
    path.symlink_to("/nonexistent/secret.zip")


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


ODDITIES: dict[str, Callable[[Path], None]] = {
    "symbolic link": a_symlink,
    "dangling symbolic link": a_dangling_symlink,
    "FIFO": os.mkfifo,
    "socket": a_socket,
    "directory": Path.mkdir,
}


def test_what_is_no_regular_file_is_reported_and_left(sandbox: Sandbox, spool: Spool) -> None:
    """A symlink, FIFO, socket or directory named `*.zip` is never opened or followed: reported, left where it is."""
    names = {kind: f"{kind}.zip" for kind in ODDITIES}
    for kind, make in ODDITIES.items():
        make(spool.root / "outbox" / names[kind])
    spool.start()
    spool.drop("good.zip")
    spool.wait_for("delivered", "good.zip")
    shown = spool.wait_for_state(lambda state: len(state["oddities"]) == len(ODDITIES) and state["oddities"], "reports")
    assert set(names.values()) == set(shown) == set(os.listdir(spool.root / "outbox"))
    told = spool.output.read_text()
    for kind, name in names.items():
        assert f"outbox/{name}: is a {kind.removeprefix('dangling ')}, not a regular file" in told
    assert {digest(zip_bytes()): 1} == ordered(sandbox)


def test_an_unreadable_file_stays_with_the_command_that_mends_it(sandbox: Sandbox, spool: Spool) -> None:
    """A file the daemon may not read stays; status names owner, mode and the mending command, which then works."""
    spool.start(wrap=without_power())
    ready = make_zip(spool.home / "ready.zip")
    ready.chmod(0)
    closed = ready.rename(spool.root / "outbox" / "closed.zip")
    spool.drop("open.zip", seed=1)
    spool.wait_for("delivered", "open.zip")
    problems = spool.wait_for_state(lambda state: state["problems"], "the unreadable file is reported")
    owner = f"owner {os.getuid()}:{os.getgid()}, mode 0000"
    mend = f"chmod a+r '{closed}'"
    assert any("closed.zip" in text and owner in text and mend in text for text in problems), problems
    assert mend in spool.output.read_text()
    assert mend in spool.cli("status").stdout.replace("\n", "")
    closed.chmod(0o444)
    spool.wait_for("delivered", "closed.zip")
    assert 2 == ordered(sandbox).total()
    spool.wait_for_state(lambda state: not any("closed.zip" in text for text in state["problems"]), "it is forgotten")


# --- what is refused --------------------------------------------------------------------------------------------------


def test_an_unfinished_zip_is_refused_after_the_timeout(sandbox: Sandbox, spool: Spool) -> None:
    """Unfinished and unchanged past the timeout: refused as truncated, with a reason; one still open: only told."""
    spool.configure(spool={"incomplete_timeout_seconds": 2})
    spool.start()
    outbox = spool.root / "outbox"
    with (outbox / "open.zip").open("wb") as writer:
        writer.write(zip_bytes(seed=1)[:-5])
        writer.flush()
        (outbox / "half.zip").write_bytes(zip_bytes(seed=2)[:1000])
        (outbox / "nothing.zip").touch()
        spool.wait_for("rejected", "half.zip", "nothing.zip")
        for name in ("half.zip", "nothing.zip"):
            assert "flaw=truncated" in spool.row("REFUSED", name)["detail"]
            assert "copy it again, whole" in spool.reason(name)
        spool.wait_for_state(
            lambda state: any("open.zip: is still open for writing" in text for text in state["problems"]),
            "the file that is still open is reported",
        )
        assert {"open.zip"} == spool.names("outbox")
        writer.write(zip_bytes(seed=1)[-5:])
    spool.wait_for("delivered", "open.zip")
    assert {digest(zip_bytes(seed=1)): 1} == ordered(sandbox)


def corrupt() -> bytes:
    content = bytearray(zip_bytes(seed=3))
    content[content.index(b"transcript.txt") + 500] ^= 1
    return bytes(content)


def bomb(declared: int) -> bytes:
    """40 MiB once unpacked; it declares what it likes."""
    return handmade(Member(method=DEFLATED, packed=megabytes_of_zeros(40), uncompressed=declared))


def with_entries(count: int) -> bytes:
    return zip_bytes(members={f"{n}.txt": b"" for n in range(count)})


UNSOUND: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "corrupt.zip": (corrupt, "corrupt", "doesn't match its checksum"),
    "encrypted.zip": (lambda: handmade(Member(flags=1)), "encrypted", "pack it again without a password"),
    "bomb.zip": (lambda: bomb(40 << 20), "bomb", "intake.max_uncompressed_bytes"),
    "lying bomb.zip": (lambda: bomb(1000), "corrupt", "unpacks to more than the 1,000 bytes it declares"),
    "many.zip": (lambda: with_entries(51), "too_many_entries", "intake.max_entries"),
    "big.zip": (lambda: zip_bytes(seed=4, size=300_000), "too_big", "intake.max_bytes"),
    "absolute.zip": (lambda: handmade(Member(name=b"/etc/passwd")), "unsafe_name", "outside its folder"),
    "dots.zip": (lambda: handmade(Member(name=b"a/../../b")), "unsafe_name", "outside its folder"),
    "drive.zip": (lambda: handmade(Member(name=b"C:x.txt")), "unsafe_name", "outside its folder"),
    "nul.zip": (lambda: handmade(Member(name=b"a\0b")), "unsafe_name", "outside its folder"),
}
"""Name → the ZIP, the flaw's code, and plain words that its reason must hold."""


def test_what_is_unsound_is_refused_in_plain_words(sandbox: Sandbox, spool: Spool) -> None:
    """Damaged, encrypted, oversized and dangerous archives are refused with their reason; nothing of them is sent."""
    spool.configure(intake={"max_entries": 50, "max_bytes": 200_000, "max_uncompressed_bytes": 20_000_000})
    spool.start()
    for name, (build, _, _) in UNSOUND.items():
        (spool.root / "outbox" / name).write_bytes(build())
    spool.wait_for("rejected", *UNSOUND)
    for name, (_, flaw, words) in UNSOUND.items():
        row = spool.row("REFUSED", name)
        assert f"flaw={flaw} " in row["detail"], name
        assert ("outbox", "rejected", "rejected") == (row["from_stage"], row["to_stage"], row["status"])
        reason = spool.reason(name)
        assert words in reason, reason
        assert "\nWhat to do: " in reason
        assert "Traceback" not in reason
    assert [] == sandbox.orders()
    assert {} == sandbox.requests()["by_method"], "the portal was never even asked"


# --- once, whatever it is called --------------------------------------------------------------------------------------


def test_twenty_twins_are_one_order(sandbox: Sandbox, spool: Spool) -> None:
    """The same content under 20 names, dropped in the same instant: one order, 19 duplicates that name the first."""
    spool.start()
    ready = [make_zip(spool.home / f"ready-{n}", seed=1) for n in range(20)]
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda path: path.rename(spool.root / "outbox" / f"{path.name}.zip"), ready))
    wait_until(lambda: len(spool.names("rejected")) == 19 and len(spool.names("delivered")) == 1, "19 are refused")
    assert {digest(zip_bytes(seed=1)): 1} == ordered(sandbox)
    (first,) = spool.names("delivered")
    for name in spool.names("rejected"):
        assert "flaw=duplicate" in spool.row("REFUSED", name)["detail"]
        assert first in spool.reason(name)
    spool.assert_sound()


def test_a_name_may_be_dropped_again_at_any_time(sandbox: Sandbox, spool: Spool, way: Forwarder) -> None:
    """The same name with other content, while the first is in flight, submitted or delivered: `~2`, `~3`, `~4`."""
    sandbox.set_settings(portal={"verdict": VerdictWhen.NEVER})
    way.hold()
    spool.start()
    spool.drop("job_v1.zip", seed=1)
    wait_until(lambda: "job_v1.zip" in spool.claimed(), "the first is in flight")
    spool.drop("job_v1.zip", seed=2)
    way.let_go()
    spool.wait_for("submitted", "job_v1.zip", "job_v1~2.zip")
    spool.drop("job_v1.zip", seed=3)
    spool.wait_for("submitted", "job_v1~3.zip")
    for order in sandbox.orders():
        sandbox.give_verdict(str(order["id"]), "completed")
    spool.wait_for("delivered", "job_v1.zip", "job_v1~2.zip", "job_v1~3.zip")
    sandbox.set_settings(portal={"verdict": VerdictWhen.IMMEDIATE})
    spool.drop("job_v1.zip", seed=4)
    spool.wait_for("delivered", "job_v1~4.zip")
    for number, name in enumerate(("job_v1.zip", "job_v1~2.zip", "job_v1~3.zip", "job_v1~4.zip"), start=1):
        content = zip_bytes(seed=number)
        assert content == (spool.root / "delivered" / name).read_bytes()
        (order,) = (order for order in sandbox.orders() if order["sha256"] == digest(content))
        assert ("job", "1") == (order["job_id"], order["version"])
        assert "dropped=job_v1.zip" in spool.rows(name)[0]["detail"]
    assert 4 == ordered(sandbox).total()
    spool.assert_sound()


def test_the_oldest_goes_first(sandbox: Sandbox, spool: Spool) -> None:
    """With one worker, packages leave in the order in which they came to the outbox, whatever they are called."""
    spool.configure(integrations={"gotranscript": {"workers": 1}})
    names = [f"{(n * 7) % 20:02}.zip" for n in range(20)]
    for n, name in enumerate(names):
        path = spool.drop(name, seed=n)
        os.utime(path, (1_000_000_000 - n, 1_000_000_000 - n))  # an old mtime is no sign of age
        came = path.stat().st_ctime_ns
        wait_until(lambda came=came: time.time_ns() > came + 12_000_000, "the file system's clock ticks")
    spool.start()
    spool.wait_for("delivered", *names)
    assert names == [order["filename"] for order in sandbox.orders()]


# --- nothing is missed ------------------------------------------------------------------------------------------------


def test_an_outbox_that_was_replaced_is_found_again(sandbox: Sandbox, spool: Spool) -> None:
    """The outbox renamed away and made anew: the next drops are found within a rescan, without a restart."""
    spool.start()
    (spool.root / "outbox").rename(spool.root / "outbox.old")
    (spool.root / "outbox").mkdir()
    spool.drop("first.zip", seed=1)
    spool.wait_for("delivered", "first.zip")
    (spool.root / "outbox").rename(spool.root / "outbox.older")
    wait_until((spool.root / "outbox").is_dir, "the daemon makes it again")
    spool.drop("second.zip", seed=2)
    spool.wait_for("delivered", "second.zip", seconds=10)
    assert 2 == ordered(sandbox).total()


def test_polling_finds_what_events_would(sandbox: Sandbox, spool: Spool) -> None:
    """With `watch: polling` nothing is listened for, packages are found all the same, and status says so."""
    spool.configure(spool={"watch": "polling", "rescan_seconds": 60})
    spool.start()
    spool.drop("polled.zip")
    spool.wait_for("delivered", "polled.zip", seconds=10)
    assert "polling" == spool.wait_for_state(lambda state: state["watch"], "status shows how")["mode"]
    assert 1 == ordered(sandbox).total()


def test_what_came_while_the_daemon_was_stopped_is_sent(sandbox: Sandbox, spool: Spool) -> None:
    """No event tells of it: the first scan finds what was dropped before the start and between two runs."""
    spool.drop("before.zip", seed=1)
    spool.start()
    spool.wait_for("delivered", "before.zip")
    assert 0 == spool.stop()
    spool.drop("between.zip", seed=2)
    spool.start()
    spool.wait_for("delivered", "between.zip")
    assert 2 == ordered(sandbox).total()


def test_two_thousand_at_once(sandbox: Sandbox, spool: Spool) -> None:
    """2,000 small ZIPs dropped at once: one order each, all delivered, none twice and none lost."""
    ready = [make_zip(spool.home / f"ready-{n}", seed=n, size=100) for n in range(2000)]
    wanted = {digest(path.read_bytes()): 1 for path in ready}
    spool.configure(integrations={"gotranscript": {"poll_seconds": 2}})
    spool.start()
    for n, path in enumerate(ready):
        path.rename(spool.root / "outbox" / f"{n}.zip")
    wait_until(lambda: len(spool.names("delivered")) == 2000, "all are delivered", seconds=100)
    assert wanted == ordered(sandbox)
    assert set() == spool.names("outbox") | spool.names("rejected") | spool.claimed()
    spool.assert_sound()
