"""The manual's pages say what the program does: every command, option, example, key, signal and exit code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from tests.support.require import need
from tfwatch import daemon
from tfwatch.cli import app
from tfwatch.settings_problems import KEYS
from tfwatch.settings_sources import SECRETS, VARIABLES

ROOT = Path(__file__).parents[2]
PAGES = ("tfwatch.1", "tfwatch.yaml.5", "tfwatch.8")
COMMANDS = typer.main.get_group(app).commands
# Midnight at the end of a year: a date in local time would be another day.
MOMENT = {"SOURCE_DATE_EPOCH": "1735689599"}


def _make(folder: Path, variables: dict[str, str] = MOMENT) -> Path:
    script = ROOT / "packaging" / "scripts" / "reference"
    done = subprocess.run(
        [str(script), sys.executable, str(folder)], env=os.environ | variables, cwd=ROOT, capture_output=True, text=True
    )
    assert ("", 0) == (done.stderr, done.returncode)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make man` makes."""
    return _make(tmp_path_factory.mktemp("made"))


def shown(path: Path) -> str:
    """A page as people read it, in lines so wide that none is broken."""
    done = subprocess.run(
        [need("mandoc"), "-Tutf8", "-O", "width=1000", str(path)], capture_output=True, text=True, check=True
    )
    return re.sub(r".\x08", "", done.stdout)


def sections(text: str, indent: int) -> dict[str, str]:
    """The parts of a page below the headings that stand at this indent."""
    parts = re.split(rf"^ {{{indent}}}(\S.*)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_sound(made: Path, name: str) -> None:
    """Neither mandoc nor man-db has anything to say about a page."""
    path = str(made / "man" / name)
    linted = subprocess.run([need("mandoc"), "-Tlint", path], capture_output=True, text=True)
    assert ("", "", 0) == (linted.stdout, linted.stderr, linted.returncode)
    environ = os.environ | {"LC_ALL": "C.UTF-8", "MANWIDTH": "80"}
    read = subprocess.run(
        [need("man"), "--warnings", "-E", "UTF-8", "-l", path], env=environ, capture_output=True, text=True
    )
    assert ("", 0) == (read.stderr, read.returncode)
    assert "\nNAME\n" in re.sub(r".\x08|\x1b\[[\d;]*m", "", read.stdout)


def test_the_same_sources_give_the_same_files(made: Path, tmp_path: Path) -> None:
    """Built again, elsewhere in the world, each file is the same to the byte, dated by SOURCE_DATE_EPOCH."""
    again = _make(tmp_path / "again", MOMENT | {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7"})
    files = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    assert len(PAGES) + 3 == len(files)
    for file in files:
        assert (made / file).read_bytes() == (again / file).read_bytes()
    assert ".Dd December 31, 2024" in (made / "man" / "tfwatch.1").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_whole(made: Path, name: str) -> None:
    """Its section has each option under each of its names, each argument, the help's first line and each example."""
    found = sections(sections(shown(made / "man" / "tfwatch.1"), 0)["COMMANDS"], 3)[name]
    command = COMMANDS[name]
    assert command.help
    text, _, examples = command.help.partition("\b\n")
    assert text.splitlines()[0].replace("`", "") in found
    terms = set(re.findall(r"[^\s,]+", "\n".join(re.findall(r"^ {5}(\S.*)$", found, re.MULTILINE))))
    for parameter in command.params:
        assert {*getattr(parameter, "secondary_opts", ())} <= terms
        if parameter.param_type_name == "option":
            assert set(parameter.opts) <= terms
            assert " ".join((parameter.help or "").split()) in re.sub(r"\s+", " ", found)
        else:
            assert parameter.metavar in terms
    lines = examples.strip().splitlines()
    assert lines
    for line in lines:
        assert re.search(rf"^ +{re.escape(line)}$", found, re.MULTILINE)


def test_every_command_is_in_the_synopsis(made: Path) -> None:
    """One line for each, with its arguments."""
    synopsis = sections(shown(made / "man" / "tfwatch.1"), 0)["SYNOPSIS"]
    assert set(COMMANDS) == set(re.findall(r"^ +tfwatch ([a-z-]+)", synopsis, re.MULTILINE)) - {"--version", "--help"}
    assert re.search(r"tfwatch requeue .*\[--force\].*\[-c FILE\].* NAME \.\.\.$", synopsis, re.MULTILINE)


def test_every_key_is_explained(made: Path) -> None:
    """Each key of config.yaml has an entry with its default, and no other key has one."""
    text = shown(made / "man" / "tfwatch.yaml.5")
    entries = dict(re.findall(r"^ {5}([a-z][\w.]*)\n +(\S.*)$", sections(text, 0)["KEYS"], re.MULTILINE))
    assert KEYS - set(_sections(KEYS)) == set(entries)
    example = yaml.safe_load((ROOT / "config.yaml.example").read_text(encoding="utf-8"))
    for key, told in entries.items():
        value = example
        for part in key.split("."):
            value = value[part]
        written = told.rpartition(": ")[2]
        assert value == yaml.safe_load(written), key


def _sections(keys: frozenset[str]) -> set[str]:
    return {key.rpartition(".")[0] for key in keys} & keys


def test_every_variable_and_credential_is_named(made: Path) -> None:
    """Whoever reads only tfwatch.yaml(5) knows every way for a value to come."""
    text = shown(made / "man" / "tfwatch.yaml.5")
    names = {*VARIABLES, *(s.credential for s in SECRETS), *(s.variable for s in SECRETS if s.variable)}
    assert set() == {name for name in names if not re.search(rf"\b{name}\b", text)}


def test_the_daemons_signals_are_explained(made: Path) -> None:
    """The signals it takes, all of them and no others."""
    told = sections(shown(made / "man" / "tfwatch.8"), 0)["SIGNALS"]
    assert {number.name for number in daemon._SIGNALS} == set(re.findall(r"\bSIG[A-Z]+\b", told))


def test_what_systemd_is_told_is_explained(made: Path) -> None:
    """Every word of sd_notify that stands in the code, and no other."""
    told = sections(shown(made / "man" / "tfwatch.8"), 0)["THE SERVICE MANAGER"]
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tfwatch" / "observe").glob("*.py"))
    said = set(re.findall(r'"((?:[A-Z]+_)*[A-Z]+=1?)', code)) & set(re.findall(r"[A-Z_]+=1?", told))
    assert said == set(re.findall(r"^ {5}([A-Z_]+=1?)$", told, re.MULTILINE))
    words = {"READY=1", "RELOADING=1", "STOPPING=1", "WATCHDOG=1", "STATUS=", "EXTEND_TIMEOUT_USEC="}
    assert words == said


@pytest.mark.parametrize("name", ["tfwatch.1", "tfwatch.8"])
def test_exit_codes_are_those_of_help(made: Path, name: str) -> None:
    """Each exit code that --help names is explained."""
    told = sections(shown(made / "man" / name), 0)["EXIT STATUS"]
    epilog = typer.main.get_group(app).epilog or ""
    assert {"0", "1", "2", "75", "78"} == set(re.findall(r"\b\d+\b", epilog))
    assert set(re.findall(r"\b\d+\b", epilog)) == set(re.findall(r"^ {5}(\d+) ", told, re.MULTILINE))
