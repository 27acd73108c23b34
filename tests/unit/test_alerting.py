"""The thread that alerts: the journal first, every address after its own fashion, and what a run leaves to the next."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from loguru import logger

from tests.support.daemon import wait_until
from tfwatch.errors import ServiceError, TransientError
from tfwatch.model import AlertMessage
from tfwatch.observe.alert_memory import Memory, read_memory, to_json
from tfwatch.observe.alerting import Alerts, Settings
from tfwatch.observe.alerts import Condition, Episodes
from tfwatch.observe.channel import Timing
from tfwatch.observe.notices import Backlog, Notice, Pace
from tfwatch.ports import AlertPort
from tfwatch.retry import Backoff
from tfwatch.spool.folders import Folders

LOW = Condition(key="disk-low", text="/spool: 3 MiB free", over="/spool: enough is free")
DEAF = Condition(key="deaf", text="no events", over="events", is_found_late=True)


FAST = Timing(look=0.02, gather=0.05, pace=Pace(first=0.1), tries=Backoff(initial=0.2, maximum=1.0))
BEGAN = time.time()


def hurried() -> float:
    """A clock that goes a hundred times as fast: 5 s are over in 50 ms."""
    return BEGAN + 100 * (time.time() - BEGAN)


class Address:
    """An address that keeps what it is told; `failing`: raises that instead; `gate`: answers only once it is open."""

    def __init__(self, shown_as: str) -> None:
        self.shown_as = shown_as
        self.told: list[AlertMessage] = []
        self.failing = ""
        self.tries = 0
        self.gate = threading.Event()
        self.gate.set()

    def send(self, message: AlertMessage) -> None:
        self.tries += 1
        self.gate.wait()
        if self.failing:
            raise TransientError(self.failing)
        self.told.append(message)


class Given:
    """Alerts in a spool, with addresses that do as told. `conditions`: what a look finds now."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.folders = Folders(str(root))
        self.folders.prepare()
        self.conditions: list[Condition] = []
        self.urls: tuple[str, ...] = ("one",)
        self.addresses: dict[str, Address] = {}
        self.error: Exception | None = None
        self.records: list[Any] = []
        self.looked: list[frozenset[str]] = []
        self.runs: list[Alerts] = []

    def look(self, going_on: frozenset[str]) -> Sequence[Condition]:
        self.looked.append(going_on)
        if self.error is not None:
            raise self.error
        return tuple(self.conditions)

    def connect(self, urls: tuple[str, ...]) -> tuple[Sequence[AlertPort], Sequence[str]]:
        good = [url for url in urls if url != "nonsense"]
        return [self.addresses.setdefault(url, Address(url)) for url in good], ["nonsense: no such"] * (
            len(urls) - len(good)
        )

    def run(self, *, sees_all: bool = True, connect: Callable[..., Any] | None = None) -> Alerts:
        alerts = Alerts(
            self.folders,
            lambda: Settings(urls=self.urls),
            connect or self.connect,
            host="box",
            timing=FAST,
            clock=hurried,
        )
        self.runs.append(alerts)
        alerts.watch(self.look, sees_all=sees_all)
        return alerts

    def said(self, event: str) -> list[str]:
        return [record["message"] for record in list(self.records) if record["extra"].get("EVENT") == event]

    def address(self, url: str = "one") -> Address:
        return wait_until(lambda: self.addresses.get(url), f"{url} is connected")  # type: ignore[no-any-return]

    def memory(self) -> dict[str, Any]:
        return json.loads(Path(self.folders.alerts).read_text())  # type: ignore[no-any-return]


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Given]:
    made = Given(tmp_path / "spool")
    sink = logger.add(lambda message: made.records.append(message.record), level="DEBUG")
    yield made
    for address in made.addresses.values():
        address.gate.set()
    for alerts in made.runs:
        alerts.close()
    logger.remove(sink)


def test_the_journal_is_told_before_anybody_else(given: Given) -> None:
    """One WARNING with EVENT=ALERT for each alert, whether there is an address or not."""
    order: list[str] = []
    logger.add(lambda message: order.append("journal") if message.record["extra"].get("EVENT") == "ALERT" else None)
    given.addresses["one"] = address = Address("one")
    told = address.send
    address.send = lambda message: (order.append("address"), told(message))[1]  # type: ignore[method-assign]
    given.conditions = [LOW]
    given.run()
    wait_until(lambda: address.told, "it is told")
    assert ["journal", "address"] == order
    (record,) = [each for each in given.records if each["extra"].get("EVENT") == "ALERT"]
    assert ("WARNING", LOW.text, "disk-low") == (record["level"].name, record["message"], record["extra"]["ALERT"])


