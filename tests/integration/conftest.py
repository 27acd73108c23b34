"""A portal and a sheet in this process, and a spool for the real daemon in its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Spool
from tests.support.daemon import spool as make_spool
from tests.support.forwarder import Forwarder
from tests.support.stranger import open_to_strangers
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import PortalSettings, SandboxSettings


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A healthy portal that gives its verdict a moment after it has accepted."""
    with Sandbox(SandboxSettings(portal=PortalSettings(verdict_delay=0.1))) as running:
        yield running


@pytest.fixture
def spool(tmp_path: Path, sandbox: Sandbox) -> Iterator[Spool]:
    """A spool configured for that portal; the test starts the daemon."""
    with make_spool(tmp_path, sandbox.url, sandbox.api_key) as made:
        yield made


@pytest.fixture
def way(sandbox: Sandbox, spool: Spool) -> Iterator[Forwarder]:
    """The way from that spool's daemon to its portal, which a test may hold for as long as it needs."""
    with Forwarder(sandbox.url) as forwarder:
        spool.configure(integrations={"gotranscript": {"base_url": forwarder.url}})
        yield forwarder


@pytest.fixture
def outbox(spool: Spool) -> Path:
    """That spool's outbox, open to every user of the machine; only root can act as one of them."""
    return open_to_strangers(spool.root / "outbox")
