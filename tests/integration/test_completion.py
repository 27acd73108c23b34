"""Completion in the real shells: what a TAB offers, and that no name in the spool can make a shell run anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests.support.shells import SHELLS, offered
from tfwatch.cli import app
from tfwatch.model import Integration

PLACES = {"bash": "tfwatch.bash", "zsh": "_tfwatch", "fish": "tfwatch.fish"}
COMMANDS = typer.main.get_group(app).commands
HOSTILE = (
    "$(touch pwned).zip", "`touch pwned`.zip", "${x:=y}.zip", "x;touch pwned.zip", "a'b.zip", 'a"b.zip', "a\\b.zip",
    "a!b.zip", 'x\\";touch pwned;".zip', "*.zip", "~root.zip", "two words.ZIP", "entrevista ção.zip",
)  # fmt: skip
NEVER = ("new\nline.zip", "-c.zip", "plain.zip.reason.txt", "folder.zip")


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """Each of the shells."""
    return str(request.param)


@pytest.fixture
def script(shell: str, tmp_path: Path) -> Path:
    """What `tfwatch completion` prints, under the name that the shell looks for."""
    done = subprocess.run([sys.executable, "-m", "tfwatch", "completion", shell], capture_output=True, check=True)
    folder = tmp_path / "scripts"
    folder.mkdir()
    path = folder / PLACES[shell]
    path.write_bytes(done.stdout)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the shell is: a file and a folder."""
    home = tmp_path / "home"
    (home / "below").mkdir(parents=True)
    (home / "mine.yaml").touch()
    return home


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Two packages are rejected, one of them and another are submitted."""
    for name in ("rejected/interview_v1.zip", "rejected/interview_v2.zip", "submitted/other_v1.zip"):
        path = tmp_path / "spool" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "spool"


def test_commands(shell: str, script: Path, home: Path) -> None:
    """Every command of --help is offered, and a beginning narrows them down."""
    shown = {name for name, command in COMMANDS.items() if not command.hidden}
    assert shown == {word for word in offered(shell, script, "tfwatch ", home) if not word.startswith("-")}
    assert {"requeue", "restore"} == set(offered(shell, script, "tfwatch re", home))


def test_options(shell: str, script: Path, home: Path) -> None:
    """Every long option of a command is offered, a switch both ways, and none of another command."""
    options = {name for p in COMMANDS["sandbox"].params for name in (*p.opts, *p.secondary_opts)}
    found = {word.rstrip("=") for word in offered(shell, script, "tfwatch sandbox --", home)}
    assert {name for name in options if name.startswith("--")} | {"--help"} == found


@pytest.mark.parametrize("command", ["enable", "disable"])
def test_integrations(shell: str, script: Path, home: Path, command: str) -> None:
    """`enable` and `disable` offer the integrations there are."""
    assert set(Integration) == set(offered(shell, script, f"tfwatch {command} ", home))


def test_values(shell: str, script: Path, home: Path) -> None:
    """An option that takes one of a few words offers these; one that takes a number offers nothing."""
    assert {"gotranscript"} == set(offered(shell, script, "tfwatch rotate-secret ", home))
    assert {"deliveries", "gotranscript-v4"} == set(offered(shell, script, "tfwatch sandbox --profile ", home))
    assert [] == offered(shell, script, "tfwatch log -n ", home)


def test_files(shell: str, script: Path, home: Path) -> None:
    """After -c the files here are offered, after --to only folders."""
    files = offered(shell, script, "tfwatch status -c ", home)
    assert {"mine.yaml", "below"} <= {name.rstrip("/") for name in files}
    assert ["mine.yaml"] == offered(shell, script, "tfwatch status -c mi", home)
    assert ["below"] == [name.rstrip("/") for name in offered(shell, script, "tfwatch restore --to ", home)]


def test_packages(shell: str, script: Path, home: Path, spool: Path) -> None:
    """`requeue` offers what is rejected, `why` what lies in any folder."""
    where = {"TFWATCH_SPOOL_ROOT": str(spool)}
    rejected = {"interview_v1.zip", "interview_v2.zip"}
    assert rejected == set(offered(shell, script, "tfwatch requeue ", home, where))
    assert {"interview_v2.zip"} == set(offered(shell, script, "tfwatch requeue interview_v2", home, where))
    assert rejected | {"other_v1.zip"} == set(offered(shell, script, "tfwatch why ", home, where))


def test_the_spool_is_the_settings_one(shell: str, script: Path, home: Path, spool: Path) -> None:
    """The spool is found by config.yaml: the one after -c, else the one in $TFWATCH_CONFIG."""
    config = home / "mine.yaml"
    config.write_text(f"spool:\n  root: {spool}   # its folders\n")
    expected = {"interview_v1.zip", "interview_v2.zip"}
    assert expected == set(offered(shell, script, "tfwatch requeue -c mine.yaml ", home))
    assert expected == set(offered(shell, script, "tfwatch requeue ", home, {"TFWATCH_CONFIG": str(config)}))


def test_hostile_names_are_only_names(shell: str, script: Path, home: Path, spool: Path) -> None:
    """A name chosen by a stranger reaches the command as it is; nothing in it is run."""
    for name in (*HOSTILE, *NEVER[:-1]):
        (spool / "rejected" / name).touch()
    (spool / "rejected" / NEVER[-1]).mkdir()
    found = offered(shell, script, "tfwatch requeue ", home, {"TFWATCH_SPOOL_ROOT": str(spool)})
    assert {*HOSTILE, "interview_v1.zip", "interview_v2.zip"} == set(found)
    assert [] == list(home.rglob("pwned"))


@pytest.mark.parametrize("mark", ["'", '"'])
def test_within_quotes_bash_offers_only_plain_names(mark: str, home: Path, spool: Path, tmp_path: Path) -> None:
    """bash leaves a $ of a name as it is within quotes: so such a name is not offered there."""
    done = subprocess.run([sys.executable, "-m", "tfwatch", "completion", "bash"], capture_output=True, check=True)
    script = tmp_path / "tfwatch.bash"
    script.write_bytes(done.stdout)
    for name in HOSTILE:
        (spool / "rejected" / name).touch()
    found = offered("bash", script, f"tfwatch requeue {mark}", home, {"TFWATCH_SPOOL_ROOT": str(spool)})
    plain = {name for name in HOSTILE if not set(name) & set("$`\\!'\"")}
    assert {*plain, "interview_v1.zip", "interview_v2.zip"} == set(found)


def test_a_tab_starts_no_python(shell: str, script: Path, home: Path, spool: Path) -> None:
    """With no program to start but sed and head, as many packages as one likes are offered."""
    programs = home / "bin"
    programs.mkdir()
    for program in ("sed", "head", "mv"):  # mv is the test's own
        (programs / program).symlink_to(f"/usr/bin/{program}")
    for number in range(2000):
        (spool / "rejected" / f"many_{number}.zip").touch()
    config = home / "mine.yaml"
    config.write_text(f"spool:\n  root: {spool}\n")
    found = offered(shell, script, "tfwatch requeue -c mine.yaml many_19", home, {"PATH": str(programs)})
    assert 111 == len(found)
