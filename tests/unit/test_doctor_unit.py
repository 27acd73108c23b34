"""The installed systemd unit as doctor reads it: the one that is shipped is fine, each known mistake is found."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tfwatch.config import Config
from tfwatch.doctor import unit as units
from tfwatch.doctor.case import Case
from tfwatch.doctor.finding import Finding
from tfwatch.doctor.unit_check import systemd
from tfwatch.doctor.who import User, daemon_user
from tfwatch.look import Settings
from tfwatch.spool import lock
from tfwatch.spool.folders import Folders

SHIPPED = Path(__file__).parents[2] / "systemd" / "tfwatch.service"
DEFAULT = "/etc/tfwatch/config.yaml"
NO_SYSTEMD = "systemd does not run here"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where units lie; the shipped one is installed, with a user and credentials that this machine has."""
    folder = tmp_path / "system"
    folder.mkdir()
    shutil.copy(SHIPPED, folder / units.NAME)
    (tmp_path / "credentials").mkdir()
    me = pwd.getpwuid(os.geteuid()).pw_name
    # root would be a finding of its own
    user = me if os.geteuid() else "nobody"
    drop_in(folder, "10-here.conf", f"User={user}", "LoadCredential=", f"LoadCredential=tfwatch:{tmp_path}/credentials")
    return folder


def drop_in(folder: Path, name: str, *lines: str) -> None:
    """What `systemctl edit` leaves."""
    beside = folder / f"{units.NAME}.d"
    beside.mkdir(exist_ok=True)
    (beside / name).write_text("\n".join(("[Service]", *lines, "")))


def case_for(folder: Path, root: str = "/var/lib/tfwatch", config: str = DEFAULT) -> tuple[Case, units.Unit]:
    installed = units.find((str(folder),))
    assert installed is not None
    settings = Settings(path=config, config=Config(), sources={})
    user = User(uid=os.geteuid(), gid=os.getegid(), why="a test says so")
    unit = installed if installed.config == config else None
    return Case(settings=settings, folders=Folders(root), user=user, unit=unit), installed


def checked(folder: Path, root: str = "/var/lib/tfwatch", asked: Mapping[str, str] | None = None) -> list[Finding]:
    case, installed = case_for(folder, root)
    return list(systemd(case, installed, asked or NO_SYSTEMD))


def said(findings: list[Finding]) -> str:
    return " ".join(f"{each.result}: {each.seen} -> {each.what_to_do}" for each in findings)


def test_the_shipped_unit_is_fine(folder: Path) -> None:
    """What the project ships passes its own check."""
    found = checked(folder)

    assert ["ok"] == [each.result for each in found], said(found)


@pytest.mark.parametrize(
    ("line", "result", "words"),
    [
        ("PrivateUsers=yes", "failure", "takes the leases away"),
        ("PrivateUsers=self", "failure", "takes the leases away"),
        ("NotifyAccess=none", "failure", "never hears READY=1"),
        ("Type=simple", "warning", "does not wait until deliveries are possible"),
        ("WatchdogSec=0", "warning", "a hung daemon is not restarted"),
        ("WatchdogSec=500ms", "warning", "one slow pass"),
        ("User=no-such-user", "failure", "there is no such user"),
        ("User=root", "warning", "runs as root"),
        ("DynamicUser=yes", "failure", "belong to nobody"),
        ("AmbientCapabilities=", "warning", "AmbientCapabilities= lacks CAP_LEASE"),
        ("CapabilityBoundingSet=~CAP_LEASE CAP_CHOWN", "warning", "CapabilityBoundingSet= lacks CAP_LEASE"),
        ("LoadCredential=key:/no/such/file", "failure", "the unit can't start"),
    ],
)
def test_a_mistake_in_a_drop_in_is_found(folder: Path, line: str, result: str, words: str) -> None:
    """Each is told in its own words, with the line that mends it."""
    empty = "CapabilityBoundingSet=\n" if line.startswith("CapabilityBoundingSet") else ""
    drop_in(folder, "50-mistake.conf", empty + line)
    found = checked(folder)

    assert [result] == [each.result for each in found], said(found)
    assert words in found[0].seen
    assert found[0].what_to_do


