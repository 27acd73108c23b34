"""The Debian package: the same bytes wherever it is built, and nothing in it that should not be. `make test-deb`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tfwatch import __version__

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "packaging" / "scripts" / "build-deb"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A package, the folder it was built in, and the folder it is unpacked in."""

    deb: Path
    where: Path
    tree: Path

    def files(self) -> Iterator[Path]:
        return (Path(folder, name) for folder, _, names in os.walk(self.tree) for name in names)


def build(where: Path, *, umask: int, zone: str) -> Path:
    """Built in `where`, by somebody with this umask and time zone; lintian has no complaint, else this fails."""
    subprocess.run(
        [BUILD, where / "work", where / "out"], cwd=ROOT, check=True, umask=umask, env=os.environ | {"TZ": zone}
    )
    return next((where / "out").glob("tfwatch_*.deb"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    where = tmp_path_factory.mktemp("one")
    deb = build(where, umask=0o022, zone="UTC")
    tree = where / "tree"
    subprocess.run(["dpkg-deb", "--extract", deb, tree], check=True)
    return Built(deb=deb, where=where, tree=tree)


def test_two_builds_give_the_same_bytes(built: Built, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither the folder, nor the hour, nor the builder's umask and time zone leave a trace."""
    elsewhere = tmp_path_factory.mktemp("a-folder-with-a-much-longer-name")
    again = build(elsewhere, umask=0o077, zone="America/Sao_Paulo")
    assert built.deb.read_bytes() == again.read_bytes()


def test_no_file_names_the_folder_it_was_built_in(built: Built) -> None:
    """Not in scripts, not in metadata, not in compiled code."""
    traces = [str(built.where).encode(), str(ROOT).encode() + b"/", b"pip-req-build", b"pip-wheel-"]
    found = [file for file in built.files() if not file.is_symlink() and any(t in file.read_bytes() for t in traces)]
    assert not found


def test_only_what_runs_is_inside(built: Built) -> None:
    """No pip, no setuptools, no bytecode with dates, no tests, no second program."""
    site = next(built.tree.glob("usr/lib/tfwatch/lib/python3.*/site-packages"))
    assert (site / "tfwatch" / "py.typed").exists()
    assert not {"pip", "setuptools", "pkg_resources", "wheel", "hatchling"} & set(os.listdir(site))
    assert not [file for file in built.files() if file.suffix in {".pyc", ".c", ".h"} or file.name == "RECORD"]
    assert not [f for f in built.tree.rglob("*") if f.is_dir() and f.name in {"tests", "test", "__pycache__"}]
    assert {"tfwatch", "python", "python3", "python3.11"} == set(os.listdir(built.tree / "usr/lib/tfwatch/bin"))


def test_modes(built: Built) -> None:
    """Nobody but root may write anything; settings and credentials are closed before anyone has set them up."""
    assert not [file for file in built.tree.rglob("*") if not file.is_symlink() and file.stat().st_mode & 0o022]
    etc = built.tree / "etc" / "tfwatch"
    assert (etc / "config.yaml").stat().st_mode & 0o777 == 0o640
    assert (etc / "credentials").stat().st_mode & 0o777 == 0o700
    assert (etc / "config.yaml").read_bytes() == (ROOT / "config.yaml.example").read_bytes()
    conffiles = subprocess.check_output(["dpkg-deb", "--info", built.deb, "conffiles"], text=True).split()
    assert conffiles == ["/etc/tfwatch/config.yaml"]


def test_the_program_runs_from_the_package(built: Built) -> None:
    """Its own Python finds all its libraries, the optional ones too, and says which build and package it is."""
    python = built.tree / "usr/lib/tfwatch/bin/python"
    # The link leads out of the unpacked tree: to this machine's Python.
    python.parent.joinpath("python3").unlink()
    python.parent.joinpath("python3").symlink_to("/usr/bin/python3")
    environ = {"PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"}
    subprocess.run([python, "-c", "import apprise, systemd.daemon, systemd.journal"], check=True, env=environ)
    said = subprocess.check_output([python, "-m", "tfwatch", "--version"], text=True, env=environ, cwd="/")
    assert said.startswith(f"tfwatch {__version__} (build ")
    assert f", deb {__version__}-" in said
    started = (built.tree / "usr/lib/tfwatch/bin/tfwatch").read_text(encoding="utf-8").splitlines()[0]
    assert started == "#!/usr/lib/tfwatch/bin/python"
