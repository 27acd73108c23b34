"""The bell and real inotify: every arrival of others rings soon, none of our own does."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tfwatch.spool.places import CANARY
from tfwatch.spool.watcher import Bell, Watcher

SOON = 5.0
"""Long enough on any machine; what must be fast is measured."""

AT_ONCE = 0.2


class Ours:
    """The arrivals that are our own; each is asked about once."""

    def __init__(self) -> None:
        self.expected: set[tuple[str, str]] = set()
        self.asked: list[tuple[str, str]] = []

    def __call__(self, place: str, name: str) -> bool:
        self.asked.append((place, name))
        return (place, name) in self.expected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "outbox"
    path.mkdir()
    return path


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def ours() -> Ours:
    return Ours()


@pytest.fixture
def watcher(folder: Path, tmp_path: Path, bell: Bell, ours: Ours) -> Iterator[Watcher]:
    """Watches `outbox` and `done`."""
    (tmp_path / "done").mkdir()
    made = Watcher(bell, {"outbox": str(folder), "done": str(tmp_path / "done")}, ours=ours)
    made.start()
    yield made
    made.stop()


def quiet(bell: Bell, watcher: Watcher, folder: Path) -> set[str]:
    """All that was rung up to now: events come in order, so after the canary's there is nothing left of before."""
    watcher.canary_sent()
    (folder.parent / CANARY).touch()
    os.rename(folder.parent / CANARY, folder / CANARY)  # one event; writing it there would be two
    (folder / CANARY).unlink()
    assert watcher.canary_heard(SOON)
    return bell.wait(0.0)


# --- the bell ---------------------------------------------------------------------------------------------------------


def test_rings_pile_up_until_taken() -> None:
    """Nobody's ring is lost, and each place is told once."""
    bell = Bell()
    bell.ring("outbox")
    bell.ring("outbox", "requests")

    assert {"outbox", "requests"} == bell.wait(SOON)
    assert set() == bell.wait(0.0)


def test_a_ring_wakes_at_once() -> None:
    """Whoever waits is woken by the ring, not by the clock."""
    bell = Bell()
    thread = threading.Timer(0.05, bell.ring, ("stop",))
    thread.start()
    began = time.monotonic()

    assert {"stop"} == bell.wait(SOON)
    assert time.monotonic() - began < SOON / 2
    thread.join()


