"""The daemon dies at every system call by which it writes, moves, syncs or sends: nothing is lost, nothing twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.crash.matrix import DEADLINE, Play, Theatre, act
from tests.support.aging import age
from tests.support.daemon import zip_bytes
from tests.support.extent import Extent
from tests.support.looking import differences, told
from tests.support.portal import digest, keys, ordered
from tests.support.s3_servers import S3Server
from tests.support.scene import Scene
from tests.support.warm import Nursery
from tfwatch.sandbox.faults import Fault, FaultKind
from tfwatch.sandbox.settings import PortalSettings
from tfwatch.spool.folders import Folders

pytestmark = pytest.mark.timeout(7200)


@pytest.fixture
def theatre(server: S3Server, nursery: Nursery, extent: Extent) -> Theatre:
    return Theatre(server=server, nursery=nursery, extent=extent)


ALONE = {"s3": {"enabled": False}, "sheets": {"enabled": False}}
"""Where a play is about the portal alone, S3 and sheet are off."""

CLAIM = ".tfwatch/claimed/p.zip"
FORGETFUL = PortalSettings(verdict_delay=0.1, idempotency=False)


def drop(scene: Scene) -> None:
    scene.drop("p.zip", seed=1)


def lies_in(scene: Scene, stage: str) -> bool:
    return "p.zip" in scene.spool.names(stage)


def has(scene: Scene, event: str) -> bool:
    return any(row[4] == event for row in scene.logged()[1:])


def assert_lies_only_in(scene: Scene, stage: str) -> None:
    """One file, there, and everybody says so."""
    sha256 = digest(zip_bytes(seed=1))
    assert [(stage, "p.zip", sha256)] == scene.lying(), scene.picture()
    (package,) = told(scene.spool, sha256)["packages"]
    assert stage == package["stage"], scene.picture()
    assert [] == differences(scene.spool, local=True), scene.picture()
    scene.spool.assert_sound()


def check_all(scene: Scene) -> None:
    """Nothing lost, nothing twice, and everybody says the same: portal, S3, sheet, folders, log, `why` and `fsck`."""
    scene.assert_invariants()
    assert [] == differences(scene.spool), scene.picture()


# --- the whole house ------------------------------------------------------------------------------------------------


def test_killed_at_every_call_of_a_delivery(tmp_path: Path, theatre: Theatre) -> None:
    """Whatever call it dies at, from its first to the last of its stop: one order, one object, one file."""
    play = Play(name="delivery", prepare=drop, is_over=Scene.is_settled, check=check_all)
    act(play, tmp_path, theatre, each_call=True)


# --- a portal that knows no idempotency keys ------------------------------------------------------------------------


def test_lookup_finds_the_order_of_the_dead(tmp_path: Path, theatre: Theatre) -> None:
    """Without idempotency keys and with `lookup`: the order made before the kill is found, and stays the only one."""
    play = Play(
        name="lookup", prepare=drop, is_over=Scene.is_settled, check=check_all, portal=FORGETFUL,
        sections={"integrations": {"gotranscript": {"on_unknown_outcome": "lookup"}}},
    )  # fmt: skip
    act(play, tmp_path, theatre, since=CLAIM)


def test_ask_never_orders_twice(tmp_path: Path, theatre: Theatre) -> None:
    """Without idempotency keys and with `ask`: delivered with one order, or parked as unknown with at most one."""

    def check(scene: Scene) -> None:
        orders = ordered(scene.sandbox).total()
        if lies_in(scene, "delivered"):
            assert 1 == orders, scene.picture()
            assert_lies_only_in(scene, "delivered")
            return
        assert orders <= 1, scene.picture()
        assert_lies_only_in(scene, "rejected")
        assert "unknown" == scene.spool.rows("p.zip")[-1]["status"], scene.picture()
        assert "Nobody knows whether p.zip was delivered" in scene.spool.reason("p.zip")

    play = Play(
        name="ask", prepare=drop, check=check, portal=FORGETFUL,
        is_over=lambda scene: lies_in(scene, "delivered") or lies_in(scene, "rejected"),
        sections={"integrations": {"gotranscript": {"on_unknown_outcome": "ask"}, **ALONE}},
    )  # fmt: skip
    act(play, tmp_path, theatre, since=CLAIM)


# --- packages that don't pass ---------------------------------------------------------------------------------------


def test_killed_while_a_package_is_refused(tmp_path: Path, theatre: Theatre) -> None:
    """Refused by the service: it lies in rejected/ with the service's words, and no order was made."""

    def check(scene: Scene) -> None:
        assert Counter() == ordered(scene.sandbox), scene.picture()
        assert_lies_only_in(scene, "rejected")
        assert "No audio inside." in scene.spool.reason("p.zip")

    play = Play(
        name="refused", prepare=drop, is_over=lambda scene: lies_in(scene, "rejected"), check=check,
        faults=(Fault(kind=FaultKind.STATUS, status=422, message="No audio inside."),),
        sections={"integrations": ALONE},
    )  # fmt: skip
    act(play, tmp_path, theatre, since=CLAIM)


