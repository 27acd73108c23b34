"""Who may do what with the spool, with real users: people who drop, operators, and everybody else."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from typing import Final

import pytest

from tests.support.daemon import wait_until, zip_bytes
from tests.support.installed import CONFIG, CREDENTIALS, SPOOL, UNIT, Installed
from tests.support.ports import reserve_port
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import PortalSettings, SandboxSettings

pytestmark = pytest.mark.root

OUTBOX: Final = f"{SPOOL}/outbox"
DROPPER, OTHER_DROPPER, OPERATOR, OUTSIDER = "ana", "beto", "olga", "ivo"
CLOSED_TO_DROPPERS: Final = ("", "/submitted", "/delivered", "/rejected", "/rollbacks", "/logs", "/.tfwatch")

_SSHD: Final = """\
ListenAddress 127.0.0.1
Port {port}
HostKey /etc/ssh/drop_key
PidFile none
UsePAM yes
PasswordAuthentication no
Subsystem sftp internal-sftp
"""


@pytest.fixture(scope="module")
def portal() -> Iterator[Sandbox]:
    with Sandbox(SandboxSettings(portal=PortalSettings(verdict_delay=0.1))) as running:
        yield running


@pytest.fixture(scope="module")
def house(station: Installed, portal: Sandbox) -> Installed:
    """The station with its four people, delivering."""
    station.machine.add_user(DROPPER, "tfwatch-drop")
    station.machine.add_user(OTHER_DROPPER, "tfwatch-drop")
    station.machine.add_user(OPERATOR, "tfwatch-ops")
    station.machine.add_user(OUTSIDER)
    station.deliver_to(portal)
    return station


@pytest.fixture(scope="module")
def ssh(house: Installed) -> tuple[str, ...]:
    """Options with which `DROPPER` reaches a real sshd of the machine's, by key."""
    machine, port = house.machine, reserve_port()
    machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/drop_key")
    machine.write("/etc/ssh/drop_config", _SSHD.format(port=port))
    machine.run("install", "-d", "-m", "0755", "/run/sshd")
    machine.run("systemd-run", "--quiet", "--unit=drop-sshd", "/usr/sbin/sshd", "-D", "-f", "/etc/ssh/drop_config")
    shell(
        house, DROPPER, "ssh-keygen -q -t ed25519 -N '' -f ~/key && install -D -m 600 ~/key.pub ~/.ssh/authorized_keys"
    )
    options = ("-F", "none", "-i", f"/home/{DROPPER}/key", "-o", f"Port={port}", "-o", "StrictHostKeyChecking=no",
               "-o", "BatchMode=yes", "-o", "LogLevel=ERROR")  # fmt: skip
    there = ("ssh", *options, f"{DROPPER}@127.0.0.1", "true")
    wait_until(lambda: 0 == machine.run(*there, user=DROPPER, check=False).returncode, "sshd lets her in")
    return options


def shell(house: Installed, user: str, script: str, *words: str, stdin: str | bytes = b"") -> str:
    """What a script of a user's prints; it must succeed."""
    return house.machine.run("sh", "-euc", script, "sh", *words, user=user, stdin=stdin).stdout


def refused(house: Installed, user: str, script: str) -> str:
    """What a script of a user's says as it fails: it must, for want of rights."""
    done = house.machine.run("sh", "-euc", script, user=user, check=False)
    said = done.stdout + done.stderr
    assert 0 != done.returncode, f"{user} may: {script}\n{said}"
    assert any(words in said for words in ("Permission denied", "not permitted", "may not")), said
    return said


def at_home(house: Installed, user: str, name: str, *, seed: int, mode: str = "0644") -> None:
    """A package in a user's home, which is on the spool's file system."""
    shell(house, user, 'cat > ~/"$1" && chmod "$2" ~/"$1"', name, mode, stdin=zip_bytes(seed=seed))


@pytest.fixture
def held(house: Installed) -> Iterator[Installed]:
    """Deliveries are off: what is dropped waits in outbox/."""
    house.tfwatch("disable", "gotranscript")
    yield house
    house.tfwatch("enable", "gotranscript")
    wait_until(lambda: not house.names("outbox"), "all that waited is taken")


