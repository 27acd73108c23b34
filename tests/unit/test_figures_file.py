"""logs/observability.json: whole, soon, and at once when asked; a disk that doesn't take it holds nothing up."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from tests.support.daemon import wait_until
from tests.unit.house import House, fact, house, package
from tests.unit.test_figures import Still
from tfwatch.model import Event, Stage
from tfwatch.observe.figures_file import FiguresFile

O, R = Stage.OUTBOX, Stage.REJECTED  # noqa: E741


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "spool") as made:
        yield made


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What was logged as a warning or worse."""
    messages: list[str] = []
    sink = logger.add(lambda message: messages.append(message.record["message"]), level="WARNING")
    yield messages
    logger.remove(sink)


def fail(error: BaseException) -> None:
    raise AssertionError("the process would end") from error


def made(home: House) -> FiguresFile:
    file = FiguresFile(home.folders, Still(home.index), failed=fail)
    home.index.changed = file.tell
    return file


def read(home: House) -> dict[str, Any]:
    return json.loads(Path(home.folders.observability).read_text())  # type: ignore[no-any-return]


def add_row(home: House, n: int) -> int:
    """One more row; gives its number."""
    (record,) = home.record(fact(package(f"{n}.zip"), Event.MOVED, O, R))
    return record.seq


def test_asked_for_it_is_there_when_the_call_returns(home: House) -> None:
    """Whoever has logged a fact and asks finds the fact in the file, without any thread running."""
    file = made(home)
    for n in range(3):
        seq = add_row(home, n)
        file.write_now()
        assert seq == read(home)["log_seq"]


def test_many_that_ask_at_once_all_find_their_own(home: House) -> None:
    """Eight threads log and ask, over and over: each sees its own row, and nobody reads half a document."""
    file, missing = made(home), []

    def ask(lane: int) -> None:
        for n in range(10):
            seq = add_row(home, lane * 100 + n)
            file.write_now()
            if read(home)["log_seq"] < seq:
                missing.append(seq)

    lanes = [threading.Thread(target=ask, args=(lane,)) for lane in range(8)]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    assert [] == missing
    assert 80 == read(home)["log_seq"]


def test_rows_come_into_it_by_themselves(home: House) -> None:
    """Started, it is written at once, and again soon after each row; stopped, no more."""
    file = made(home)
    file.start()
    try:
        wait_until(lambda: os.path.exists(home.folders.observability), "the first document")
        for n in range(2):
            seq = add_row(home, n)
            wait_until(lambda seq=seq: read(home)["log_seq"] == seq, "the row is in it")
    finally:
        file.stop(time.monotonic() + 30)
    assert ["observability.json"] == os.listdir(os.path.dirname(home.folders.observability))


def test_a_disk_that_takes_no_file_is_said_once(home: House, said: list[str]) -> None:
    """The folder is gone: a warning for the whole episode, nothing raised; when it is back, so is the file."""
    file, folder = made(home), os.path.dirname(home.folders.observability)
    os.rmdir(folder)
    for _ in range(3):
        file.write_now()
    path = home.folders.observability
    assert [f"{path}: the file with the figures can't be written: No such file or directory"] == [
        each.partition(";")[0] for each in said
    ]
    assert tuple(said) == file.problems
    os.mkdir(folder)
    file.write_now()
    assert 0 == read(home)["log_seq"]
    assert () == file.problems
    os.unlink(home.folders.observability)
    os.rmdir(folder)
    file.write_now()
    assert 2 == len(said)
