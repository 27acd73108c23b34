"""Thousands of packages while every service misbehaves: each is delivered once, and every failure has its reason."""

from __future__ import annotations

import csv
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pytest

from tests.support.daemon import STAGES, wait_until
from tests.support.extent import Extent
from tests.support.forwarder import Forwarder
from tests.support.misbehaving import SUBMIT, Tally, mix, name
from tests.support.portal import ordered
from tests.support.s3_servers import seaweed
from tests.support.scene import Scene, scene
from tfwatch.model import Integration, read_detail
from tfwatch.sandbox.faults import Fault, FaultKind, Target
from tfwatch.sandbox.settings import PortalSettings

SHARE = 0.05
"""Of all requests, to whatever service, so many fail."""

PIECES = 3
"""Of a request to S3 and its reply, about, as they pass through."""

FAILURES = ("DEFERRED", "UNKNOWN", "REFUSED", "ROLLBACK", "BACKUP_FAILED", "DISABLED")
DOWN = Fault(kind=FaultKind.STATUS, status=503, message="Down for maintenance.")
LOCKED_OUT = Fault(kind=FaultKind.STATUS, status=401, message="Who are you?")
STORM = Fault(kind=FaultKind.STATUS, status=429, retry_after=3, message="Too many requests.")
NO_CODE = ("can't be reached", "no answer", "broke before", "earlier try", "may have been", "closed by us", "s3", "S3")
"""What a failure without a code says instead."""


@dataclass
class Operator:
    """A person who looks at the daemon now and then, and takes into use again what was given up."""

    scene: Scene
    enabled: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def look(self, *, mended: bool = True) -> bool:
        """Whether the transcription service is given up; if its cause is `mended`, it is enabled."""
        rows = [row for row in self.new_rows() if row["event"] in ("ROLLBACK", "DISABLED", "ENABLED")]
        for row in rows:
            self.reasons[row["event"]] += 1
            if row["event"] == "ROLLBACK":
                lying = self.scene.spool.root / "rejected" / row["package"]
                wait_until(lying.exists, f"{lying.name} lies in rejected/")
                assert "tfwatch enable gotranscript" in self.scene.spool.reason(row["package"])
        self._given_up = rows[-1]["event"] != "ENABLED" if rows else self._given_up
        if self._given_up and mended:
            self.scene.spool.ask("enable", integration=Integration.GOTRANSCRIPT)
            self.enabled += 1
            self._given_up = False
            return True
        return self._given_up

    _given_up: bool = False
    _offset: int = 0
    _columns: tuple[str, ...] = ()

    def new_rows(self) -> Iterator[dict[str, str]]:
        """What the log has got since the last look, as far as lines are whole."""
        path = self.scene.spool.root / "log.csv"
        with path.open("rb") as file:
            file.seek(self._offset)
            told = file.read()
        whole = told[: told.rfind(b"\r\n") + 2] if b"\r\n" in told else b""
        self._offset += len(whole)
        lines = list(csv.reader(whole.decode().splitlines()))
        if not self._columns and lines:
            self._columns = tuple(lines.pop(0))
        yield from (dict(zip(self._columns, line, strict=True)) for line in lines)