# --- people who drop --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way",
    [
        "umask 022; cp ~/{name} {outbox}/",
        "umask 077; cp ~/{name} {outbox}/",
        "umask 077; cp -p ~/{name} {outbox}/",
        "umask 077; cat ~/{name} > {outbox}/{name}",
        "umask 077; cp ~/{name} {outbox}/{name}.part; mv {outbox}/{name}.part {outbox}/{name}",
        "mv ~/{name} {outbox}/",
        "ln ~/{name} {outbox}/",
        "umask 077; rsync ~/{name} {outbox}/",
        "rsync -a ~/{name} {outbox}/",
    ],
)
def test_whatever_way_it_is_dropped_it_is_delivered(house: Installed, way: str) -> None:
    """The folder's default ACL lets the daemon read what is made there, whatever umask its maker has."""
    name = f"way_{hashlib.sha256(way.encode()).hexdigest()[:8]}.zip"
    at_home(house, DROPPER, name, seed=int(name[4:12], 16))
    shell(house, DROPPER, way.format(name=name, outbox=OUTBOX))
    house.wait_for("delivered", name)
    assert DROPPER == house.machine.tell("stat", "--format=%U", f"{SPOOL}/delivered/{name}")


@pytest.mark.parametrize("program", ["scp", "sftp"])
def test_from_another_machine(house: Installed, ssh: tuple[str, ...], program: str) -> None:
    """Over a real sshd: put, and the listing that SFTP programs ask for first."""
    name = f"{program}.zip"
    at_home(house, DROPPER, name, seed=len(program) + 1000)
    if program == "scp":
        house.machine.run("scp", *ssh, f"/home/{DROPPER}/{name}", f"{DROPPER}@127.0.0.1:{OUTBOX}/", user=DROPPER)
    else:
        batch = f"cd {OUTBOX}\nls\nput /home/{DROPPER}/{name} {name}.filepart\nrename {name}.filepart {name}\n"
        house.machine.run("sftp", *ssh, "-b", "-", f"{DROPPER}@127.0.0.1", user=DROPPER, stdin=batch)
    house.wait_for("delivered", name)


@pytest.mark.parametrize(("way", "command"), [("cp", "chmod g+r"), ("mv", "chmod a+r")])
def test_one_that_is_closed_is_told_with_the_command_that_opens_it(house: Installed, way: str, command: str) -> None:
    """Of mode 0600 it stays in outbox/, named with owner and mode; its owner runs the command, and it is delivered."""
    name = f"closed_{way}.zip"
    at_home(house, DROPPER, name, seed=2000 + len(command) + ord(way[0]), mode="0600")
    shell(house, DROPPER, f"umask 077; {way} ~/{name} {OUTBOX}/")
    uid = house.machine.tell("id", "-u", DROPPER)
    mend = f"{command} '{OUTBOX}/{name}'"
    told = f"outbox/{name}: can't be read (owner {uid}:"
    wait_until(lambda: any(told in row["MESSAGE"] for row in house.machine.journal("-u", UNIT)), "the journal says so")
    (message,) = {row["MESSAGE"] for row in house.machine.journal("-u", UNIT) if told in row["MESSAGE"]}
    assert "mode 0600" in message
    assert mend in message
    for user in ("root", OPERATOR):
        assert mend in house.machine.run("tfwatch", "status", user=user, check=False).stdout
        assert mend in house.machine.run("tfwatch", "why", name, user=user, check=False).stdout
    assert {name} == house.names("outbox")
    shell(house, DROPPER, mend)
    if way == "cp":
        refused(house, OTHER_DROPPER, f"cat {SPOOL}/outbox/{name} {SPOOL}/log.csv")
    house.wait_for("delivered", name)


