"""One integration's switch: who turned it, who wins, and when it opens again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.house import NOON, Clock, House, fact, house, package
from tfwatch.delivery.switch import PROBE_PAUSE, Setting, Switch
from tfwatch.local_time import date_and_time
from tfwatch.model import Actor, Event, Integration, Stage, read_detail, write_detail

ON = Setting(enabled=True, source="config.yaml")
OFF = Setting(enabled=False, source="GOTRANSCRIPT_ENABLED")
NAME = "gotranscript"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path / "spool") as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def switch(home: House, clock: Clock) -> Switch:
    """GoTranscript's switch, on by its configuration."""
    made = Switch(Integration.GOTRANSCRIPT, home.index, clock=clock)
    made.configure(ON, home.desk, probing=False)
    return made


def again(home: House, clock: Clock) -> Switch:
    """The same switch in the next run."""
    return Switch(Integration.GOTRANSCRIPT, home.index, clock=clock)


def fall(home: House, switch: Switch) -> None:
    """A rollback is logged, as the use case does it."""
    detail = write_detail("too many", integration=NAME)
    home.record(fact(package(), Event.ROLLBACK, Stage.CLAIMED, Stage.REJECTED, detail=detail))
    switch.fell()


def pause(home: House, switch: Switch) -> None:
    switch.drop(home.desk, actor=Actor.TFWATCH, by="service", why="bad key")


# --- what the configuration says --------------------------------------------------------------------------------------


def test_on_is_open_and_nothing_is_logged(home: House, switch: Switch) -> None:
    """GoTranscript is on by default: a first start says nothing in the log."""
    assert (True, "enabled", "config.yaml") == (switch.stand.open, switch.stand.word, switch.stand.source)
    assert [] == home.events()
    assert 0 == switch.waits


def test_off_is_closed_and_logged_once(home: House, switch: Switch, clock: Clock) -> None:
    """Turning it off is a fact, with the source that says so; the same again, now or at the next start, is none."""
    for is_restarted in (False, False, True):
        each = again(home, clock) if is_restarted else switch
        each.configure(OFF, home.desk, probing=False)
        stand = each.stand
        assert (False, "off", "GOTRANSCRIPT_ENABLED") == (stand.open, stand.word, stand.source)
        assert "enabled: true" in stand.hint
        assert each.waits is None

    assert ["DISABLED"] == home.events()
    row = home.last()
    assert Actor.OPERATOR is row.actor
    assert ({"integration": NAME, "by": "configuration"}, "turned off by GOTRANSCRIPT_ENABLED") == read_detail(
        row.detail
    )


def test_an_integration_that_is_off_by_default_is_silent(home: House, clock: Clock) -> None:
    """S3 off is nothing new; S3 on is."""
    switch = Switch(Integration.S3, home.index, clock=clock)
    switch.configure(Setting(enabled=False, source="default"), home.desk, probing=False)
    assert [] == home.events()
    switch.configure(ON, home.desk, probing=False)

    assert ["ENABLED"] == home.events()


def test_what_is_missing_keeps_it_closed(home: House, switch: Switch) -> None:
    """On, but without a key: held, and said."""
    switch.configure(Setting(enabled=True, source="config.yaml", missing="no api_key"), home.desk, probing=False)

    assert (False, "held", "no api_key") == (switch.stand.open, switch.stand.word, switch.stand.reason)
    assert switch.waits is None
    assert not switch.held


# --- who wins ---------------------------------------------------------------------------------------------------------


def test_disable_wins_over_the_configuration(home: House, switch: Switch, clock: Clock) -> None:
    """`tfwatch disable` lasts over reloads and restarts until `enable`; status names it as the source."""
    switch.drop(home.desk, actor=Actor.OPERATOR, by="command", why="by ana")
    for each in (switch, again(home, clock)):
        each.configure(ON, home.desk, probing=True)
        stand = each.stand
        assert (False, "disabled", "by ana") == (stand.open, stand.word, stand.reason)
        assert f"disabled since {date_and_time(NOON)}" == stand.source
        assert f"tfwatch enable {NAME}" in stand.hint
        assert each.held
        assert each.waits is None
        assert not each.probe_due

    switch.lift(home.desk, actor=Actor.OPERATOR, why="by ana")
    assert switch.stand.open
    assert again(home, clock).held is False
    assert ["DISABLED", "ENABLED"] == home.events()


@pytest.mark.parametrize("hold", [fall, pause])
def test_a_rollback_lasts_over_restarts(home: House, switch: Switch, clock: Clock, hold: object) -> None:
    """What the daemon switched off by itself stays off until somebody lifts it."""
    hold(home, switch)  # type: ignore[operator]
    word = "rolled back" if hold is fall else "paused"
    for each in (switch, again(home, clock)):
        each.configure(ON, home.desk, probing=False)
        assert (False, word) == (each.stand.open, each.stand.word)
        assert each.waits is None


def test_off_and_on_in_the_configuration_lifts_it(home: House, switch: Switch) -> None:
    """The other way to lift a rollback; on → on lifts nothing."""
    fall(home, switch)
    switch.configure(ON, home.desk, probing=False)
    assert switch.held
    switch.configure(OFF, home.desk, probing=False)
    assert "off" == switch.stand.word
    switch.configure(ON, home.desk, probing=False)

    assert switch.stand.open
    assert ["ROLLBACK", "DISABLED", "ENABLED"] == home.events()