@pytest.mark.timeout(1800)
def test_thousands_of_packages_while_everything_fails_now_and_then(tmp_path: Path, extent: Extent) -> None:
    """One request in twenty fails in any way there is, four outages on top: all are delivered, once."""
    packages, began, first_day = extent.packages, time.monotonic(), datetime.now(UTC).astimezone().date()
    gotranscript = {
        "workers": 12, "poll_seconds": 0.5, "timeout_seconds": 2,
        "retry": {"attempts": 2, "initial_seconds": 0.05, "max_seconds": 1.5},
    }  # fmt: skip
    with scene(
        tmp_path, seaweed("http"), seed=extent.seed % 2**31, portal=PortalSettings(verdict_delay=0.3),
        integrations={"gotranscript": gotranscript, "s3": {"workers": 4}, "sheets": {"batch_seconds": 1}},
    ) as house, Forwarder(house.sandbox.url) as way, Forwarder(
        house.server.url, breaks=round(PIECES / SHARE), seed=extent.seed
    ) as s3_way:  # fmt: skip
        house.spool.configure(integrations={"gotranscript": {"base_url": way.url}, "s3": {"endpoint_url": s3_way.url}})
        tally, operator = Tally(house.sandbox), Operator(house)
        usual = mix(SHARE, each_once=True)
        tally.set(*usual)
        house.spool.start()
        fresh = iter([f"p{number:05}_v1.zip" for number in range(packages)])

        def drop(share: float) -> None:
            """Drop so many more. Each outage gets some of its own: the others may all have been sent by then."""
            for dropped in islice(fresh, round(share * packages)):
                house.drop(dropped, seed=int(dropped[1:6]), size=200)

        def until_delivered(share: float) -> None:
            """Go on, with a person looking after it, until so many are delivered."""
            deadline = time.monotonic() + 120 + packages / 8
            while len(house.spool.names("delivered")) < share * packages:
                operator.look()
                assert time.monotonic() < deadline, house.spool.picture()
                time.sleep(0.2)

        def given_up() -> None:
            wait_until(lambda: operator.look(mended=False), "the service is given up", 120)

        drop(0.6)
        until_delivered(0.2)
        tally.set(DOWN)
        drop(0.1)
        given_up()
        tally.set(*usual)
        s3_way.shut()
        until_delivered(0.4)
        s3_way.open()
        way.shut()
        drop(0.1)
        given_up()
        way.open()
        until_delivered(0.6)
        tally.set(LOCKED_OUT)
        drop(0.1)
        given_up()
        house.sandbox.revoke_tokens()
        tally.set(*usual)
        until_delivered(0.9)
        tally.set(STORM)
        storms = tally.hits()[name(STORM)]
        drop(1.0)
        wait_until(lambda: tally.hits()[name(STORM)] > storms, "the storm is met")
        tally.set(*usual)
        until_delivered(1.0)
        tally.set()
        s3_way.breaks = 0
        operator.look()
        house.wait_until_settled(120 + packages / 20)
        hits, took = tally.hits() + Counter({"s3 connection cut": s3_way.broken}), time.monotonic() - began
        shown = house.spool.wait_for_state(lambda state: state["stages"]["delivered"] == packages and state, "all are")
        checked = house.spool.cli("fsck", "--json")
        assert 0 == house.spool.stop(seconds=60)
        rows = house.spool.rows()
        print_what_happened(extent, packages, took, hits, rows, operator)

        assert 0 == checked.returncode, checked.stdout
        assert packages == shown["delivered_today"] or datetime.now(UTC).astimezone().date() != first_day
        assert_each_is_in_one_place(house)
        assert_one_order_each(house, rows)
        assert_every_failure_has_its_reason(house, rows)
        for fault in SUBMIT:
            assert hits[name(fault)] > 0, f"never met: {name(fault)}"
        assert s3_way.broken > packages / 200
        for target in (Target.STATUS, Target.SHEETS):
            assert sum(times for what, times in hits.items() if what.startswith(target.value)) > 0, target
        assert operator.reasons["ROLLBACK"] >= 2
        assert operator.reasons["DISABLED"] >= 1
        house.spool.assert_sound()


def print_what_happened(
    extent: Extent, packages: int, took: float, hits: Counter[str], rows: list[dict[str, str]], operator: Operator
) -> None:
    events = Counter(row["event"] for row in rows)
    print(f"\n{packages} packages in {took:.0f} s, seed {extent.seed}, {sum(hits.values())} faults landed:")
    for what, times in sorted(hits.items()):
        print(f"  {times:6}  {what}")
    print(f"  events: {dict(sorted(events.items()))}")
    print(f"  given up {operator.reasons['ROLLBACK'] + operator.reasons['DISABLED']} times, enabled {operator.enabled}")


def assert_each_is_in_one_place(house: Scene) -> None:
    """Every content lies in exactly one folder, delivered/, and none that was not dropped lies anywhere."""
    lying = house.lying()
    assert dict.fromkeys(house.dropped, 1) == Counter(sha256 for _, _, sha256 in lying)
    assert {"delivered"} == {stage for stage, _, _ in lying}
    assert [] == list((house.spool.root / "rejected").iterdir())
    assert [] == [name for stage in STAGES if stage != "delivered" for name in house.spool.names(stage)]


def assert_one_order_each(house: Scene, rows: list[dict[str, str]]) -> None:
    """By the portal's own list one order a content; the log has one acceptance and one completion of each, the same."""
    once = dict.fromkeys(house.dropped, 1)
    assert once == ordered(house.sandbox)
    orders = {str(order["id"]): str(order["sha256"]) for order in house.sandbox.orders()}
    for event in ("ACCEPTED", "COMPLETED"):
        those = [row for row in rows if row["event"] == event]
        assert once == Counter(row["sha256"] for row in those)
        assert orders == {row["order_id"]: row["sha256"] for row in those}
    backed_up = Counter(row["sha256"] for row in rows if row["event"] == "BACKED_UP")
    assert once == backed_up
    assert once == Counter(sha256 for _, sha256 in house.objects())


def assert_every_failure_has_its_reason(house: Scene, rows: list[dict[str, str]]) -> None:
    """Each row of a failure says in words what happened, and carries the service's code if there was one."""
    for row in rows:
        if row["event"] in FAILURES:
            _, words = read_detail(row["detail"])
            assert len(words.split()) > 1, row
            assert row["code"] or row["event"] == "DISABLED" or any(known in words for known in NO_CODE), row