def test_what_another_dropped_is_out_of_reach(held: Installed) -> None:
    """It can be seen in the listing; not read, changed, renamed or removed. One's own can be taken back."""
    at_home(held, DROPPER, "hers.zip", seed=3000)
    at_home(held, OTHER_DROPPER, "hers.zip", seed=3001)
    shell(held, DROPPER, f"cp ~/hers.zip {OUTBOX}/")
    assert "hers.zip" in shell(held, OTHER_DROPPER, f"ls {OUTBOX}").split()
    for script in (
        f"cat {OUTBOX}/hers.zip",
        f"cp ~/hers.zip {OUTBOX}/hers.zip",
        f"cp --remove-destination ~/hers.zip {OUTBOX}/hers.zip",
        f": > {OUTBOX}/hers.zip",
        f"mv -f ~/hers.zip {OUTBOX}/hers.zip",
        f"mv {OUTBOX}/hers.zip {OUTBOX}/his.zip",
        f"rm -f {OUTBOX}/hers.zip",
        f"chmod 666 {OUTBOX}/hers.zip",
    ):
        refused(held, OTHER_DROPPER, script)
    assert zip_bytes(seed=3000) == (held.spool / "outbox" / "hers.zip").read_bytes()
    shell(held, DROPPER, f"rm {OUTBOX}/hers.zip")


def test_a_dropper_sees_nothing_else(house: Installed) -> None:
    """The root is crossed, not listed; no other folder is entered, no file of the daemon's read; no command answers."""
    house.drop("seen.zip", user=DROPPER, seed=3100)
    house.wait_for("delivered", "seen.zip")
    for folder in CLOSED_TO_DROPPERS:
        refused(house, DROPPER, f"ls {SPOOL}{folder}/")
        refused(house, DROPPER, f"touch {SPOOL}{folder}/x.zip")
    for file in ("log.csv", "delivered/seen.zip", "logs/observability.json", ".tfwatch/index.sqlite", ".tfwatch/lock"):
        assert (house.spool / file).exists()
        refused(house, DROPPER, f"cat {SPOOL}/{file}")
    refused(house, DROPPER, f"mv {OUTBOX} {SPOOL}/other")
    refused(house, DROPPER, f"cat {CONFIG}")
    refused(house, DROPPER, f"ls {CREDENTIALS}")
    for words in ("status", "why seen.zip", "log", "cancel seen.zip", "requeue seen.zip", "disable gotranscript"):
        said = refused(house, DROPPER, f"tfwatch {words}")
        assert "Traceback" not in said


def test_an_outsider_gets_nothing(house: Installed) -> None:
    """Who is in neither group doesn't even cross the root."""
    for folder in ("", "/outbox", "/rejected", "/.tfwatch"):
        refused(house, OUTSIDER, f"ls {SPOOL}{folder}/")
        refused(house, OUTSIDER, f"touch {SPOOL}{folder}/x.zip")
    refused(house, OUTSIDER, f"cat {SPOOL}/log.csv")
    refused(house, OUTSIDER, f"cat {CONFIG}")
    said = refused(house, OUTSIDER, "tfwatch status")
    assert "Traceback" not in said


# --- operators --------------------------------------------------------------------------------------------------------


def test_an_operator_reads_what_it_takes(house: Installed, portal: Sandbox) -> None:
    """Log, reasons, figures, configuration and ZIPs; nothing of it is written by hand, and no secret is read."""
    portal.set_faults(Fault(kind=FaultKind.STATUS, status=422, times=1))
    house.drop("refused.zip", user=DROPPER, seed=4000)
    house.wait_for("rejected", "refused.zip")
    for file in (
        "log.csv", "rejected/refused.zip", "rejected/refused.zip.reason.txt", "logs/observability.json",
        ".tfwatch/state.json", ".tfwatch/index.sqlite", ".tfwatch/lock",
    ):  # fmt: skip
        shell(house, OPERATOR, f"cat {SPOOL}/{file} > /dev/null")
    for folder in ("", "/outbox", "/submitted", "/delivered", "/rejected", "/rollbacks", "/logs", "/.tfwatch/claimed"):
        shell(house, OPERATOR, f"ls {SPOOL}{folder}/")
    shell(house, OPERATOR, f"cat {CONFIG} > /dev/null")
    for file in ("log.csv", ".tfwatch/index.sqlite", ".tfwatch/lock", ".tfwatch/state.json"):
        refused(house, OPERATOR, f": >> {SPOOL}/{file}")
    refused(house, OPERATOR, f"rm -f {SPOOL}/log.csv")
    refused(house, OPERATOR, f"mv {SPOOL}/log.csv {SPOOL}/outbox/")
    refused(house, OPERATOR, f": >> {CONFIG}")
    refused(house, OPERATOR, f"cat {CREDENTIALS}/gotranscript_api_key")


