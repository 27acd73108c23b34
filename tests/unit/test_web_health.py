"""What makes health 503, what doesn't, and what a part of the server that fails says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from loguru import logger

from tests.support.web import Pretended, listening
from tests.unit.house import House
from tfwatch.web.health import SILENT_SECONDS
from tfwatch.web.site import Site


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A spool in which all is well."""
    made = House(tmp_path / "spool")
    made.folders.hold()
    yield made
    made.close()


def health(house: House, beat_age: float = 0.0) -> tuple[int, str, list[str]]:
    with listening(Site(running=Pretended(desk=house.desk, beat_age=beat_age))) as url:  # type: ignore[arg-type]
        answer = httpx.get(f"{url}/healthz")
    return answer.status_code, answer.json()["status"], answer.json()["reasons"]


def test_a_loop_that_beats_is_healthy(house: House) -> None:
    """Up to the time in which it must have beaten thrice."""
    assert (200, "ok", []) == health(house, SILENT_SECONDS)


def test_a_loop_that_hangs_is_not(house: House) -> None:
    """And then nothing else is looked at: it may be the disk that hangs."""
    house.desk.disk_full_since = "log.csv: No space left on device"
    assert (503, "failing", ["the daemon's loop has not finished a pass for 91 s"]) == health(house, SILENT_SECONDS + 1)


def test_a_spool_that_is_away_is_not(house: House, tmp_path: Path) -> None:
    """Until it is back."""
    (tmp_path / "spool").rename(tmp_path / "elsewhere")
    assert (503, "failing", ["the spool is unmounted, moved away or another folder now"]) == health(house)
    (tmp_path / "elsewhere").rename(tmp_path / "spool")
    assert 200 == health(house)[0]


def test_want_of_room_is_not(house: House) -> None:
    """Each place has its words, and none of them a path."""
    house.desk.disk_full_since = "/srv/spool/log.csv: No space left on device"
    house.index.no_room = "/srv/spool/.tfwatch/index.sqlite: No space left on device"
    code, _, reasons = health(house)
    assert 503 == code
    assert ["the disk is full; deliveries wait for room", "the index has no room; deliveries wait for it"] == reasons


def test_a_part_that_fails_is_a_bare_500_and_told_once(house: House) -> None:
    """The caller learns nothing, the journal learns it once, and again only after it had worked in between."""

    class Broken(Pretended):
        works = False

        def __getattribute__(self, name: str) -> Any:
            if name == "desk" and not type(self).works:
                raise RuntimeError("/secret/path")
            return super().__getattribute__(name)

    told: list[str] = []
    handler = logger.add(told.append, level="WARNING", format="{message}")
    try:
        with listening(Site(running=Broken(desk=house.desk))) as url:  # type: ignore[arg-type]
            for works, expected in ((False, 500), (False, 500), (True, 200), (False, 500)):
                Broken.works = works
                answer = httpx.get(f"{url}/healthz")
                assert expected == answer.status_code
                assert "no-store" == answer.headers["cache-control"]
                assert (
                    works or {"type": "about:blank", "title": "Internal Server Error", "status": 500} == answer.json()
                )
    finally:
        logger.remove(handler)
    assert 2 == len(told), told
    assert all("the web server could not answer" in each and "tfwatch.web.health" in each for each in told)
