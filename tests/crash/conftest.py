"""One real S3 server and one nursery of daemons for all scenes; what is recorded once for all tests of power cuts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.recorded import SCENARIOS, Recorded, recorded
from tests.support.s3_servers import S3Server, seaweed
from tests.support.warm import Nursery
from tests.support.warm import nursery as open_nursery


@pytest.fixture(scope="session")
def server() -> S3Server:
    """SeaweedFS over http; each scene has its own bucket."""
    return seaweed("http")


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Forks daemons that have imported everything already."""
    with open_nursery() as running:
        yield running


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory, server: S3Server) -> Iterator[dict[str, Recorded]]:
    """One recording of each scenario, by its name."""
    home = tmp_path_factory.mktemp("recorded")
    with ExitStack() as stack:
        made = [recorded(home / scenario.__name__, server, scenario) for scenario in SCENARIOS]
        yield {found.what: found for found in map(stack.enter_context, made)}
    shutil.rmtree(home)