def test_an_operator_moves_packages_between_all_folders(house: Installed, portal: Sandbox) -> None:
    """Each `mv` succeeds, is logged as an operator's and obeyed, whoever dropped the ZIP."""
    portal.set_faults(Fault(kind=FaultKind.STATUS, status=422, times=1))
    house.drop("moved.zip", user=DROPPER, seed=4100)
    house.wait_for("rejected", "moved.zip")
    here = "rejected"
    for there, event in (
        ("submitted", "MOVED"), ("rejected", "MOVED"), ("delivered", "MOVED"), ("submitted", "MOVED"),
        ("delivered", "MOVED"), ("rejected", "MOVED"), ("outbox", "REQUEUED"),
    ):  # fmt: skip
        before = len(house.rows("moved.zip"))
        shell(house, OPERATOR, f"mv {SPOOL}/{here}/moved.zip {SPOOL}/{there}/")
        wait_until(lambda before=before: len(house.rows("moved.zip")) > before, f"{here} → {there} is logged")
        row = house.rows("moved.zip")[before]
        assert (event, "operator", here, there) == (row["event"], row["actor"], row["from_stage"], row["to_stage"])
        here = there
    wait_until(lambda: "moved.zip" not in house.names("outbox"), "it is taken up from there")


def test_out_of_the_outbox_by_mv_only_ones_own(held: Installed) -> None:
    """The outbox is sticky: what another has dropped is cancelled by command, and the log says who asked."""
    held.drop("waits.zip", user=DROPPER, seed=4200)
    held.machine.run("usermod", "--append", "--groups", "tfwatch-drop", OPERATOR)
    held.drop("own.zip", user=OPERATOR, seed=4201)
    refused(held, OPERATOR, f"mv {OUTBOX}/waits.zip {SPOOL}/rejected/")
    said = shell(held, OPERATOR, "tfwatch cancel waits.zip")
    assert "waits.zip: cancelled, now in rejected/" in said
    shell(held, OPERATOR, f"mv {OUTBOX}/own.zip {SPOOL}/rejected/")
    for name in ("waits.zip", "own.zip"):
        wait_until(lambda name=name: held.events(name), f"{name} is logged")
        (row,) = held.rows(name)
        assert ("MOVED", "operator", "outbox", "rejected") == (
            row["event"], row["actor"], row["from_stage"], row["to_stage"],
        )  # fmt: skip
        assert ("cancelled by olga" in row["detail"]) is (name == "waits.zip")
        assert "put here by an operator" in shell(held, OPERATOR, f"cat {SPOOL}/rejected/{name}.reason.txt")


def test_an_operators_commands_need_no_sudo(house: Installed, portal: Sandbox) -> None:
    """They look, ask and switch; what they ask for is done, and the log says that she asked, whatever she claims."""
    portal.set_faults(Fault(kind=FaultKind.STATUS, status=422, times=1))
    house.drop("again.zip", user=DROPPER, seed=4300)
    house.wait_for("rejected", "again.zip")
    status = json.loads(house.machine.run("tfwatch", "status", "--json", user=OPERATOR, check=False).stdout)
    assert status["daemon"]["running"]
    assert [] == status["config_problems"]
    assert ("enabled", True) == tuple(status["integrations"]["gotranscript"][key] for key in ("state", "enabled"))
    assert "no API key" not in json.dumps(status)
    assert "again.zip" in shell(house, OPERATOR, "tfwatch why again.zip")
    assert "REFUSED" in shell(house, OPERATOR, "tfwatch log -n 5")
    said = shell(house, OPERATOR, "LOGNAME=root tfwatch requeue again.zip")
    assert "again.zip: now in" in said
    house.wait_for("delivered", "again.zip")
    (row,) = [row for row in house.rows("again.zip") if row["event"] == "REQUEUED"]
    assert f"requeued by {OPERATOR}" in row["detail"]
    assert "disabled" in shell(house, OPERATOR, "tfwatch disable gotranscript --reason tonight")
    assert "enabled" in shell(house, OPERATOR, "tfwatch enable gotranscript")


