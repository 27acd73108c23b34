"""The systemd units: systemd takes them, what weakens them has its reason beside it, and they don't drift apart."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.support.require import need

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
ONE, SEVERAL, PERSON = UNITS / "tfwatch.service", UNITS / "tfwatch@.service", UNITS / "user" / "tfwatch.service"
EXPOSURE = 1.5
"""Of 10, as `systemd-analyze security` counts; 252 on Debian 12 says 1.3."""
NEEDS_ROOT = re.compile(r"Protect|Private|ProcSubset|RemoveIPC|.*Capabilit|User$|Group$|StateDirectory")
"""What a person's systemd can't do: file systems of its own, other users, capabilities."""


def directives(path: Path) -> list[str]:
    """Every `Section.Name=value` in the file's order."""
    section, found = "", []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            found.append(f"{section}.{line}")
    return found


def name_of(directive: str) -> str:
    return directive.partition(".")[2].partition("=")[0]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Where systemd finds them; their program is there, which it asks for."""
    program = tmp_path / "tfwatch"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for path, name in ((ONE, ONE.name), (SEVERAL, "tfwatch@lisbon.service"), (PERSON, "person.service")):
        text = path.read_text(encoding="utf-8").replace("/usr/bin/tfwatch", str(program))
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", ["tfwatch.service", "tfwatch@lisbon.service", "person.service"])
def test_systemd_has_no_complaint(installed: Path, name: str) -> None:
    """`systemd-analyze verify`: no word it doesn't know, no value it ignores."""
    need("systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(["--user"] if name == "person.service" else []), installed / name],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(installed)},
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if name in line or str(installed) in line]
    assert [] == ours


@pytest.mark.parametrize("name", ["tfwatch.service", "tfwatch@lisbon.service"])
def test_the_exposure_is_small(installed: Path, name: str) -> None:
    """What `systemd-analyze security` counts stays below the promise."""
    need("systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE * 10:.0f}", installed / name],
        capture_output=True,
        text=True,
    )
    assert 0 == done.returncode, done.stdout + done.stderr


def test_what_weakens_it_has_its_reason(installed: Path) -> None:
    """Each thing that systemd counts against the unit stands in a comment with its share, and the sum at its head."""
    need("systemd-analyze")
    command = ["systemd-analyze", "security", "--offline=true", installed / ONE.name]
    told = subprocess.run([*command, "--json=short"], capture_output=True, text=True, check=True).stdout
    shares: Counter[str] = Counter()
    for each in json.loads(told):
        name = re.match(r"\w+", each["name"])
        assert name
        shares[name[0]] += round(float(each["exposure"] or 0) * 10)
    comments = " ".join(line for line in ONE.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    explained = {name: round(float(share) * 10) for name, share in re.findall(r"(\w+)= (\d\.\d)", comments)}
    assert {name: share for name, share in shares.items() if share} == explained

    overall = subprocess.run(command, capture_output=True, text=True).stdout
    assert re.findall(r"says (\d\.\d)", comments) == re.findall(r"Overall exposure .*: (\d\.\d)", overall)


def test_a_daemon_of_several_differs_in_its_places_only() -> None:
    """tfwatch@.service is tfwatch.service, directive by directive, but for its settings, secrets and spool."""
    ours = [
        each.replace("/etc/tfwatch/%i/", "/etc/tfwatch/").replace("=tfwatch-%i", "=tfwatch").replace(" (%i)", "")
        for each in directives(SEVERAL)
    ]
    assert directives(ONE) == ours
    assert 4 == sum("%i" in each for each in directives(SEVERAL))


def test_a_persons_daemon_lacks_only_what_needs_root() -> None:
    """The unit for `systemctl --user` has every directive that works there, with the same value but for its places."""
    one, person = directives(ONE), directives(PERSON)
    places = {"UMask", "ExecStart", "LoadCredential", "WantedBy"}
    gone = {each for each in one if each not in person and name_of(each) not in places}
    assert set() == {name for name in map(name_of, gone) if not NEEDS_ROOT.match(name)} - {"After", "Wants"}
    assert places == {name_of(each) for each in person if each not in one}


def test_the_spool_is_one_mount() -> None:
    """One place it may write to: each further one would be a mount that nothing can be renamed into or out of."""
    for path in (ONE, SEVERAL):
        values = directives(path)
        assert 1 == sum(name_of(each) in ("StateDirectory", "ReadWritePaths", "BindPaths") for each in values)
        assert "Service.ProtectSystem=strict" in values


def test_a_start_is_not_repeated_for_nothing() -> None:
    """Wrong settings and a second daemon end it at once. No command before ExecStart= may decide that: see the unit."""
    for path in (ONE, SEVERAL, PERSON):
        names = {name_of(each) for each in directives(path)}
        assert "Service.RestartPreventExitStatus=75 78" in directives(path)
        assert {"Restart", "StartLimitBurst", "WatchdogSec"} <= names
        assert set() == names & {"ExecStartPre", "ExecCondition"}


def test_a_missing_program_is_found(installed: Path) -> None:
    """The complaint that the first test looks for is one that systemd makes."""
    need("systemd-analyze")
    broken = installed / "broken.service"
    shutil.copy(installed / ONE.name, broken)
    with broken.open("a") as file:
        file.write("[Service]\nProtectSytem=strict\n")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", broken], capture_output=True, text=True)
    assert "ProtectSytem" in done.stderr
