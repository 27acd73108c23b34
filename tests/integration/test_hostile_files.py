"""Files that another user drops to do harm: nothing is leaked, nothing stops, and every honest package goes on.

The attackers are real processes of a real other user, who may write into outbox/ and nowhere else.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.daemon import Spool, make_zip, wait_until, zip_bytes
from tests.support.forwarder import Forwarder
from tests.support.host import unmet, without_power
from tests.support.portal import digest, ordered
from tests.support.require import need
from tests.support.s3_servers import moto
from tests.support.scene import scene
from tests.support.stranger import NOBODY, assert_alive, heard, stranger, tell
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.server import Sandbox

pytestmark = pytest.mark.root


# --- files that somebody still has a hand on --------------------------------------------------------------------------


def test_a_lease_that_somebody_holds_is_waited_for(sandbox: Sandbox, spool: Spool, outbox: Path) -> None:
    """A program that holds a write lease (Samba's oplocks do) makes the daemon wait, not end; then it is sent once."""
    script = """
fd = os.open("leased.tmp", os.O_RDWR | os.O_CREAT, 0o644)
os.write(fd, bytes.fromhex(sys.argv[1]))
signal.signal(signal.SIGIO, signal.SIG_IGN)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
os.rename("leased.tmp", "leased.zip")
say("held")
sys.stdin.readline()
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
os.close(fd)
say("dropped")
sys.stdin.readline()
"""
    spool.start()
    with stranger(outbox, script, zip_bytes(seed=1).hex()) as holder:
        assert "held" == heard(holder)
        assert_alive(spool)
        assert {"leased.zip"} == spool.names("outbox")
        tell(holder)
        assert "dropped" == heard(holder)
        spool.wait_for("delivered", "leased.zip")
    assert 1 == ordered(sandbox)[digest(zip_bytes(seed=1))]


def test_a_file_that_becomes_unreadable_between_two_tries(
    sandbox: Sandbox, spool: Spool, outbox: Path, way: Forwarder
) -> None:
    """What is sent is what was opened: its owner may take the right to read it away, and it still goes out whole."""
    sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=503, times=1))
    way.hold()
    spool.start(wrap=without_power("lease"))
    spool.drop("shut.zip", seed=1)
    spool.wait_for_event("ATTEMPTED", "shut.zip")
    (spool.root / ".tfwatch/claimed/shut.zip").chmod(0)
    way.let_go()
    spool.wait_for("delivered", "shut.zip")
    assert {digest(zip_bytes(seed=1)): 1} == ordered(sandbox)
    assert_alive(spool)


def test_a_file_that_becomes_unreadable_while_its_outcome_is_unknown(
    sandbox: Sandbox, spool: Spool, outbox: Path
) -> None:
    """It may have been sent, so it stays in claimed/ and the daemon says what to do; then the same order is found."""
    spool.configure(integrations={"gotranscript": {"timeout_seconds": 5, "retry": {"attempts": 1}}})
    sandbox.set_faults(Fault(kind=FaultKind.HANG, accept=True, times=1))
    spool.start(wrap=without_power("lease"))
    spool.drop("shut.zip", seed=1)
    claimed = spool.root / ".tfwatch/claimed/shut.zip"
    spool.wait_for_event("UNKNOWN", "shut.zip")
    claimed.chmod(0)
    wait_until(lambda: f"chmod a+r '{claimed}'" in spool.output.read_text(), "it is reported", 60)
    assert claimed.exists()
    assert_alive(spool)
    claimed.chmod(0o644)
    spool.wait_for("delivered", "shut.zip", seconds=120)
    assert 1 == ordered(sandbox)[digest(zip_bytes(seed=1))]


# --- files that are not what they were --------------------------------------------------------------------------------

SWAPPER = """
# Every name in turn stands for a whole ZIP, and for something else, as fast as the kernel can swap them.
end, swaps = time.monotonic() + float(sys.argv[1]), 0
names = sys.argv[2:]
say("ready")
while time.monotonic() < end:
    for name in names:
        swaps += exchange(name, "." + name)
say(swaps)
"""


