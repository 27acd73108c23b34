"""Power cuts by replay: the daemon's own operations on the spool, recorded, cut off at every moment, less what was not
synced by then; and the real daemon started on what is left, with the services as they were.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.aftermath import Forked, Stock
from tests.support.daemon import Spool, wait_until
from tests.support.diskmodel import MODELS, State
from tests.support.extent import Extent
from tests.support.facts import rows_in
from tests.support.portal import digest, ordered
from tests.support.recorded import Recorded, lying
from tests.support.scene import Scene
from tfwatch import look
from tfwatch.model import read_detail
from tfwatch.why import assemble

_SAMPLES = 2
"""Cases by chance at each moment, beside the extremes; one where only a share is wanted."""

_UNSEEN = (
    *(".tfwatch/alerts.json", ".tfwatch/index.sqlite", ".tfwatch/state.json", ".tfwatch/lock"),
    "outbox/.tfwatch-canary",
    "logs/observability.json",
)
_UNFINISHED = re.compile(r"(?:\.tfwatch|logs)/\.[0-9a-f]{12}\.tmp")
"""What was written to take the place of one of those, and had not yet: never looked at."""


@pytest.fixture(scope="module")
def cases(recordings: dict[str, Recorded], extent: Extent) -> dict[str, list[Case]]:
    """For each recording all states that differ to a reader of the spool, with one of their projections each."""
    return {name: _states(made, extent) for name, made in recordings.items()}


@dataclass
class Case:
    """States that are the same to a reader of the spool: one of them, by chance, and how often each model has it."""

    state: State
    models: Counter[str] = field(default_factory=Counter)


def _states(made: Recorded, extent: Extent) -> list[Case]:
    rng = extent.rng(f"power {made.what}")
    disk, seen = made.disk, Counter[str]()
    distinct: dict[Hashable, Case] = {}
    everything: set[int] = set()
    for cut in disk.cuts():
        for state in disk.states(cut, rng, samples=_SAMPLES if extent.share <= 1 else 1):
            seen[state.model] += 1
            everything.add(hash(state.key()))
            # What the services held matters too: whether the portal may have each order by then.
            sent = tuple(made.memory.may_have_order(sha256, cut) for sha256 in made.scene.dropped)
            key = (sent, state.key(lambda path, content: _as_seen(made, path, content)))
            case = distinct.setdefault(key, Case(state))
            case.models[state.model] += 1
            if rng.random() * case.models.total() < 1:
                case.state = state
    told = ", ".join(f"{model} {seen[model]}" for model in MODELS)
    print(
        f"\npower, {made.what}: {len(made.operations)} operations, {len(disk.cuts())} moments, "
        f"{seen.total()} states ({told}), {len(everything)} distinct, {len(distinct)} without the projection; "
        f"seed {extent.seed}"
    )
    return list(distinct.values())


def _share(cases: list[Case], what: str, extent: Extent) -> list[Case]:
    """One in so many, in any order, and at least one of each model."""
    mixed = extent.shuffled(cases, what)
    chosen = extent.sample(mixed, what)
    for model in MODELS:
        if not any(case.models[model] for case in chosen):
            chosen.append(next(case for case in mixed if case.models[model]))
    return chosen


def _as_seen(made: Recorded, path: str, content: bytes | None) -> Hashable:
    """The projection is rebuilt from the log, whatever is left of it; a ZIP is whole, empty, or something between."""
    if path.startswith(_UNSEEN) or _UNFINISHED.fullmatch(path):
        return ...
    if content and path.endswith(".zip"):
        return content if made.fate_of(digest(content)) else len(content) > 0
    return content


# --- without a daemon -----------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_the_model_is_what_really_happened(recordings: dict[str, Recorded]) -> None:
    """With nothing lost, the replayed operations give the spool byte for byte: the recording left nothing out."""
    for made in recordings.values():
        root = made.scene.spool.root
        found = {os.path.relpath(path, root): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")}
        assert found == made.disk.live(), made.what


@pytest.mark.timeout(600)
def test_whatever_the_power_cut_left_nothing_is_lost(
    recordings: dict[str, Recorded], cases: dict[str, list[Case]]
) -> None:
    """A content with a fact is there whole, and so is one its dropper synced; an order has its ATTEMPTED on disk."""
    for name, made in recordings.items():
        for case in cases[name]:
            assert_nothing_lost(made, case.state)


def assert_nothing_lost(made: Recorded, state: State) -> None:
    there = {sha256 for _, sha256 in lying(state.tree)}
    rows = rows_in(state.tree.get("log.csv"))
    told = f"{made.what}: {state}\n{sorted(state.tree)}\n{rows}"
    assert {row[6] for row in rows if row[6]} <= there, told
    assert made.synced_by(state.cut) <= there, told
    sent = {sha256 for sha256 in made.scene.dropped if made.memory.may_have_order(sha256, state.cut)}
    assert sent <= {row[6] for row in rows if row[4] == "ATTEMPTED"}, told


# --- with the real daemon -------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What came of the states of one recording."""

    count: int = 0
    tried: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