def test_an_operators_commands_work_with_the_daemon_stopped(house: Installed, portal: Sandbox) -> None:
    """They look at folders, log and index; what they ask for is done at the next start, before anything is sent."""
    house.machine.run("systemctl", "stop", UNIT)
    house.drop("stopped.zip", user=DROPPER, seed=4400)
    before = len(portal.orders())
    status = json.loads(house.machine.run("tfwatch", "status", "--json", user=OPERATOR, check=False).stdout)
    assert not status["daemon"]["running"]
    assert "no API key" not in json.dumps(status)
    assert "stopped.zip" in house.machine.run("tfwatch", "why", "stopped.zip", user=OPERATOR).stdout
    shell(house, OPERATOR, "tfwatch log -n 5")
    assert "done at the next start" in shell(house, OPERATOR, "tfwatch cancel stopped.zip")
    house.machine.run("systemctl", "start", UNIT)
    house.wait_for("rejected", "stopped.zip")
    wait_until(lambda: house.events("stopped.zip"), "it is logged")
    assert ["MOVED"] == house.events("stopped.zip")
    assert "cancelled by olga" in house.rows("stopped.zip")[0]["detail"]
    assert before == len(portal.orders())


def test_secrets_in_files_that_operators_may_not_read(house: Installed) -> None:
    """A `*_file` key whose file only the daemon reads is no problem of an operator's: the commands answer as ever."""
    secret = "/etc/tfwatch/s3_secret"
    house.machine.write(secret, "secret\n", mode=0o600)
    house.machine.run("chown", "tfwatch", secret)
    s3 = {"enabled": True, "bucket": "backups", "endpoint_url": "http://127.0.0.1:9", "access_key": "id"}
    house.configure(integrations={"s3": {**s3, "secret_key_file": secret}})
    try:
        wait_until(lambda: house.state()["integrations"]["s3"]["enabled"], "it is taken over")
        done = house.machine.run("tfwatch", "status", "--json", user=OPERATOR, check=False)
        assert [] == json.loads(done.stdout)["config_problems"], done.stderr
        shell(house, OPERATOR, "tfwatch log -n 1")
        refused(house, OPERATOR, f"cat {secret}")
    finally:
        house.configure(integrations={"s3": {"enabled": False}})


# --- it stays so ------------------------------------------------------------------------------------------------------


def rights(house: Installed) -> dict[str, tuple[str, bytes, bytes]]:
    """Owner, mode and ACLs of the spool's folders."""
    found = {}
    for path in (house.spool, *(path for path in house.spool.rglob("*") if path.is_dir())):
        info = path.stat()
        acls = [_acl(str(path), kind) for kind in ("access", "default")]
        found[str(path.relative_to(house.spool))] = (
            f"{info.st_uid}:{info.st_gid} {stat.S_IMODE(info.st_mode):o}",
            *acls,
        )
    return found


def _acl(path: str, kind: str) -> bytes:
    try:
        return os.getxattr(path, f"system.posix_acl_{kind}")
    except OSError:
        return b""


def test_starts_and_tmpfiles_leave_all_rights_as_they_are(house: Installed) -> None:
    """systemd sets the root's mode at each start, systemd-tmpfiles all of them at each boot: nothing is undone."""
    before = rights(house)
    house.machine.run("systemctl", "restart", UNIT)
    assert before == rights(house)
    house.machine.run("systemd-tmpfiles", "--create", "tfwatch.conf")
    assert before == rights(house)


def test_folders_that_are_made_again_serve_operators(house: Installed) -> None:
    """Somebody removes folders: the daemon's new ones are the operators', by the default ACL of what they lie in."""
    house.machine.run("systemctl", "stop", UNIT)
    house.machine.run(
        "rm", "-r", *(f"{SPOOL}/{name}" for name in ("submitted", "rejected", "logs", ".tfwatch/claimed"))
    )
    house.machine.run("systemctl", "start", UNIT)
    for folder in ("submitted", "rejected"):
        shell(house, OPERATOR, f"touch {SPOOL}/{folder}/x && rm {SPOOL}/{folder}/x")
        refused(house, DROPPER, f"ls {SPOOL}/{folder}")
    for folder in ("logs", ".tfwatch/claimed"):
        shell(house, OPERATOR, f"ls {SPOOL}/{folder}")
    wait_until((house.spool / "logs" / "observability.json").exists, "the figures are written")
    shell(house, OPERATOR, f"cat {SPOOL}/logs/observability.json > /dev/null")
    shell(house, OPERATOR, "tfwatch status > /dev/null || test $? = 1")