@pytest.mark.timeout(300)
def test_a_zip_swapped_at_any_moment(sandbox: Sandbox, spool: Spool, outbox: Path) -> None:
    """Whatever a name becomes between look, claim and read: no secret is read, nothing stops, each order is honest."""
    secret = spool.home / "secret.zip"
    secret.write_bytes(zip_bytes(seed=99))
    secret.chmod(0o600)
    spool.start(wrap=without_power("lease"))
    kinds = ("link", "fifo", "shut", "other", "folder")
    honest, swaps = {digest(zip_bytes(seed=4711))}, 0
    began = time.monotonic()
    for turn in range(1000):
        names = {f"{kind}{turn}.zip": kind for kind in kinds}
        for n, (name, kind) in enumerate(names.items()):
            content = zip_bytes(seed=turn * 10 + n)
            honest |= {digest(content)}
            if kind == "link":
                (outbox / f".{name}").symlink_to(secret)
            elif kind == "fifo":
                os.mkfifo(outbox / f".{name}", 0o666)
            elif kind == "folder":
                (outbox / f".{name}").mkdir()
            else:
                (outbox / f".{name}").write_bytes(zip_bytes(seed=turn * 10 + n + 5))
                (outbox / f".{name}").chmod(0 if kind == "shut" else 0o644)
                honest |= {digest(zip_bytes(seed=turn * 10 + n + 5))}
            os.chown(outbox / f".{name}", NOBODY, NOBODY, follow_symlinks=False)
            os.chown(make_zip(spool.home / name, seed=turn * 10 + n), NOBODY, NOBODY)
        with stranger(outbox, SWAPPER, "0.2", *names) as process:
            assert "ready" == heard(process)
            for name in names:
                (spool.home / name).rename(outbox / name)
            swaps += int(heard(process))
        assert spool.process is not None
        assert spool.process.poll() is None, spool.picture()
        told = spool.output.read_text()
        lines = [(kind, line) for line in told.splitlines() for kind in kinds if f"outbox/{kind}" in line]
        claimed = Counter(kind for kind, line in lines if "as it was claimed" in line)
        seen_before = Counter(kind for kind, line in lines if "as it was claimed" not in line)
        if time.monotonic() - began > 150 or all(claimed[kind] for kind in ("link", "fifo", "shut")):
            break
    print(
        f"\n{swaps:,} swaps in {turn + 1} turns, {time.monotonic() - began:.0f} s: "
        f"hit between look and claim {dict(claimed)}, seen before {dict(seen_before)}"
    )
    assert {"link", "fifo", "shut"} <= claimed.keys(), "each kind was hit between look and claim"
    assert_alive(spool)
    assert digest(secret.read_bytes()) not in (spool.root / "log.csv").read_text()
    assert set(ordered(sandbox)) <= honest
    assert {1} == set(ordered(sandbox).values())