def test_what_begins_together_is_told_together_and_ends_together(given: Given) -> None:
    """Two messages in all: what is, and that it is over."""
    given.conditions = [LOW, DEAF]
    given.run()
    wait_until(lambda: given.address().told, "both are told")
    given.conditions = []
    wait_until(lambda: len(given.address().told) == 2, "both are over")
    first, second = given.address().told
    assert "tfwatch on box: 2 alerts" == first.title
    assert ("tfwatch on box: 2 over", True) == (second.title, second.is_over)
    assert [LOW.text, DEAF.text] == given.said("ALERT")
    assert {LOW.over, DEAF.over} == set(given.said("ALL_CLEAR"))


def test_an_address_that_hangs_keeps_nobody_waiting(given: Given) -> None:
    """Not the other address, not the next look, not the stop; what it may have missed is kept for the next run."""
    given.urls = ("one", "two")
    given.addresses["one"] = hanging = Address("one")
    hanging.gate.clear()
    given.conditions = [LOW]
    alerts = given.run()
    wait_until(lambda: hanging.tries and given.address("two").told, "the other is told")
    looks = len(given.looked)
    wait_until(lambda: len(given.looked) > looks + 1, "it goes on looking")
    wait_until(lambda: [1, 0] == [len(owed["notices"]) for owed in given.memory()["owed"]], "that is written down")
    began = time.monotonic()
    alerts.stop(began + 8)
    assert 8 > time.monotonic() - began
    assert [1, 0] == [len(owed["notices"]) for owed in given.memory()["owed"]]


def test_what_can_not_be_told_is_shown_and_tried_again_without_an_alert(given: Given) -> None:
    """A line in the journal for each new reason, a sentence in status, and no episode of its own."""
    given.addresses["one"] = failing = Address("one")
    failing.failing = "no answer for 4 s"
    given.conditions = [LOW]
    alerts = given.run()
    (problem,) = wait_until(lambda: alerts.problems, "status shows it")
    assert problem.startswith("alerts don't reach one: no answer for 4 s; 1 wait")
    assert [LOW.text] == given.said("ALERT")
    assert ["disk-low"] == [each["key"] for each in alerts.going_on()]
    failing.failing = ""
    wait_until(lambda: failing.told, "it is tried again")
    wait_until(lambda: [] == alerts.problems, "status shows nothing any more")
    assert 1 == len([each for each in given.records if "alerts don't reach" in each["message"]])


def test_a_restart_repeats_nothing_and_forgets_nothing(given: Given) -> None:
    """What goes on is known; what is over by now is told as over, once it can be known."""
    given.conditions = [LOW, DEAF]
    first = given.run()
    wait_until(lambda: given.address().told, "it is told")
    wait_until(lambda: given.memory()["owed"] == [{"dropped": 0, "notices": []}], "that is written down")
    first.close()
    given.conditions = [DEAF]
    second = given.run()
    wait_until(lambda: len(given.address().told) == 2, "what is over is told")
    given.conditions = []
    looks = len(given.looked)
    wait_until(lambda: len(given.looked) > looks + 7, "it has been gone for long enough to be over")
    assert [LOW.text, DEAF.text] == given.said("ALERT")
    assert [LOW.over] == given.said("ALL_CLEAR"), "deafness is found out only by trying"
    assert ["deaf"] == [each["key"] for each in second.going_on()]


def test_before_the_spool_is_ours_nothing_is_over_and_nothing_is_written(given: Given) -> None:
    """Two daemons may wait for room on one disk; only the one that holds the lock remembers."""
    given.conditions = [LOW]
    alerts = given.run(sees_all=False)
    wait_until(lambda: given.address().told, "it is told")
    given.conditions = []
    looks = len(given.looked)
    wait_until(lambda: len(given.looked) > looks + 7, "it is gone for a while")
    assert not Path(given.folders.alerts).exists()
    assert [] == given.said("ALL_CLEAR")
    alerts.watch(given.look, sees_all=True)
    wait_until(lambda: [LOW.over] == given.said("ALL_CLEAR"), "it is over")


def test_addresses_change_while_it_runs(given: Given) -> None:
    """A further one hears all that goes on, the others nothing again; those that can't be used are named."""
    given.conditions = [LOW]
    alerts = given.run()
    wait_until(lambda: given.address().told, "the first is told")
    given.urls = ("one", "nonsense", "two")
    wait_until(lambda: given.address("two").told, "the second is told")
    assert ["nonsense: no such"] == alerts.problems
    given.urls = ()
    wait_until(lambda: [] == alerts.problems, "no address, no problem")
    assert [1, 1] == [len(given.address(url).told) for url in ("one", "two")]