@pytest.mark.timeout(3600)
def test_after_any_power_cut_all_is_delivered_once(
    recordings: dict[str, Recorded], cases: dict[str, list[Case]], extent: Extent, tmp_path: Path
) -> None:
    """Started on any such state: one order, one object, one place for each content, chain, sheet and `why` true."""
    began = time.monotonic()

    def work(name: str) -> Tally:
        made, tally, stock = recordings[name], Tally(), Stock()
        states = _share(cases[name], name, extent)
        try:
            for n, case in enumerate(states):
                home, state = tmp_path / f"{name}-{n}", case.state
                try:
                    recover(made, state, home, stock, chance=extent.rng(f"{name} {n}").random)
                except Exception as error:
                    tally.failures.append(f"{name} {n}: {state}\n{type(error).__name__}: {error}")
                    if len(tally.failures) == 5:
                        break
                else:
                    shutil.rmtree(home)
                tally.tried.update(set(case.models))
                tally.count += 1
        finally:
            stock.close()
        return tally

    with ThreadPoolExecutor(len(recordings)) as pool:
        tallies = list(pool.map(work, recordings))
    tried = sum((tally.tried for tally in tallies), Counter[str]())
    failures = [failure for tally in tallies for failure in tally.failures]
    print(
        f"\npower: {sum(t.count for t in tallies)} states recovered by the daemon (of each model "
        f"{', '.join(f'{model} {tried[model]}' for model in MODELS)}), {len(failures)} wrongly, "
        f"{time.monotonic() - began:.0f} s; 1 in {extent.share}, seed {extent.seed}"
    )
    assert not failures, "\n\n".join(failures)
    assert set(tried) == set(MODELS)


def recover(made: Recorded, state: State, home: Path, stock: Stock, *, chance: Callable[[], float]) -> None:
    """Put everything back to that state, let a daemon work until all is settled, and look at what came of it."""
    home.mkdir()
    settings = copy.deepcopy(made.scene.spool.settings)
    spool = Spool(home, made.scene.sandbox.url, made.scene.sandbox.api_key)
    spool.settings = settings
    settings["spool"]["root"] = str(spool.root)
    spool.write_config()
    state.write(spool.root)
    rows = rows_in(state.tree.get("log.csv"))
    made.memory.restore(state.cut, rows=len(rows), chance=chance)
    found = Counter(sha256 for _, sha256 in lying(state.tree))
    sendable = {sha256 for sha256 in found if made.fate_of(sha256) in ("delivered", "rejected")}
    delivered = {sha256 for sha256 in sendable if made.fate_of(sha256) == "delivered"}
    scene = Scene(spool, made.scene.sandbox, made.scene.server, made.scene.bucket)
    scene.dropped = {sha256: made.scene.dropped[sha256] for sha256 in delivered}
    daemon = stock.start(spool.config, spool.output)
    try:
        wait_until(lambda: has_settled(scene, daemon, found.total()), "all is settled", 60)
        assert daemon.poll() is None, f"the daemon ended, exit code {daemon.poll()}"
        daemon.end()
        due = {sha256: made.orders_due(sha256, state.tree, rows) for sha256 in sendable}
        assert_delivered_once(scene, found, due)
        assert_remains_are_refused(scene, {sha256 for sha256 in found if made.fate_of(sha256) is None})
        assert rows == scene.logged()[1 : len(rows) + 1], "rows that were on disk were changed"
    except AssertionError as error:
        raise AssertionError(f"{error}\nfound: {lying(state.tree)}\n{scene.picture()}") from None
    finally:
        daemon.end()


