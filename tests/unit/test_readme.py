"""README.md holds no command, option, target or link that isn't there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from tfwatch.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
SPANS = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE))
LINES = [line.partition("#")[0] for code in [*BLOCKS, *SPANS] for line in code.splitlines()]
USES = sorted({found[0] for line in LINES if (found := re.search(r"(?:^|sudo )tfwatch [a-z].*", line))})
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("use", USES)
def test_commands_exist_with_their_options(use: str) -> None:
    """Each `tfwatch X --option` of README is one of `tfwatch X --help`."""
    command, *words = use.removeprefix("sudo ").split()[1:]
    assert command in COMMANDS
    known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


def test_the_main_commands_are_shown() -> None:
    """What people need first stands there, so the test above looked at something."""
    assert {"status", "why", "requeue", "log"} <= {use.removeprefix("sudo ").split()[1] for use in USES}


def test_make_targets_exist() -> None:
    """Each `make X` of README is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {found[1] for line in LINES if (found := re.search(r"(?:^|&& )make ([a-z-]+)", line))}
    assert {"demo", "test"} <= named <= targets


def test_links_lead_somewhere() -> None:
    """Each relative link of README names a file of this repository."""
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert [] == [link for link in links if not (ROOT / link).exists()]
