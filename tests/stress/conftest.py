"""A portal in this process, and spools for the real daemon in its own; no S3 and no sheet unless a test adds them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Spool
from tests.support.daemon import spool as make_spool
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import PortalSettings, SandboxSettings


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A healthy portal that gives its verdict at once."""
    with Sandbox(SandboxSettings(portal=PortalSettings(verdict_delay=0.0))) as running:
        yield running


@pytest.fixture
def spool(tmp_path: Path, sandbox: Sandbox) -> Iterator[Spool]:
    """A spool configured for that portal; the test starts the daemon."""
    with make_spool(tmp_path, sandbox.url, sandbox.api_key) as made:
        yield made
