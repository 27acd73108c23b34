"""One real S3 server for all scenes."""

from __future__ import annotations

import pytest

from tests.support.s3_servers import S3Server, seaweed


@pytest.fixture(scope="session")
def server() -> S3Server:
    """SeaweedFS over http; each scene has its own bucket."""
    return seaweed("http")
