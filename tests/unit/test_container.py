"""packaging/container/Containerfile: what it refers to is there, and it is run as it should (hadolint: `make lint`)."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

from tests.unit.test_docs import text_of
from tfwatch.config import Config

ROOT = Path(__file__).parents[2]
FILE = ROOT / "packaging" / "container" / "Containerfile"
INSTALL = ROOT / "docs" / "INSTALL.md"


def steps(instruction: str, stage: int) -> list[str]:
    """The values of an instruction in a stage: 0 builds, 1 is what is run."""
    found, now = [], -1
    for each in DockerfileParser(fileobj=io.BytesIO(FILE.read_bytes())).structure:
        now += each["instruction"] == "FROM"
        if each["instruction"] == instruction and now == stage:
            found.append(each["value"])
    return found


def test_what_is_copied_is_there() -> None:
    """Each source of a COPY is in the checkout; what the package's metadata refers to is among them."""
    copied = [word for value in steps("COPY", 0) for word in value.split()[:-1]]
    assert [] == [name for name in copied if not (ROOT / name).exists()]
    assert {"pyproject.toml", "README.md", "LICENSE", "tfwatch/"} <= set(copied)
    assert ["--from=build /opt/tfwatch /opt/tfwatch"] == steps("COPY", 1)


def test_it_is_installed_as_documented() -> None:
    """The same pip commands and Debian packages as in the guide: nobody has to keep two in mind."""
    guide = text_of(INSTALL)
    pip = [command.replace(" --no-cache-dir", "") for command in steps("RUN", 0) if "/pip install" in command]
    assert 2 == len(pip)
    assert pip == re.findall(r"^sudo (/opt/tfwatch/bin/pip install .+)$", guide, re.MULTILINE)
    documented = re.search(r"^sudo apt install --yes --no-install-recommends (.+)$", guide, re.MULTILINE)
    installed = re.search(r"--no-install-recommends ([^&]+?) *&&", " ".join(steps("RUN", 0)))
    assert documented
    assert installed
    assert set(documented[1].split()) == set(installed[1].split())


def test_it_is_not_root() -> None:
    """It runs as a user with a number, who is made there and owns the spool."""
    (user,) = steps("USER", 1)
    number, _, group = user.partition(":")
    assert number.isdigit()
    assert int(number) > 0
    made = " ".join(steps("RUN", 1))
    assert f"--uid {number} " in made
    assert f"--gid {group} " in made
    assert f"install -d -o tfwatch -g tfwatch -m 0750 {Config().spool.root}" in made
    assert f"user {number}" in text_of(INSTALL)


def test_the_whole_spool_is_one_volume() -> None:
    """Two volumes would be two mounts, between which nothing can be renamed."""
    assert [Config().spool.root] == steps("VOLUME", 1)


@pytest.mark.parametrize("name", ["ENTRYPOINT", "CMD"])
def test_signals_reach_the_daemon(name: str) -> None:
    """No shell stands between the engine and the daemon, which stops cleanly on SIGTERM."""
    (value,) = steps(name, 1)
    assert all(isinstance(word, str) for word in json.loads(value))
    assert ["SIGTERM"] == steps("STOPSIGNAL", 1)


def test_health_is_asked_for_where_it_is_told() -> None:
    """The check asks /healthz at the port that config.yaml has unless told otherwise, with a Python that is there."""
    (check,) = steps("HEALTHCHECK", 1)
    command = json.loads(check.partition("CMD ")[2])
    web = Config().web
    assert f"http://{web.host}:{web.port}/healthz" in command[-1]
    assert "/opt/tfwatch/bin/python" == command[0]
    compile(command[-1], "healthcheck", "exec")


def test_no_secret_is_built_in() -> None:
    """Neither as a variable nor as an argument; secrets are files that the engine brings."""
    told = " ".join(steps("ENV", 1) + steps("ARG", 0) + steps("ARG", 1) + steps("ENV", 0))
    assert "CREDENTIALS_DIRECTORY=/run/secrets" in told
    assert [] == re.findall(r"\w*(?:KEY|TOKEN|SECRET|PASSWORD)\w*=", told)