def test_without_the_library_the_journal_still_has_it(given: Given) -> None:
    """Status says what to install, once in the journal, too."""

    def connect(urls: tuple[str, ...]) -> tuple[Sequence[AlertPort], Sequence[str]]:
        raise ServiceError("apprise is not installed", hint="pip install 'tfwatch[alerts]'")

    given.conditions = [LOW]
    alerts = given.run(connect=connect)
    wait_until(lambda: given.said("ALERT"), "the journal has it")
    assert ["apprise is not installed; pip install 'tfwatch[alerts]'"] == alerts.problems
    assert 1 == len([each for each in given.records if "pip install" in each["message"]])


def test_a_look_that_fails_says_nothing_of_what_goes_on(given: Given) -> None:
    """A disk that can't be read: neither an alert nor an end comes of it, and status says so."""
    given.conditions = [LOW]
    alerts = given.run()
    wait_until(lambda: given.said("ALERT"), "it is told")
    given.error = OSError(5, "Input/output error")
    wait_until(lambda: any("can't be worked out now" in each for each in alerts.problems), "status says so")
    looks = len(given.looked)
    wait_until(lambda: len(given.looked) > looks + 6, "it goes on looking")
    assert ["disk-low"] == [each["key"] for each in alerts.going_on()]
    given.error = None
    wait_until(lambda: [] == alerts.problems, "it can be looked at again")


def test_a_bug_ends_alerts_and_nothing_else(given: Given) -> None:
    """It is told with its traceback, and status shows it for as long as the daemon runs."""
    given.error = ZeroDivisionError("oh")
    alerts = given.run()
    wait_until(lambda: any("ended by a bug" in each for each in alerts.problems), "status shows it")
    (told,) = [each["message"] for each in given.records if each["level"].name == "CRITICAL"]
    assert "ZeroDivisionError: oh" in told
    alerts.stop(time.monotonic() + 8)


def test_it_ends_once(given: Given) -> None:
    """A stop of what never began, and a second stop, are nothing."""
    Alerts(given.folders, Settings, given.connect, host="box").close()
    alerts = given.run()
    alerts.close()
    alerts.close()
    assert not any(thread.name in ("alerts", "alert") and thread.is_alive() for thread in threading.enumerate())


# --- what a run leaves to the next ------------------------------------------------------------------------------------

texts = st.text(max_size=20)
conditions = st.builds(
    Condition, key=texts, text=texts, over=texts, outside=texts, over_outside=texts,
    marks=st.frozensets(texts, max_size=3), after=st.floats(0, 100), is_found_late=st.booleans(),
    fields=st.dictionaries(texts, texts, max_size=2),
)  # fmt: skip
moments = st.floats(0, 2e9)
notices = st.builds(Notice, key=texts, text=texts, began=moments, ended=st.none() | moments, was_told=st.booleans())
backlogs = st.builds(Backlog, notices=st.lists(notices, max_size=3).map(tuple), dropped=st.integers(0, 100))


@for_all(st.lists(conditions, max_size=4), moments, st.lists(backlogs, max_size=3))
def test_memory_reads_back_as_it_was(found: list[Condition], now: float, owed: list[Backlog]) -> None:
    """Whatever the words hold."""
    episodes, _ = Episodes().step([*found], 0.0)
    episodes, _ = episodes.step(found, now)
    text = to_json(Memory(episodes=episodes, owed=tuple(owed)))
    path = Path(f"/proc/self/fd/{_written(text)}")
    read = read_memory(str(path))
    assert text == to_json(read)
    assert tuple(owed) == read.owed
    assert all(episode.inherited for episode in read.episodes.going_on.values())


def _written(text: str) -> int:
    fd = os.memfd_create("memory")
    os.write(fd, text.encode("utf-8", "backslashreplace"))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"version": 2}', '{"version": 1}', '{"version": 1, "episodes": [3]}', "[" * 5000],
)
def test_memory_that_is_not_ours_is_left_aside(tmp_path: Path, text: str) -> None:
    """Half a file, another version, somebody else's: one more alert is all it costs."""
    path = tmp_path / "alerts.json"
    path.write_text(text)
    assert Memory() == read_memory(str(path))
    assert Memory() == read_memory(str(tmp_path / "missing"))
