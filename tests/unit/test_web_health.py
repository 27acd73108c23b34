"""What makes health 503, what doesn't, and what a part of the server that fails says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from loguru import logger

from tests.support.web import listening, site_of
from tests.unit.house import House
from tfwatch.observe.state import Running
from tfwatch.web import health
from tfwatch.web.health import SILENT_SECONDS


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A spool in which all is well."""
    made = House(tmp_path / "spool")
    made.folders.hold()
    yield made
    made.close()


def asked(house: House, beat_age: float = 0.0) -> tuple[int, str, list[str]]:
    with listening(site_of(house.desk, beat_age)) as url:
        answer = httpx.get(f"{url}/healthz")
    return answer.status_code, answer.json()["status"], answer.json()["reasons"]


def test_a_loop_that_beats_is_healthy(house: House) -> None:
    """Up to the time in which it must have beaten thrice."""
    assert (200, "ok", []) == asked(house, SILENT_SECONDS)


def test_a_loop_that_hangs_is_not(house: House) -> None:
    """And then nothing else is looked at: it may be the disk that hangs."""
    house.desk.disk_full_since = "log.csv: No space left on device"
    assert (503, "failing", ["the daemon's loop has not finished a pass for 91 s"]) == asked(house, SILENT_SECONDS + 1)


def test_a_spool_that_is_away_is_not(house: House, tmp_path: Path) -> None:
    """Until it is back."""
    (tmp_path / "spool").rename(tmp_path / "elsewhere")
    assert (503, "failing", ["the spool is unmounted, moved away or another folder now"]) == asked(house)
    (tmp_path / "elsewhere").rename(tmp_path / "spool")
    assert 200 == asked(house)[0]


def test_want_of_room_is_not(house: House) -> None:
    """Each place has its words, and none of them a path."""
    house.desk.disk_full_since = "/srv/spool/log.csv: No space left on device"
    house.index.no_room = "/srv/spool/.tfwatch/index.sqlite: No space left on device"
    code, _, reasons = asked(house)
    assert 503 == code
    assert ["the disk is full; deliveries wait for room", "the index has no room; deliveries wait for it"] == reasons


def test_a_part_that_fails_is_a_bare_500_and_told_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller learns nothing, the journal learns it once, and again only after it had worked in between."""
    fails = [True, True, False, True]

    def look(running: Running) -> list[str]:
        if fails.pop(0):
            raise RuntimeError("/secret/path")
        return []

    monkeypatch.setattr(health, "reasons_against", look)
    told: list[str] = []
    handler = logger.add(told.append, level="WARNING", format="{message}")
    try:
        with listening(site_of(house.desk)) as url:
            for expected in (500, 500, 200, 500):
                answer = httpx.get(f"{url}/healthz")
                assert expected == answer.status_code
                assert "no-store" == answer.headers["cache-control"]
                assert "secret" not in answer.text
    finally:
        logger.remove(handler)
    assert 2 == len(told), told
    assert all("the web server could not answer" in each and "tfwatch.web.health" in each for each in told)