WRITER_BY_ANOTHER_NAME = """
# A second name of the package outlives its claim: write through it, again and again, until told to stop.
os.link("linked.zip", ".mine")
say("linked")
sys.stdin.readline()
appends = sys.argv[1] == "append"
fd = os.open(".mine", os.O_WRONLY | (os.O_APPEND if appends else 0))
os.pwrite(fd, os.urandom(64), 0 if appends else os.fstat(fd).st_size // 2)
say("written")
sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["overwrite", "append"])
def test_a_hard_link_can_not_change_what_is_sent(
    sandbox: Sandbox, spool: Spool, outbox: Path, way: Forwarder, how: str
) -> None:
    """Written through another name while it is sent: that attempt is void, and no order holds a mixture."""
    size = 30_000_000  # more than the buffers between the two hold: it can't have been read to its middle before
    spool.configure(spool={"incomplete_timeout_seconds": 1})
    spool.start(wrap=without_power("lease"))
    way.hold()
    (outbox / "linked.tmp").write_bytes(zip_bytes(seed=1, size=size))
    os.chown(outbox / "linked.tmp", NOBODY, NOBODY)
    # Renamed in only once its second name stands.
    script = WRITER_BY_ANOTHER_NAME.replace('"linked.zip"', '"linked.tmp"')
    with stranger(outbox, script, how) as writer:
        assert "linked" == heard(writer)
        (outbox / "linked.tmp").rename(outbox / "linked.zip")
        spool.wait_for_event("ATTEMPTED", "linked.zip")
        tell(writer)
        assert "written" == heard(writer)
        way.let_go()
        wait_until(lambda: len(spool.events("linked.zip")) > 1, "the attempt ends")
    assert "DEFERRED" == spool.events("linked.zip")[1]
    spool.wait_for("rejected", "linked.zip", seconds=90)
    assert_alive(spool)
    assert 1 == ordered(sandbox).total(), "only the honest one"
    assert "nothing was delivered" in spool.row("DEFERRED", "linked.zip")["detail"]
    spool.wait_for_event("MOVED", "linked.zip")  # the content that was inspected is nowhere any more
    assert 0 == spool.stop()
    done = spool.cli("fsck")
    assert 0 == done.returncode, done.stdout + spool.picture()


def test_a_hard_link_to_what_we_may_not_read(sandbox: Sandbox, spool: Spool, outbox: Path) -> None:
    """Where the kernel lets people link any file: one that is closed to us is neither read, sent nor hashed."""
    secret = make_zip(spool.home / "secret.zip", seed=99)
    os.chown(secret, NOBODY, NOBODY)
    secret.chmod(0o600)
    os.link(secret, outbox / "secret.zip")
    spool.start(wrap=without_power("lease"))
    assert_alive(spool)
    spool.wait_for_state(lambda state: any("secret.zip: can't be read" in each for each in state["problems"]), "told")
    assert {"secret.zip"} == spool.names("outbox")
    assert digest(secret.read_bytes()) not in (spool.root / "log.csv").read_text()
    assert 1 == ordered(sandbox).total()


def test_a_file_that_nobody_may_move(sandbox: Sandbox, spool: Spool, outbox: Path) -> None:
    """Immutable or append-only: it stays, status says which attribute is to be taken away, and then it is sent."""
    need("chattr")
    flags = {"fixed.zip": "i", "append.zip": "a"}
    try:
        for n, (name, flag) in enumerate(flags.items()):
            done = subprocess.run(["chattr", f"+{flag}", make_zip(outbox / name, seed=n)], capture_output=True)
            if done.returncode != 0:
                unmet(f"this file system has no attributes: {done.stderr!r}")
        spool.start(wrap=without_power("lease"))
        assert_alive(spool)
        for name in flags:
            mend = f"chattr -i -a '{outbox / name}'"
            spool.wait_for_state(lambda state, mend=mend: any(mend in each for each in state["problems"]), mend)
        assert set(flags) == spool.names("outbox")
    finally:
        subprocess.run(["chattr", "-i", "-a", *(outbox / name for name in flags)], check=False)
    spool.wait_for("delivered", *flags)
    assert 3 == ordered(sandbox).total()


def test_a_delivered_file_that_becomes_unreadable(tmp_path: Path) -> None:
    """Its backup fails in the log, by name and with what mends it; the daemon goes on, and backs it up afterwards."""
    with scene(tmp_path, moto("http"), integrations={"s3": {"enabled": False}}) as made:
        spool = made.spool
        spool.start(wrap=without_power("lease"))
        made.drop("shut.zip", seed=1)
        spool.wait_for("delivered", "shut.zip")
        (spool.root / "delivered/shut.zip").chmod(0)
        spool.configure(integrations={"s3": {"enabled": True}})
        spool.wait_for_event("BACKUP_FAILED", "shut.zip")
        mend = f"it can't be read: Permission denied; let the daemon's user read it: chmod a+r '{spool.root}/delivered/"
        assert mend in spool.row("BACKUP_FAILED", "shut.zip")["detail"]
        made.drop("honest.zip", seed=2)
        spool.wait_for_event("BACKED_UP", "honest.zip")
        (spool.root / "delivered/shut.zip").chmod(0o644)
        assert 0 == spool.stop()
        spool.start(wrap=without_power("lease"))
        made.wait_until_settled()
        assert 0 == spool.stop()
        made.assert_invariants()
