"""What packages are made from agrees with the program: versions, locks, the build's name."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tfwatch import __version__
from tfwatch.built import build, commit

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DEBIAN = ROOT / "packaging" / "debian"
EXTRAS = PROJECT["project"]["optional-dependencies"]
WANTED = {
    "runtime": [*PROJECT["project"]["dependencies"], *EXTRAS["systemd"], *EXTRAS["alerts"]],
    "build": [*PROJECT["build-system"]["requires"], *PROJECT["dependency-groups"]["package"]],
}


def lock(name: str) -> str:
    return (ROOT / "packaging" / "lock" / f"{name}.txt").read_text(encoding="utf-8")


def pinned(name: str) -> dict[str, Version]:
    """Each library that a lock names, with its one version."""
    return {canonicalize_name(n): Version(v) for n, v in re.findall(r"^([\w.-]+)==(\S+) \\$", lock(name), re.MULTILINE)}


@pytest.mark.parametrize("name", WANTED)
def test_a_lock_has_what_pyproject_asks_for(name: str) -> None:
    """Each requirement is in the lock, with a version that it allows: `make lock` was run after the last change."""
    there = pinned(name)
    for requirement in map(Requirement, WANTED[name]):
        assert there[canonicalize_name(requirement.name)] in requirement.specifier, requirement


@pytest.mark.parametrize("name", WANTED)
def test_a_lock_names_contents_and_no_place(name: str) -> None:
    """Each library is known by the hash of its files and may come from anywhere: a lock has no other line."""
    lines = [line for line in lock(name).splitlines() if not line.lstrip().startswith("#")]
    entries = re.split(r"^(?=\S)", "\n".join(lines), flags=re.MULTILINE)[1:]
    assert len(entries) == len(pinned(name)) > 5
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n?", entry), entry


def test_one_version_everywhere() -> None:
    """The program, the wheel and the Debian package have the same version."""
    changelog = (DEBIAN / "changelog").read_text(encoding="utf-8")
    first = re.match(r"tfwatch \((\S+)-\d+\) ", changelog)
    assert first is not None
    assert __version__ == PROJECT["project"]["version"] == first[1]


def test_the_debian_package_is_for_one_python() -> None:
    """Its compiled libraries are for Python 3.11, so it asks for that and no other."""
    control = (DEBIAN / "control").read_text(encoding="utf-8")
    depends = re.search(r"^Depends:\n((?: .*\n)+)", control, re.MULTILINE)
    assert depends is not None
    asked = set(re.findall(r"^ (.*),$", depends[1], re.MULTILINE))
    assert {"python3 (>= 3.11)", "python3 (<< 3.12)", "${shlibs:Depends}"} <= asked


def test_a_package_says_its_build(tmp_path: Path) -> None:
    """What was written down at the build is what is said; git is not asked."""
    (tmp_path / "build.txt").write_text("98eec2a, deb 0.1.0-1\n", encoding="utf-8")
    assert build(tmp_path) == "98eec2a, deb 0.1.0-1"


def test_a_checkout_says_its_commit_and_that_it_was_changed(tmp_path: Path) -> None:
    """The commit's short name; with a changed file, that too; outside of a checkout nothing is claimed."""

    def git(*words: str) -> str:
        who = ("-c", "user.name=Ana", "-c", "user.email=ana@example.com")
        return subprocess.check_output(["git", "-C", str(tmp_path), *who, *words], text=True).strip()

    file = tmp_path / "tfwatch" / "a.py"
    file.parent.mkdir()
    file.write_text("a = 1\n", encoding="utf-8")
    assert commit(tmp_path) is None
    assert build(file.parent) is None
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    name = git("rev-parse", "--short", "HEAD")
    assert build(file.parent) == name
    file.write_text("a = 2\n", encoding="utf-8")
    assert build(file.parent) == f"{name}-changed"
