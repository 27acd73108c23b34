"""A Debian with systemd on which tfwatch was installed by apt, and a portal that it reaches on the loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host import unmet
from tests.support.installed import Installed, install
from tests.support.machine import Machine, machine
from tests.support.machine_image import image
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import PortalSettings, SandboxSettings

HERE = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def deb() -> Path:
    """The package under test: `TFWATCH_DEB`, else what `make deb` made last."""
    if named := os.environ.get("TFWATCH_DEB"):
        return Path(named)
    built = sorted((HERE / "dist").glob("tfwatch_*.deb"), key=lambda path: path.stat().st_mtime)
    return built[-1] if built else unmet("no package under dist/: make deb")


@pytest.fixture(scope="session")
def debian() -> Path:
    """An image of Debian 12 without tfwatch; `with machine(debian) as made:` boots a copy of it."""
    return image()


@pytest.fixture(scope="session")
def installation(debian: Path, deb: Path) -> Iterator[tuple[Machine, str]]:
    """A machine on which apt has installed the package, shut down since, and what apt said. Only to be copied."""
    with machine(debian) as made:
        said = install(made, deb)
        made.poweroff()
        yield made, said


@pytest.fixture(scope="module")
def station(installation: tuple[Machine, str], request: pytest.FixtureRequest) -> Iterator[Installed]:
    """A machine of this file's own, as apt left it, booted. After a failure its journal is shown."""
    failed = request.session.testsfailed
    with machine(installation[0]) as made:
        yield Installed(made)
        if request.session.testsfailed > failed:
            print(made.picture())


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """This file's own portal, reached from its machine; the verdict comes a moment after it has accepted."""
    with Sandbox(SandboxSettings(portal=PortalSettings(verdict_delay=0.1))) as running:
        yield running
