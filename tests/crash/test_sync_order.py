"""What the daemon puts on disk before what: read off its own system calls, in each recorded scenario."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.daemon import STAGES
from tests.support.facts import Fact, facts
from tests.support.portal import ordered
from tests.support.recorded import SCENARIOS, Recorded
from tests.support.recording import Operation

_SETTLED = STAGES[1:]


@pytest.fixture(params=[scenario.__name__ for scenario in SCENARIOS])
def made(request: pytest.FixtureRequest, recordings: dict[str, Recorded]) -> Recorded:
    """One scenario, recorded."""
    return recordings[request.param]


def moves(made: Recorded) -> list[Operation]:
    """The daemon's renames of packages, from stage to stage."""
    return [
        o for o in made.operations
        if o.kind == "rename" and o.by.startswith("daemon") and o.target.endswith(".zip") and not _is_hidden(o.path)
    ]  # fmt: skip


def _is_hidden(path: str) -> bool:
    return path.rpartition("/")[2].startswith(".")


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def synced_folder(made: Recorded, folder: str, *, after: float, by: float) -> bool:
    """Whether a folder was synced wholly between two moments."""
    syncs = [o for o in made.operations if o.kind == "sync folder" and o.path == folder]
    return any(after < sync.begin and sync.end <= by for sync in syncs)


def stories(made: Recorded) -> list[Fact]:
    """The facts about packages."""
    return [fact for fact in facts(made.operations) if fact.sha256]


@pytest.mark.timeout(600)
def test_a_fact_is_on_disk_before_the_first_request_leaves(made: Recorded) -> None:
    """No POST begins before ATTEMPTED of its content is synced; no bytes go to S3 before COMPLETED is."""
    posts = [o for o in made.operations if o.kind == "send" and o.data.startswith(b"POST /deliveries")]
    assert posts
    sent = set()
    for sha256 in made.scene.dropped:
        for post in posts:
            if sha256.encode() in post.data:
                sent.add(sha256)
                attempts = [f for f in stories(made) if (f.event, f.sha256) == ("ATTEMPTED", sha256)]
                assert attempts
                assert attempts[0].on_disk < post.begin
                written = [fact for fact in attempts if fact.written < post.begin]
                assert max(fact.on_disk for fact in written) < post.begin
    assert sent == set(ordered(made.scene.sandbox))
    s3 = int(made.scene.server.url.rpartition(":")[2])
    puts = [o for o in made.operations if o.kind == "send" and o.port == s3 and o.data.startswith(b"PUT ")]
    assert puts
    for put in puts:
        (sha256,) = [sha256 for sha256 in made.scene.dropped if sha256[:12].encode() in put.data]
        completed = next(f for f in stories(made) if (f.event, f.sha256) == ("COMPLETED", sha256))
        assert completed.on_disk < put.begin


@pytest.mark.timeout(600)
def test_a_package_is_on_disk_before_its_first_fact(made: Recorded) -> None:
    """Before any row tells of a content, its data and its name in claimed/ are synced, whoever dropped it how."""
    told = Counter[str]()
    for fact in stories(made):
        if told[fact.package]:
            continue
        told[fact.package] += 1
        claims = [m for m in moves(made) if m.target == f".tfwatch/claimed/{fact.package}" and m.end < fact.written]
        claim = claims[-1]
        writes = [o for o in made.operations if o.kind == "write" and o.file == claim.file]
        syncs = [o for o in made.operations if o.kind == "sync" and o.file == claim.file and o.end < fact.written]
        assert writes
        assert any(max(write.end for write in writes) < sync.begin for sync in syncs), fact
        for path in (claim.path, claim.target):
            assert synced_folder(made, _folder(path), after=claim.end, by=fact.written), fact
    assert len(made.drops) == len(told)


@pytest.mark.timeout(600)
def test_a_package_moves_only_after_its_fact(made: Recorded) -> None:
    """No rename into submitted/, delivered/ or rejected/ begins before the row that says so is synced."""
    settled = [move for move in moves(made) if _folder(move.target) in _SETTLED]
    assert settled
    for move in settled:
        folder, _, name = move.target.rpartition("/")
        reasons = [f for f in stories(made) if (f.package, f.to_stage) == (name, folder) and f.written < move.begin]
        assert reasons, move
        assert max(fact.on_disk for fact in reasons) < move.begin, move


@pytest.mark.timeout(600)
def test_a_move_is_on_disk_before_the_next_fact(made: Recorded) -> None:
    """After each rename both folders are synced before the next row about that package, or the daemon's end."""
    for move in moves(made):
        if _folder(move.path) == "outbox":
            continue  # a claim: it is no fact
        name = move.target.rpartition("/")[2]
        last = max(o.end for o in made.operations if o.by == move.by)
        by = min((f.written for f in stories(made) if f.package == name and f.written > move.begin), default=last)
        for path in (move.path, move.target):
            assert synced_folder(made, _folder(path), after=move.end, by=by), move


@pytest.mark.timeout(600)
def test_a_command_is_on_disk_before_it_is_carried_out(recordings: dict[str, Recorded]) -> None:
    """The daemon syncs the requests' folder itself, whether or not the command came to that, before it moves a file."""
    made = recordings["commanded"]
    asked = [o for o in made.operations if o.kind == "rename" and o.target.startswith(".tfwatch/requests/")]
    assert asked
    for request in asked:
        done = next(move for move in moves(made) if move.target.startswith("outbox/") and move.begin > request.begin)
        syncs = [o for o in made.operations if o.kind == "sync folder" and o.path == ".tfwatch/requests"]
        ours = [o for o in syncs if o.by == done.by and request.end < o.begin and o.end <= done.begin]
        assert ours, (request, done)


@pytest.mark.timeout(600)
def test_the_sheet_never_shows_what_is_not_on_disk(made: Recorded) -> None:
    """No request to the sheet carries a row before that row is synced."""
    shown = Counter[str]()
    for fact in facts(made.operations):
        for send in made.operations:
            if send.kind == "send" and fact.chain.encode() in send.data:
                shown[fact.event] += 1
                assert fact.on_disk < send.begin, fact
    assert shown["COMPLETED"]


@pytest.mark.timeout(600)
def test_the_log_only_grows(made: Recorded) -> None:
    """Every write to log.csv begins where the last one ended, or repeats what stands there; nothing is ever cut."""
    log = next(o.file for o in made.operations if o.kind == "rename" and o.target == "log.csv")
    content = b""
    for write in made.operations:
        if write.file == log and write.kind in ("write", "truncate"):
            assert "write" == write.kind
            assert write.offset == len(content) or content[write.offset :].startswith(write.data)
            content = content[: write.offset] + write.data + content[write.offset + len(write.data) :]
    assert len(content) > 1000