def has_settled(scene: Scene, daemon: Forked, files: int) -> bool:
    """Every file lies in its last folder, is stored if it was delivered, and the sheet shows the log."""
    if daemon.poll() is not None:
        return True
    spool = scene.spool
    if not spool.output.exists() or b"watching " not in spool.output.read_bytes():
        return False
    if len(spool.names("delivered")) + len(spool.names("rejected")) < files:
        return False
    rows = scene.logged()
    return set(scene.dropped) <= {row[6] for row in rows if row[4] == "BACKED_UP"} and rows == scene.shown()


def assert_delivered_once(scene: Scene, found: Counter[str], due: dict[str, int]) -> None:
    """Nothing lost, nothing twice, everybody says the same, and nobody is said to have done what nobody did."""
    lies = scene.lying()
    assert found == Counter(sha256 for _, _, sha256 in lies)
    assert dict.fromkeys(scene.dropped, 1) == Counter(sha256 for stage, _, sha256 in lies if stage == "delivered")
    assert {"delivered", "rejected"} >= {stage for stage, _, _ in lies}
    assert due == ordered(scene.sandbox)
    assert dict.fromkeys(scene.dropped, 1) == Counter(sha256 for _, sha256 in scene.objects())
    assert [] == scene.uploads()
    assert scene.logged() == scene.shown()
    scene.spool.assert_sound()
    for stage, name, _ in lies:
        assert stage == "delivered" or scene.spool.reason(name)
    by_operator = [row for row in scene.logged()[1:] if row[15] == "operator" and row[6]]
    # A start that finds a package moved on the operator's behalf logs the move, then obeys the waiting command.
    ours = [row for row in by_operator if row[16] != "moved from delivered to outbox"]
    assert {("REQUEUED", sha256): 1 for sha256, orders in due.items() if orders > 1} == Counter(
        (r[4], r[6]) for r in ours
    )
    assert {row[6] for row in by_operator} == {row[6] for row in ours}
    assert_why_is_true(scene, {sha256 for _, _, sha256 in lies})


def assert_remains_are_refused(scene: Scene, remains: set[str]) -> None:
    """What a cut left of a content that nobody had synced was refused here, as cut short or with a hole in it."""
    flaws = {row[6]: read_detail(row[16])[0].get("flaw") for row in scene.logged()[1:] if row[4] == "REFUSED"}
    assert {flaws.get(sha256) for sha256 in remains} <= {"truncated", "corrupt"}, flaws


def assert_why_is_true(scene: Scene, sha256s: set[str]) -> None:
    """`why` names the portal's own order of each content, the folder its ZIP lies in, and its backup."""
    view = look.open_view(look.settings(str(scene.spool.config), {}))
    try:
        for sha256 in sha256s:
            packages = assemble(view, sha256, datetime.isoformat)["packages"]
            told = {(package["stage"], package["package"]) for package in packages if package["stage"]}
            assert told == {(stage, name) for stage, name, found in scene.lying() if found == sha256}
            orders = [order["id"] for order in scene.sandbox.orders() if order["sha256"] == sha256]
            assert set(orders[-1:]) == {package["order_id"] for package in packages if package["order_id"]}
            keys = {key for key, found in scene.objects() if found == sha256}
            assert keys == {package["backup_key"] for package in packages if package["backup_key"]}
    finally:
        view.close()