def test_killed_while_a_package_is_refused_later(tmp_path: Path, theatre: Theatre) -> None:
    """Accepted, then refused: one order, and the package lies in rejected/ with the service's words."""

    def check(scene: Scene) -> None:
        assert 1 == ordered(scene.sandbox).total(), scene.picture()
        assert_lies_only_in(scene, "rejected")
        assert "The audio could not be used." in scene.spool.reason("p.zip")

    play = Play(
        name="refused later", prepare=drop, is_over=lambda scene: lies_in(scene, "rejected"), check=check,
        portal=PortalSettings(verdict_delay=0.1, reject_pattern="p"), sections={"integrations": ALONE},
    )  # fmt: skip
    act(play, tmp_path, theatre, since=CLAIM)


def test_killed_over_twins(tmp_path: Path, theatre: Theatre) -> None:
    """The same content under two names: one is delivered with one order, the other refused with a reason."""
    sha256 = digest(zip_bytes(seed=1))

    def prepare(scene: Scene) -> None:
        scene.drop("p.zip", seed=1)
        scene.drop("q.zip", seed=1)

    def is_over(scene: Scene) -> bool:
        return {1} == {len(scene.spool.names(stage)) for stage in ("delivered", "rejected")}

    def check(scene: Scene) -> None:
        assert {sha256: 1} == ordered(scene.sandbox), scene.picture()
        assert {"p.zip", "q.zip"} == {name for _, name, _ in scene.lying()}, scene.picture()
        assert {"delivered", "rejected"} == {stage for stage, _, _ in scene.lying()}, scene.picture()
        assert "The same content was" in scene.spool.reason(*scene.spool.names("rejected"))
        assert [] == differences(scene.spool, local=True), scene.picture()
        scene.spool.assert_sound()

    play = Play(name="twins", prepare=prepare, is_over=is_over, check=check, sections={"integrations": ALONE})
    act(play, tmp_path, theatre, since=CLAIM)


# --- ways back ------------------------------------------------------------------------------------------------------


def test_killed_while_requeueing(tmp_path: Path, theatre: Theatre) -> None:
    """A refused package is requeued by a command: it is delivered with one order, under its second key, and stored."""

    def prepare(scene: Scene) -> None:
        scene.sandbox.set_faults(Fault(kind=FaultKind.STATUS, status=422, message="No audio inside."))
        sha256 = scene.drop("p.zip", seed=1)
        scene.spool.start(seconds=DEADLINE)
        scene.spool.wait_for("rejected", "p.zip", seconds=DEADLINE)
        assert 0 == scene.spool.stop(seconds=DEADLINE)
        scene.sandbox.set_faults()
        scene.spool.ask("requeue", names=("p.zip",), sha256s=(sha256,))

    def check(scene: Scene) -> None:
        assert [f"{digest(zip_bytes(seed=1))}-2"] == keys(scene.sandbox), scene.picture()
        check_all(scene)

    play = Play(name="requeue", prepare=prepare, is_over=Scene.is_settled, check=check)
    act(play, tmp_path, theatre)


