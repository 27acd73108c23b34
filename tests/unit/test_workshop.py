"""What the loop hands over and takes up again, without a service: the workshop's own books."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.house import House, house
from tfwatch.delivery.rollback import Rollback
from tfwatch.delivery.switch import Setting, Switch
from tfwatch.model import Integration
from tfwatch.spool.watcher import Bell
from tfwatch.workshop import Workshop


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "spool") as made:
        yield made


@pytest.fixture
def workshop(home: House) -> Workshop:
    """One whose lanes were not started: what is handed over stays handed over."""
    switches = {integration: Switch(integration, home.index) for integration in Integration}
    gate = switches[Integration.GOTRANSCRIPT]
    gate.configure(Setting(enabled=True, source="config.yaml"), home.desk, probing=False)
    configuration: Any = SimpleNamespace(workers=2, backup_workers=1, wiring=SimpleNamespace(storage=None))
    return Workshop(
        home.desk, configuration, switches, Rollback(home.desk, gate, threshold=3), log_path=home.folders.log,
        bell=Bell(), stop=threading.Event(), failed=lambda error: None,
    )  # fmt: skip


def test_one_that_is_held_is_looked_at_a_little_later(home: House, workshop: Workshop) -> None:
    """While another thread holds a name in limbo the loop sleeps; it goes once it is let go of."""
    workshop.wait_in_limbo("a.zip", 0.0)
    home.desk.in_work.take("a.zip")
    workshop.dispatch_limbo()
    due = workshop.limbo_due()
    assert due is not None
    assert 0.0 < due < 1.0
    home.desk.in_work.release("a.zip")
    threading.Event().wait(due)
    workshop.dispatch_limbo()

    assert workshop.limbo_due() is None
    assert 1 == workshop.in_flight


def test_one_in_limbo_may_be_the_probe(home: House, workshop: Workshop) -> None:
    """Only one of those that are due, and never one that is held."""
    for name in ("a.zip", "b.zip", "c.zip"):
        workshop.wait_in_limbo(name, 0.0)
    home.desk.in_work.take("a.zip")
    workshop.wait_in_limbo("later.zip", 60.0)

    assert workshop.dispatch_limbo(is_probe=True)
    assert 1 == workshop.in_flight
    assert workshop.dispatch_limbo(is_probe=True)
    assert not workshop.dispatch_limbo(is_probe=True)
    assert 2 == workshop.in_flight