def test_a_restart_in_between_changes_nothing(home: House, switch: Switch, clock: Clock) -> None:
    """Off before a restart and on after it is off → on."""
    fall(home, switch)
    switch.configure(OFF, home.desk, probing=False)
    after = again(home, clock)
    after.configure(ON, home.desk, probing=False)

    assert after.stand.open


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_retry_after_holds_everybody(home: House, switch: Switch, clock: Clock) -> None:
    """The longest wait asked for counts, and it ends by itself."""
    switch.hold(30)
    switch.hold(10)
    assert (False, "waiting") == (switch.stand.open, switch.stand.word)
    assert "asked us to wait" in switch.stand.reason
    assert 30 == switch.waits
    clock.go(30)

    assert switch.stand.open


def test_enabling_ends_a_wait(home: House, switch: Switch) -> None:
    """A person who enables it wants it tried now."""
    switch.hold(3600)
    switch.lift(home.desk, actor=Actor.OPERATOR, why="now")

    assert switch.stand.open


def test_lanes_told_the_same_are_told_once(home: House, switch: Switch, clock: Clock) -> None:
    """The first to be asked to wait brings news; the others, until that wait is over, don't."""
    assert [True, False, False] == [switch.hold(30), switch.hold(30), switch.hold(40)]
    clock.go(40)
    assert switch.hold(1)


# --- coming back ------------------------------------------------------------------------------------------------------


def climb(switch: Switch, clock: Clock, workers: int) -> list[int | None]:
    """How many may be under way, each time that changes, while one delivery a second gets through."""
    seen = [switch.allowed(workers)]
    while seen[-1] is not None:
        clock.go(1)
        switch.got_through()
        allowed = switch.allowed(workers)
        if allowed != seen[-1]:
            seen.append(allowed)
    return seen


@pytest.mark.parametrize(("workers", "seen"), [(1, [None]), (4, [1, 2, None]), (16, [1, 2, 4, 8, None])])
def test_after_an_outage_it_is_used_little_by_little(
    home: House, switch: Switch, clock: Clock, workers: int, seen: list[int | None]
) -> None:
    """Lifted by a person, by a probe or in config.yaml: one delivery, then twice as many, until all lanes work."""
    assert switch.allowed(workers) is None
    fall(home, switch)
    switch.lift(home.desk, actor=Actor.OPERATOR, why="now")
    assert seen == climb(switch, clock, workers)
    pause(home, switch)
    switch.configure(OFF, home.desk, probing=False)
    switch.configure(ON, home.desk, probing=False)
    assert seen == climb(switch, clock, workers)


def test_after_a_pause_the_service_asked_for_it_is_used_little_by_little(
    home: House, switch: Switch, clock: Clock
) -> None:
    """The steps begin when the wait ends, however long it was, also when other lanes still fail meanwhile."""
    switch.hold(3000)
    clock.go(1)
    switch.did_not()
    clock.go(2999)
    assert switch.stand.open
    assert [1, 2, 4, 8, None] == climb(switch, clock, 16)


def test_a_failure_on_the_way_begins_anew(home: House, switch: Switch, clock: Clock) -> None:
    """A service that fails again is spared again; once all lanes work, a single failure slows nobody down."""
    switch.lift(home.desk, actor=Actor.OPERATOR, why="now")
    for _ in range(4):
        clock.go(2)
        switch.got_through()
    assert 16 == switch.allowed(64)
    switch.did_not()
    assert [1, 2, 4, 8, 16, 32, None] == climb(switch, clock, 64)
    switch.did_not()
    assert switch.allowed(64) is None


# --- probing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hold", [fall, pause])
def test_a_probe_is_due_after_a_pause(home: House, switch: Switch, clock: Clock, hold: object) -> None:
    """With `resume: probe` one package may try after half a minute to a minute; the switch itself stays closed."""
    switch.configure(ON, home.desk, probing=True)
    assert not switch.probe_due
    hold(home, switch)  # type: ignore[operator]
    assert not switch.probe_due
    assert switch.waits is not None
    assert PROBE_PAUSE.initial / 2 <= switch.waits <= PROBE_PAUSE.initial
    clock.go(switch.waits)

    assert switch.probe_due
    assert not switch.stand.open


def test_pauses_between_probes_grow(home: House, switch: Switch, clock: Clock) -> None:
    """Each failed probe doubles the pause, up to half an hour; being lifted starts anew."""
    switch.configure(ON, home.desk, probing=True)
    fall(home, switch)
    pauses = []
    for _ in range(8):
        assert switch.waits is not None
        pauses.append(switch.waits)
        clock.go(switch.waits)
        assert switch.probe_due
        switch.probe_failed()
        assert not switch.probe_due
    for n, seconds in enumerate(pauses):
        ceiling = min(PROBE_PAUSE.maximum, PROBE_PAUSE.initial * 2**n)
        assert ceiling / 2 <= seconds <= ceiling
    switch.lift(home.desk, actor=Actor.TFWATCH, why="through")
    assert {"integration": NAME, "by": "probe"} == read_detail(home.last().detail)[0]

    fall(home, switch)
    assert switch.waits is not None
    assert switch.waits <= PROBE_PAUSE.initial


def test_nobody_probes_what_is_off(home: House, switch: Switch, clock: Clock) -> None:
    """Neither what the configuration turned off nor what a person disabled is tried."""
    fall(home, switch)
    switch.configure(OFF, home.desk, probing=True)
    clock.go(1e6)
    assert not switch.probe_due
    switch.configure(ON, home.desk, probing=True)
    switch.drop(home.desk, actor=Actor.OPERATOR, by="command", why="no")
    clock.go(1e6)

    assert not switch.probe_due
