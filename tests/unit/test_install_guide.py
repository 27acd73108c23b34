"""docs/INSTALL.md against the checkout; `tests/system/test_install_paths.py` types its commands on a booted Debian."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.support.require import need
from tests.unit.test_docs import code_in, rows_after, text_of
from tests.unit.test_units import ONE, PERSON, SEVERAL, directives

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "INSTALL.md"
TEXT = text_of(GUIDE)
CODE = "\n".join(code_in(TEXT))


def test_every_file_named_is_there() -> None:
    """What the guide installs, builds from or points to lies in the checkout."""
    named = set(re.findall(r"(?<![\w/.~-])(?:systemd|packaging|docs|tests)/[\w@./-]*\w", CODE))
    assert {str(path.relative_to(ROOT)) for path in (ONE, SEVERAL, PERSON)} <= named
    assert [] == sorted(name for name in named if not (ROOT / name).exists())


def test_the_folders_are_those_of_the_units() -> None:
    """Settings and secrets lie where the units look for them, for one daemon and for several."""
    for unit, name in ((ONE, ""), (SEVERAL, "lisbon")):
        values = [each.replace("%i", name) for each in directives(unit)]
        config = next(each.rpartition(" -c ")[2] for each in values if each.startswith("Service.ExecStart="))
        secrets = next(each.partition(":")[2] for each in values if each.startswith("Service.LoadCredential="))
        spool = "/var/lib/" + next(
            each.partition("=")[2] for each in values if each.startswith("Service.StateDirectory=")
        )
        assert {config, secrets, spool} <= set(re.findall(r"/(?:etc|var)/[\w./-]*\w", CODE))
    assert "~/.config/tfwatch/config.yaml" in CODE  # %E/tfwatch/config.yaml
    assert "%E/tfwatch/config.yaml" in text_of(PERSON)


def test_every_group_named_is_made() -> None:
    """Nobody is told to join a group that isn't there."""
    made = set(re.findall(r"^[ug] +(\S+)", text_of(ROOT / "systemd" / "sysusers.d" / "tfwatch.conf"), re.MULTILINE))
    joined = set(re.findall(r"adduser \w+ ([\w-]+)", CODE)) | set(re.findall(r"-g ([\w-]+)", CODE))
    assert {"tfwatch-drop", "tfwatch-ops"} <= joined
    assert set() == joined - made


def test_what_is_said_of_the_exposure_is_what_the_unit_says() -> None:
    """One figure, in the guide and at the unit's head, where it is held against systemd's own."""
    assert re.findall(r"`systemd-analyze security \w+` gives (\d\.\d)", TEXT) == re.findall(
        r"says (\d\.\d)", text_of(ONE)
    )


def test_each_way_says_how_it_is_proven() -> None:
    """Each of the four ways has its section and names tests; that those are there, the first test sees."""
    table = re.findall(r"^\| \[([^]]+)\]\(#[^)]+\) \|.*\| (.+) \|$", TEXT, re.MULTILINE)
    assert 4 == len(table)
    assert {way.lower() for way, _ in table} <= set(re.findall(r"^## (.+)$", TEXT.lower(), re.MULTILINE))
    assert all("tests" in proof or "same file" in proof for _, proof in table)


def test_systemd_takes_the_drop_ins(tmp_path: Path) -> None:
    """Each line that the table of drop-ins names is one that systemd knows, and takes with that value."""
    need("systemd-analyze")
    lines = [word for row in rows_after(GUIDE, "drop-ins") for word in re.findall(r"`([A-Z]\w+=[^`]+)`", row[1])]
    assert "ReadWritePaths=/srv/tfwatch" in lines
    unit = tmp_path / "drop-ins.service"
    unit.write_text("\n".join(("[Service]", "ExecStart=/bin/true", *lines, "")))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert [] == [line for line in done.stderr.splitlines() if unit.name in line]