@pytest.mark.parametrize(
    ("root", "lines", "words"),
    [
        ("/srv/spool", (), "neither StateDirectory= nor ReadWritePaths= covers /srv/spool"),
        ("/srv/spool", ("ReadWritePaths=/srv/spool",), ""),
        ("/srv/spool", ("ReadWritePaths=-/srv",), ""),
        ("/srv/spool", ("ReadWritePaths=/srv/spool-2",), "covers /srv/spool"),
        ("/srv/spool", ("ReadWritePaths=/srv/spool/outbox /srv/spool/delivered",), "a mount of its own inside"),
        ("/srv/spool", ("ProtectSystem=full",), ""),
        ("/home/ana/spool", ("ReadWritePaths=/home/ana/spool",), "ProtectHome= hides /home/ana/spool"),
        ("/home/ana/spool", ("ReadWritePaths=/home/ana/spool", "ProtectHome=no"), ""),
        ("/tmp/spool", ("ReadWritePaths=/tmp/spool",), "PrivateTmp=yes hides /tmp/spool"),
    ],
)
def test_the_unit_must_let_the_daemon_into_the_spool(
    folder: Path, root: str, lines: tuple[str, ...], words: str
) -> None:
    """The whole spool is writable through one mount, or it is said why it isn't."""
    drop_in(folder, "50-spool.conf", *lines)
    found = checked(folder, root)

    assert ["failure" if words else "ok"] == [each.result for each in found], said(found)
    assert words in found[0].seen


def test_a_credential_that_everybody_reads_is_named(folder: Path, tmp_path: Path) -> None:
    """A file of the folder that LoadCredential= names, but only if others may get into that folder."""
    key = tmp_path / "credentials" / "gotranscript_api_key"
    key.write_text("k")
    key.chmod(0o644)
    assert ["failure"] == [each.result for each in checked(folder)]
    assert str(key) in said(checked(folder))

    key.parent.chmod(0o700)
    assert ["ok"] == [each.result for each in checked(folder)]


def test_a_drop_in_wins_and_an_empty_line_forgets(folder: Path) -> None:
    """As systemd reads it: later files over earlier ones, lists grow until they are emptied, comments are none."""
    drop_in(folder, "60-a.conf", "ReadWritePaths=/a", "# ReadWritePaths=/no", "ReadWritePaths=/b \\", "  /c")
    drop_in(folder, "70-b.conf", "ReadWritePaths=", "ReadWritePaths=/d", "WatchdogSec=30")
    unit = units.find((str(folder),))

    assert unit is not None
    assert (["/d"], "30") == (unit.words("ReadWritePaths"), unit.last("WatchdogSec"))
    drop_in(folder, "70-b.conf", "WatchdogSec=30")
    unit = units.find((str(folder),))
    assert unit is not None
    assert ["/a", "/b", "/c"] == unit.words("ReadWritePaths")


def test_the_first_folder_wins(folder: Path, tmp_path: Path) -> None:
    """A unit in /etc stands over the package's own, and so does a drop-in of the same name."""
    vendor = tmp_path / "vendor"
    vendor.mkdir()
    (vendor / units.NAME).write_text("[Service]\nUser=vendor\n")
    drop_in(vendor, "10-here.conf", "User=no-such-user")
    unit = units.find((str(folder), str(vendor)))

    assert unit is not None
    assert str(folder / units.NAME) == unit.path
    assert "no-such-user" != unit.last("User")


def test_a_unit_with_other_settings_is_not_held_against_these(folder: Path) -> None:
    """Who tries a config.yaml of his own is not told of the unit's faults, but where to look."""
    case, installed = case_for(folder, config="/home/ana/config.yaml")
    found = list(systemd(case, installed, NO_SYSTEMD))

    assert ["skipped"] == [each.result for each in found]
    assert f"tfwatch doctor -c {DEFAULT}" == found[0].what_to_do


