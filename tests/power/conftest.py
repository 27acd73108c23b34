"""One machine, frozen once it is ready, and one real S3 server for all scenes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.guest import Machine
from tests.support.guest_image import image
from tests.support.s3_servers import S3Server, seaweed


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The virtual machine, ready to be woken. Skips where its parts can't be had."""
    made = Machine(image(), tmp_path_factory.mktemp("machine"))
    try:
        made.freeze()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def server(machine: Machine) -> S3Server:
    """SeaweedFS over http; each scene has its own bucket. Not started where there is no machine."""
    return seaweed("http")