def test_no_ring_is_lost_among_threads() -> None:
    """Eight threads ring 500 times each while one takes: everything arrives."""
    bell, heard = Bell(), set()
    expected = {f"{n}-{m}" for n in range(8) for m in range(500)}
    threads = [
        threading.Thread(target=lambda n=n: [bell.ring(f"{n}-{m}") for m in range(500)])  # type: ignore[misc]
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + SOON
    while heard != expected and time.monotonic() < deadline:
        heard |= bell.wait(0.1)
    for thread in threads:
        thread.join()

    assert expected == heard


# --- arrivals ---------------------------------------------------------------------------------------------------------


def test_a_rename_rings(folder: Path, tmp_path: Path, bell: Bell, watcher: Watcher) -> None:
    """A ZIP renamed in from outside rings its place."""
    (tmp_path / "a.zip").touch()
    os.rename(tmp_path / "a.zip", folder / "a.zip")

    assert {"outbox"} == bell.wait(SOON)


def test_a_writer_who_closes_rings(folder: Path, bell: Bell, watcher: Watcher) -> None:
    """A ZIP written in place rings when it appears, and again when its writer closes it."""
    with (folder / "a.zip").open("wb") as file:
        assert {"outbox"} == bell.wait(SOON)
        file.write(b"x")
        file.flush()
        assert set() == quiet(bell, watcher, folder)

    assert {"outbox"} == bell.wait(SOON)


def test_a_link_rings(folder: Path, tmp_path: Path, bell: Bell, watcher: Watcher) -> None:
    """A hard link appears whole, without any close."""
    (tmp_path / "a.zip").touch()
    os.link(tmp_path / "a.zip", folder / "a.zip")

    assert {"outbox"} == bell.wait(SOON)


@pytest.mark.parametrize("raw", [b"\xff\n.zip", b"-rf.zip", b"=1.zip", b"a" * 251 + b".zip"])
def test_names_of_any_bytes_ring(folder: Path, bell: Bell, watcher: Watcher, ours: Ours, raw: bytes) -> None:
    """A strange name is an arrival like any other, and is asked about as it is."""
    (folder / os.fsdecode(raw)).touch()

    assert {"outbox"} == bell.wait(SOON)
    assert ("outbox", os.fsdecode(raw)) in ours.asked


def test_departures_are_no_news(folder: Path, tmp_path: Path, bell: Bell, watcher: Watcher) -> None:
    """What we take out of a folder does not wake us."""
    (folder / "a.zip").touch()
    (folder / "b.zip").touch()
    quiet(bell, watcher, folder)
    os.rename(folder / "a.zip", tmp_path / "a.zip")
    (folder / "b.zip").unlink()

    assert set() == quiet(bell, watcher, folder)


def test_our_own_moves_are_silent(folder: Path, tmp_path: Path, bell: Bell, watcher: Watcher, ours: Ours) -> None:
    """A package we settled ourselves wakes nobody, and is asked about exactly once."""
    ours.expected.add(("done", "a.zip"))
    (folder / "a.zip").touch()
    quiet(bell, watcher, folder)
    ours.asked.clear()
    os.rename(folder / "a.zip", tmp_path / "done" / "a.zip")

    assert set() == quiet(bell, watcher, tmp_path / "done")
    assert [("done", "a.zip")] == ours.asked


def test_an_arrival_right_after_a_claim_rings_at_once(
    folder: Path, tmp_path: Path, bell: Bell, watcher: Watcher
) -> None:
    """A rename out of the folder holds nothing back: the median of twenty arrivals after a claim rings within 0.2 s."""
    waits = []
    for n in range(20):
        (folder / "claimed.zip").touch()
        (tmp_path / "next.zip").touch()
        quiet(bell, watcher, folder)
        os.rename(folder / "claimed.zip", tmp_path / f"claimed-{n}")
        began = time.monotonic()
        os.rename(tmp_path / "next.zip", folder / f"next-{n}.zip")
        assert {"outbox"} == bell.wait(SOON)
        waits.append(time.monotonic() - began)

    assert sorted(waits)[10] < AT_ONCE


# --- the canary -------------------------------------------------------------------------------------------------------


def test_the_canary_is_heard_and_is_no_news(folder: Path, bell: Bell, watcher: Watcher, ours: Ours) -> None:
    """Its event proves that events arrive, and how fast; it wakes nobody."""
    assert set() == quiet(bell, watcher, folder)
    assert watcher.latency_seconds is not None
    assert 0 <= watcher.latency_seconds < SOON
    assert [] == ours.asked


def test_a_canary_that_was_not_written_is_not_heard(folder: Path, bell: Bell, watcher: Watcher) -> None:
    """An old canary proves nothing about now."""
    quiet(bell, watcher, folder)
    watcher.canary_sent()

    assert not watcher.canary_heard(0.05)


# --- folders that change under us -------------------------------------------------------------------------------------


def test_a_replaced_folder_is_watched_again(folder: Path, tmp_path: Path, bell: Bell, watcher: Watcher) -> None:
    """Renamed away and made anew, a folder would be deaf: `refresh` notices and hears again."""
    os.rename(folder, tmp_path / "old")
    folder.mkdir()
    (folder / "a.zip").touch()

    assert ("outbox",) == watcher.refresh()
    assert () == watcher.refresh()
    bell.wait(0.0)
    (folder / "b.zip").touch()
    assert {"outbox"} == bell.wait(SOON)
    quiet(bell, watcher, folder)
    (tmp_path / "old" / "c.zip").touch()
    assert set() == quiet(bell, watcher, folder)


def test_a_deleted_folder_is_watched_when_it_is_back(folder: Path, bell: Bell, watcher: Watcher) -> None:
    """Its end rings; while it is gone nothing is said to be watched; once back, it is."""
    folder.rmdir()
    assert {"outbox"} == bell.wait(SOON)
    assert () == watcher.refresh()
    assert () == watcher.refresh()
    folder.mkdir()

    assert ("outbox",) == watcher.refresh()
    (folder / "a.zip").touch()
    assert {"outbox"} == bell.wait(SOON)


def test_a_folder_replaced_many_times_leaks_nothing(folder: Path, bell: Bell, watcher: Watcher) -> None:
    """Also one that gets the old one's inode is watched; each replacement gives its watch and its thread back."""
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        folder.rmdir()
        assert {"outbox"} == bell.wait(SOON)
        folder.mkdir()
        assert ("outbox",) == watcher.refresh()
    quiet(bell, watcher, folder)

    deadline = time.monotonic() + SOON
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threads == threading.active_count()
    assert descriptors == len(os.listdir("/proc/self/fd"))


def test_a_stopped_watcher_is_silent_and_can_start_again(folder: Path, bell: Bell, watcher: Watcher) -> None:
    """Stopping twice is once; a new start hears again."""
    watcher.stop()
    watcher.stop()
    assert not watcher.running
    assert () == watcher.refresh()
    (folder / "a.zip").touch()
    assert set() == bell.wait(0.05)

    watcher.start()
    assert watcher.running
    (folder / "b.zip").touch()
    assert {"outbox"} == bell.wait(SOON)


def test_starting_and_stopping_leaks_nothing(folder: Path, bell: Bell, watcher: Watcher) -> None:
    """Switching between events and polling gives descriptors and threads back."""
    watcher.stop()
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        watcher.start()
        watcher.stop()

    deadline = time.monotonic() + SOON
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (threads, descriptors) == (threading.active_count(), len(os.listdir("/proc/self/fd")))