def test_one_of_several_daemons_is_found_by_its_settings(folder: Path) -> None:
    """tfwatch@lisbon.service is whose settings lie in lisbon/, with its drop-ins and those of all; advice names it."""
    shutil.copy(SHIPPED.with_name(units.TEMPLATE), folder)
    for name, line in ((units.TEMPLATE, "WatchdogSec=30"), ("tfwatch@lisbon.service", "PrivateUsers=yes")):
        (folder / f"{name}.d").mkdir()
        (folder / f"{name}.d" / f"{line}.conf").write_text(f"[Service]\n{line}\n")
    lisbon, porto, alone, other = (
        units.find((str(folder),), config=f"/etc/{name}/config.yaml")
        for name in ("tfwatch/lisbon", "tfwatch/porto", "tfwatch", "elsewhere")
    )
    assert lisbon is not None
    assert porto is not None
    assert alone is not None
    assert alone == other
    assert ["tfwatch@lisbon", "tfwatch@porto", "tfwatch"] == [unit.called for unit in (lisbon, porto, alone)]
    assert "/etc/tfwatch/lisbon/config.yaml" == lisbon.config
    assert ["tfwatch-lisbon"] == lisbon.words("StateDirectory")
    assert ("30", "30", "60") == tuple(unit.last("WatchdogSec") for unit in (lisbon, porto, alone))
    assert (True, False) == (lisbon.is_on("PrivateUsers"), porto.is_on("PrivateUsers"))

    settings = Settings(path=lisbon.config, config=Config(), sources={})
    user = User(uid=os.geteuid(), gid=os.getegid(), why="a test says so")
    case = Case(settings=settings, folders=Folders("/var/lib/tfwatch-lisbon"), user=user, unit=lisbon)
    assert "sudo systemctl restart tfwatch@lisbon" in said(list(systemd(case, lisbon, NO_SYSTEMD)))


def test_no_unit_is_no_fault() -> None:
    """tfwatch runs without systemd, too."""
    case = Case(
        settings=Settings(path=DEFAULT, config=Config(), sources={}),
        folders=Folders("/var/lib/tfwatch"),
        user=User(uid=0, gid=0, why="a test says so"),
        unit=None,
    )
    assert ["skipped"] == [each.result for each in systemd(case, None, NO_SYSTEMD)]
    assert units.find(("/no/such/folder",)) is None


def test_the_unit_names_the_daemons_user(folder: Path, tmp_path: Path) -> None:
    """Everything is tried as the user of the unit; without one, as whose the spool is."""
    _, unit = case_for(folder)
    named = pwd.getpwnam(unit.last("User"))

    assert named.pw_uid == daemon_user(Folders(str(tmp_path)), unit).uid
    assert os.stat(tmp_path).st_uid == daemon_user(Folders(str(tmp_path)), None).uid


@pytest.mark.parametrize(
    ("said_by_systemd", "result", "words"),
    [
        ({"ActiveState": "active", "UnitFileState": "enabled", "NeedDaemonReload": "no", "MainPID": "7"}, "ok", ""),
        ({"NeedDaemonReload": "yes"}, "warning", "changed since systemd read them"),
        ({"ActiveState": "failed", "Result": "watchdog"}, "failure", "failed (watchdog)"),
        ({"UnitFileState": "disabled"}, "warning", "does not start with the machine"),
    ],
)
def test_what_systemd_says_counts(folder: Path, said_by_systemd: dict[str, str], result: str, words: str) -> None:
    """The unit's state, in the properties of `systemctl show`."""
    found = checked(folder, asked=said_by_systemd)

    assert [result] == [each.result for each in found], said(found)
    assert words in found[0].seen


def test_another_daemon_than_the_units_is_named(folder: Path, tmp_path: Path) -> None:
    """Somebody started a second one by hand and it was first: the unit's can't get in."""
    drop_in(folder, "50-spool.conf", f"ReadWritePaths={tmp_path}", "PrivateTmp=no")
    folders = Folders(str(tmp_path))
    folders.prepare()
    with lock.hold(folders.lock):
        found = checked(folder, str(tmp_path), asked={"MainPID": "1"})

    assert ["failure"] == [each.result for each in found], said(found)
    assert f"process {os.getpid()} holds the spool, but the unit's is 1" == found[0].seen