def test_killed_while_cancelling(tmp_path: Path, theatre: Theatre) -> None:
    """A package that waits is cancelled by a command: it is never sent, and its move is logged once."""

    def prepare(scene: Scene) -> None:
        Folders(str(scene.spool.root)).prepare()
        drop(scene)
        scene.spool.ask("cancel", names=("p.zip",))

    def is_over(scene: Scene) -> bool:
        return has(scene, "MOVED") and lies_in(scene, "rejected")

    def check(scene: Scene) -> None:
        assert Counter() == ordered(scene.sandbox), scene.picture()
        assert ["MOVED"] == scene.spool.events("p.zip"), scene.picture()
        assert_lies_only_in(scene, "rejected")
        assert "put here by an operator" in scene.spool.reason("p.zip")

    play = Play(name="cancel", prepare=prepare, is_over=is_over, check=check, sections={"integrations": ALONE})
    act(play, tmp_path, theatre)


def test_killed_while_rolling_back(tmp_path: Path, theatre: Theatre) -> None:
    """A rollback under way: the package lies in rejected/, documented; lifted, it is delivered with one order."""

    def is_over(scene: Scene) -> bool:
        return has(scene, "ROLLBACK") and lies_in(scene, "rejected") and "## Rollback" in scene.spool.document()

    def check(scene: Scene) -> None:
        assert Counter() == ordered(scene.sandbox), scene.picture()
        assert_lies_only_in(scene, "rejected")
        assert "tfwatch enable gotranscript" in scene.spool.reason("p.zip")
        assert 1 == scene.spool.document().count("## Rollback"), scene.spool.document()
        scene.sandbox.set_faults()
        scene.spool.ask("enable", integration="gotranscript")
        scene.spool.start(seconds=DEADLINE)
        scene.spool.wait_for("delivered", "p.zip", seconds=DEADLINE)
        assert 0 == scene.spool.stop(seconds=DEADLINE)
        assert 1 == ordered(scene.sandbox).total(), scene.picture()
        assert_lies_only_in(scene, "delivered")

    play = Play(
        name="rollback", prepare=drop, is_over=is_over, check=check,
        faults=(Fault(kind=FaultKind.STATUS, status=503, message="Down."),),
        sections={"integrations": {"gotranscript": {"rollback_after": 1}, **ALONE}},
    )  # fmt: skip
    act(play, tmp_path, theatre, since=CLAIM)


def test_killed_while_retention_removes(tmp_path: Path, theatre: Theatre) -> None:
    """A delivered ZIP whose days are over: it is gone, with one row that says so, and its object is there."""

    def prepare(scene: Scene) -> None:
        scene.drop("p.zip", seed=1)
        scene.spool.start(seconds=DEADLINE)
        scene.spool.wait_for_event("BACKED_UP", seconds=DEADLINE)
        assert 0 == scene.spool.stop(seconds=DEADLINE)
        age(scene.spool, 40)
        scene.spool.configure(retention={"delivered_days": 30})

    def is_over(scene: Scene) -> bool:
        on_its_way = (scene.spool.root / ".tfwatch" / "removing").rglob("*.zip")
        return has(scene, "PRUNED") and not any(on_its_way)

    def check(scene: Scene) -> None:
        assert [] == scene.lying(), scene.picture()
        assert ["PRUNED"] == scene.spool.events("p.zip")[4:], scene.picture()
        assert [digest(zip_bytes(seed=1))] == [sha256 for _, sha256 in scene.objects()], scene.picture()
        assert [] == differences(scene.spool), scene.picture()
        scene.spool.assert_sound()

    play = Play(
        name="retention", prepare=prepare, is_over=is_over, check=check,
        sections={"integrations": {"sheets": {"enabled": False}}},
    )  # fmt: skip
    act(play, tmp_path, theatre, since=".tfwatch/removing/delivered/p.zip")
