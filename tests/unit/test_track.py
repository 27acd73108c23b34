"""Words of a service's that the contract doesn't know: each told of once, and never without an end."""

from __future__ import annotations

from pathlib import Path

from loguru import logger

from tests.unit.house import house, package
from tfwatch.delivery.progress import Board
from tfwatch.delivery.track import MOST_STRANGE_WORDS, TrackDelivery
from tfwatch.model import Stage


def test_a_service_that_invents_words_is_not_told_of_without_end(tmp_path: Path) -> None:
    """Each new word is one warning, up to a number; what is remembered is bounded with it."""
    told: list[str] = []
    with house(tmp_path / "spool") as home:
        about = home.lay(package(), Stage.OUTBOX)
        home.accept(about)
        state = home.index.package(about.sha256, about.name)
        assert state is not None
        track = TrackDelivery(home.desk, Board(), delivered=lambda package: None)
        sink = logger.add(told.append, level="WARNING", format="{message}")  # type: ignore[arg-type]
        try:
            for n in range(3 * MOST_STRANGE_WORDS):
                track._note_word(state, f"word {n}")
                track._note_word(state, "word 0")
        finally:
            logger.remove(sink)

    assert MOST_STRANGE_WORDS == len(told) == len(set(told)) == len(track._strange_words)
