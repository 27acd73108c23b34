"""How long each fuzz test may take: as long as it was told to look, and time to tell what it found."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(2 * config.getoption("fuzz_seconds") + 180))
