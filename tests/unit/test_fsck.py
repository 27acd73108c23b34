"""fsck on a real spool without services: what it finds, in which words, and what repairing changes and never does."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.fake_sheet import FakeSheet
from tests.contract.fake_storage import FakeStorage
from tests.unit.house import EXEC_ID, NOON, House, fact, package, waiting
from tfwatch.cli_progress import PlainProgress
from tfwatch.config import Config
from tfwatch.errors import ServiceError, TransientError
from tfwatch.fsck import backup_check, index_check
from tfwatch.fsck.difference import Difference
from tfwatch.fsck.log_chain import Chain
from tfwatch.fsck.repair import Outcome, repair
from tfwatch.fsck.sheet_check import SheetCheck
from tfwatch.fsck.survey import Findings, Scope, Survey
from tfwatch.fsck.tally import Tally
from tfwatch.ledger.index import Index
from tfwatch.ledger.log import Position
from tfwatch.ledger.rows import COLUMNS, GENESIS, cells, encode
from tfwatch.look import Settings, View, open_view
from tfwatch.model import Event, Fact, Package, Stage, write_detail
from tfwatch.spool import lock
from tfwatch.spool.names import reason_name


class Quiet:
    """Progress that nobody watches."""

    def begin(self, what: str, total: int) -> None:
        self.what = what

    def advance(self, steps: int = 1) -> None:
        pass


class Checked:
    """A spool that a daemon has left, and fsck on it. `delivered`, `submitted`, `rejected`: a package in each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        house = House(root)
        self.folders = house.folders
        self.delivered = house.lay(package("delivered.zip"), Stage.OUTBOX)
        house.complete(self.delivered, "1")
        house.desk.settle(
            self.delivered, Event.BACKED_UP, self._at(house, self.delivered),
            detail=write_detail(bucket="b", key="2025/delivered.zip"),
        )  # fmt: skip
        self.submitted = house.lay(package("submitted.zip"), Stage.OUTBOX)
        house.accept(self.submitted, "2")
        self.rejected = house.lay(package("rejected.zip"), Stage.OUTBOX)
        house.folders.move(Stage.OUTBOX, self.rejected.name, Stage.CLAIMED)
        house.desk.settle(
            self.rejected, Event.REFUSED, waiting(self.rejected, Stage.CLAIMED),
            detail=write_detail("not wanted", by="service"), reason="not wanted",
        )  # fmt: skip
        house.close()

    @staticmethod
    def _at(house: House, about: Package):
        state = house.index.package(about.sha256, about.name)
        assert state is not None
        assert state.stage is not None
        return replace(waiting(about, state.stage), log=state.stage, status=state.status)

    @property
    def log(self) -> Path:
        return self.root / "log.csv"

    def path(self, stage: Stage, about: Package) -> Path:
        return Path(self.folders.path(stage, about.name))

    def view(self) -> View:
        config = Config.model_validate({"spool": {"root": str(self.root)}})
        return open_view(Settings(path="config.yaml", config=config, sources={}))

    def find(self, *, deep: bool = False) -> Findings:
        with closing(self.view()) as view, closing(Survey(view, Scope(deep=deep), Quiet())) as survey:
            return survey.find()

    def differences(self, *, deep: bool = False) -> list[Difference]:
        return list(self.find(deep=deep).differences)

    def the_one(self, *, deep: bool = False) -> Difference:
        (found,) = self.differences(deep=deep)
        return found

    def repair(self) -> list[Outcome]:
        with closing(self.view()) as view:
            return repair(view, self.differences(), Quiet(), user="tests")

    def house(self) -> House:
        """Go on in the same spool."""
        return House(self.root)

    def picture(self) -> dict[str, bytes]:
        """Every file that matters: all but what SQLite and the lock keep."""
        skip = ("index.sqlite", "lock")
        files = (path for path in self.root.rglob("*") if path.is_file() and not path.name.startswith(skip))
        return {str(path.relative_to(self.root)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Checked:
    """Made once; each test works on its own copy."""
    return Checked(tmp_path_factory.mktemp("fsck") / "spool")


@pytest.fixture
def spool(left: Checked, tmp_path: Path) -> Checked:
    shutil.copytree(left.root, tmp_path / "spool")
    copy = object.__new__(Checked)
    copy.__dict__.update(left.__dict__)
    copy.root = tmp_path / "spool"
    copy.folders = type(left.folders)(str(copy.root))
    return copy


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_spool_has_no_difference(spool: Checked, deep: bool) -> None:
    """What a daemon leaves is found to be in order, and looking changes nothing."""
    before = spool.picture()
    found = spool.find(deep=deep)

    assert () == found.differences
    assert (7, 3) == (found.rows, found.packages)
    assert ("log", "index", "folders", *(["contents"] if deep else [])) == found.compared
    assert before == spool.picture()


def test_a_spool_nobody_has_worked_in_is_fine(tmp_path: Path) -> None:
    """No log, no index, no folders: that is how it begins."""
    view = open_view(Settings(path="c", config=Config.model_validate({"spool": {"root": str(tmp_path)}}), sources={}))
    with closing(view), closing(Survey(view, Scope(), Quiet())) as survey:
        assert () == survey.find().differences


# --- the log --------------------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(data=st.data())
def test_any_flipped_bit_is_found(left: Checked, tmp_path: Path, data: st.DataObject) -> None:
    """Whichever bit of log.csv is flipped: a difference of the log names the row it is in or the one after it."""
    raw = bytearray(left.log.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path / "log.csv"
    path.write_bytes(raw)
    chain = Chain(str(path), live=False)
    list(chain.rows())

    row = left.log.read_bytes()[:at].count(b"\n")
    assert chain.breaks
    assert chain.breaks[0].seq == row
    assert len(chain.breaks) <= 2


@pytest.mark.parametrize("row", range(1, 7))
def test_a_removed_row_is_found(spool: Checked, row: int) -> None:
    """A row taken out is told by the number where it is missing; the rest is not reported again."""
    lines = spool.log.read_bytes().splitlines(keepends=True)
    spool.log.write_bytes(b"".join(lines[:row] + lines[row + 1 :]))
    found = spool.the_one()

    assert "log" == found.kind
    assert found.where.startswith(f"log.csv row {row} ")
    assert f"seq {row + 1} stands where {row} belongs" in found.what
    assert not found.safe
    assert "can't be believed" in spool.find().notes[0]


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_rows_cut_off_the_end_are_found(spool: Checked, rows: int) -> None:
    """A log that ends early holds by itself: the index has seen what is gone, and is not taken for the culprit."""
    lines = spool.log.read_bytes().splitlines(keepends=True)
    spool.log.write_bytes(b"".join(lines[:-rows]))
    found = spool.the_one()

    assert ("log", False) == (found.kind, found.safe)
    assert "gone from its end" in found.what


def test_a_log_that_is_gone_is_found(spool: Checked) -> None:
    """Without log.csv nothing else is compared."""
    spool.log.unlink()
    assert ["log"] == [each.kind for each in spool.differences()]


def test_a_log_written_anew_is_found(spool: Checked) -> None:
    """Another log whose chain holds is told from the one that the index was made of."""
    chain, lines = GENESIS, [spool.log.read_bytes().splitlines(keepends=True)[0]]
    for seq in range(1, 9):
        forged = Fact(event=Event.ENABLED, detail=f"forged {seq}")
        record, line = encode(forged, seq=seq, at=NOON, exec_id=EXEC_ID, previous_chain=chain)
        chain = record.chain
        lines.append(line)
    spool.log.write_bytes(b"".join(lines))
    found = spool.differences()[0]

    assert ("log", False) == (found.kind, found.safe)
    assert "written anew" in found.what


def test_two_edits_are_both_named(spool: Checked) -> None:
    """Mending the first place alone would not be enough."""
    lines = spool.log.read_bytes().splitlines(keepends=True)
    for row in (2, 5):
        lines[row] = lines[row].replace(b"zip", b"zap", 1)
    spool.log.write_bytes(b"".join(lines))

    assert [2, 5] == [int(found.where.split()[2]) for found in spool.differences()]


def test_a_torn_end_is_told_from_damage(spool: Checked) -> None:
    """What a crash leaves is named with what the next start does, and everything before it is compared."""
    with spool.log.open("ab") as file:
        file.write(b"8,2025-11-13T12:0")
    found = spool.the_one()

    assert "17 bytes" in found.what
    assert "the next start cuts it off" in found.mend
    assert "folders" in spool.find().compared


# --- the index ------------------------------------------------------------------------------------------------------


def _drop(spool: Checked) -> None:
    for path in spool.root.glob(".tfwatch/index.sqlite*"):
        path.unlink()


def _scribble(spool: Checked) -> None:
    _drop(spool)
    (spool.root / ".tfwatch/index.sqlite").write_bytes(b"no database" * 1000)


def _sql(statement: str) -> Callable[[Checked], None]:
    def change(spool: Checked) -> None:
        with closing(sqlite3.connect(spool.folders.index)) as database, database:
            assert database.execute(statement).rowcount

    return change


def _put_back(spool: Checked) -> None:
    """The index of an earlier day: behind the log."""
    with closing(spool.house()) as house:
        house.record(Fact(event=Event.ENABLED, detail=write_detail("x", integration="s3")))
    earlier = spool.root / "earlier"
    shutil.copy(spool.folders.index, earlier)
    with closing(spool.house()) as house:
        house.record(Fact(event=Event.ENABLED, detail=write_detail("y", integration="s3")))
    _drop(spool)
    earlier.rename(spool.folders.index)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_drop, "missing"),
        (_scribble, "can't be read"),
        (_put_back, "it has read 8 of 9 rows"),
        (
            _sql("UPDATE package SET stage = 'rejected' WHERE stage = 'delivered'"),
            "stage rejected, by the log",
        ),
        (_sql("UPDATE package SET backed_up = 0"), "backed_up 0, by the log 1"),
        (_sql("DELETE FROM package WHERE stage = 'submitted'"), "submitted.zip: the index doesn't know it"),
        (_sql("UPDATE package SET name = CAST('x.zip' AS BLOB) WHERE stage = 'submitted'"), "no such package"),
    ],
)
def test_a_wrong_index_is_found_and_made_anew(spool: Checked, change: Callable[[Checked], None], words: str) -> None:
    """Missing, unreadable, behind or wrong: it is one safe difference, and none is left after the repair."""
    change(spool)
    found = spool.the_one()

    assert ("index", True) == (found.kind, found.safe)
    assert words in found.what
    assert [True] == [repaired for _, repaired, _ in spool.repair()]
    assert [] == spool.differences(deep=True)


def test_deep_compares_all_of_the_index(spool: Checked) -> None:
    """Numbers of keys, orders, reasons: whatever a projection holds is held against one made anew."""
    _sql("UPDATE content SET generation = 7")(spool)

    assert [] == spool.differences()
    assert "content" in spool.the_one(deep=True).what


_NAMES = ["a.zip", "b.zip", "\udcff.zip"]
_FACTS = st.builds(
    lambda name, event, to, status_of, was, key: fact(
        package(name, b"x"), event, None, to,
        detail=write_detail("", was=was if event in (Event.MOVED, Event.REQUEUED) else None, key=key, integration="s3"),
    ),
    st.sampled_from(_NAMES), st.sampled_from(Event), st.none() | st.sampled_from(Stage), st.none(),
    st.none() | st.sampled_from(_NAMES), st.sampled_from(["k1", "k2"]),
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(facts=st.lists(_FACTS, min_size=1, max_size=12))
def test_the_tally_and_the_index_agree(facts: list[Fact]) -> None:
    """Two readings of the same rows, whatever they say: fsck never blames an index that is right."""
    chain = GENESIS
    with closing(Index(":memory:")) as index, closing(Tally()) as tally:
        for seq, each in enumerate(facts, 1):
            record, _ = encode(each, seq=seq, at=NOON, exec_id=EXEC_ID, previous_chain=chain)
            chain = record.chain
            tally.add(record)
            index.apply([record], Position.start())
        assert [] == list(index_check.compare(index, tally))


# --- the folders ----------------------------------------------------------------------------------------------------


def test_a_zip_that_is_gone_is_found(spool: Checked) -> None:
    """The difference names the package, its backup and the choice; nothing is repaired."""
    spool.path(Stage.DELIVERED, spool.delivered).unlink()
    found = spool.the_one()

    assert ("folder", "delivered/delivered.zip", False) == (found.kind, found.where, found.safe)
    assert "2025/delivered.zip" in found.mend


def test_a_zip_of_another_size_is_found(spool: Checked) -> None:
    """A settled package that was changed in place is noticed by its size."""
    spool.path(Stage.DELIVERED, spool.delivered).write_bytes(b"longer than it was before")
    assert "by the log 13" in spool.the_one().what


def test_deep_finds_changed_bytes(spool: Checked) -> None:
    """The same size with other bytes is found by hashing, and only then."""
    path = spool.path(Stage.DELIVERED, spool.delivered)
    path.write_bytes(path.read_bytes()[:-1] + b"!")

    assert [] == spool.differences()
    assert "its content is not the one that was logged" in spool.the_one(deep=True).what


def test_what_a_person_moved_is_named_once(spool: Checked) -> None:
    """One move is one difference, and the daemon will follow it."""
    spool.path(Stage.SUBMITTED, spool.submitted).rename(spool.path(Stage.DELIVERED, spool.submitted))
    found = spool.the_one()

    assert ("delivered/submitted.zip", False) == (found.where, found.safe)
    assert "the log has it in submitted/" in found.what


def test_what_was_put_there_is_found(spool: Checked) -> None:
    """A ZIP the log doesn't know, a directory named like one, and a folder that is missing are all named."""
    (spool.root / "delivered/new.zip").write_bytes(b"new")
    (spool.root / "outbox/odd.zip").mkdir()
    (spool.root / "outbox/waits.zip").write_bytes(b"waits")
    spool.path(Stage.SUBMITTED, spool.submitted).unlink()
    (spool.root / "submitted").rmdir()

    assert {"delivered/new.zip", "outbox/odd.zip", "submitted/"} == {found.where for found in spool.differences()}


@pytest.mark.parametrize("about", ["delivered", "submitted", "rejected"])
def test_an_interrupted_move_is_finished(spool: Checked, about: str) -> None:
    """What lies in claimed/ with a later fact goes where that sent it, with its reason; the log is left alone."""
    lost: Package = getattr(spool, about)
    stage = Stage(about)
    before = spool.picture()
    spool.path(stage, lost).rename(spool.path(Stage.CLAIMED, lost))
    Path(spool.folders.path(Stage.REJECTED, reason_name("rejected.zip"))).unlink()
    assert [True] * len(spool.differences()) == [found.safe for found in spool.differences()]

    spool.repair()

    assert [] == spool.differences()
    after = spool.picture()
    assert b"not wanted" in after.pop("rejected/rejected.zip.reason.txt")
    before.pop("rejected/rejected.zip.reason.txt")
    assert before == after


def test_a_file_of_another_content_is_not_moved(spool: Checked) -> None:
    """The name and size of a file in claimed/ prove nothing."""
    spool.path(Stage.DELIVERED, spool.delivered).unlink()
    spool.path(Stage.CLAIMED, spool.delivered).write_bytes(b"X" * spool.delivered.bytes)
    ((_, repaired, said),) = spool.repair()

    assert not repaired
    assert "its content is not the one" in said
    assert spool.path(Stage.CLAIMED, spool.delivered).exists()


def test_reason_files_are_put_right(spool: Checked) -> None:
    """A missing one is written from the log, a stray one of ours removed, a person's own note left alone."""
    rejected = spool.root / "rejected"
    (rejected / "rejected.zip.reason.txt").unlink()
    (rejected / "gone.zip.reason.txt").write_text("stray")
    (rejected / "my.reason.txt").write_text("mine")
    assert ["reason", "reason"] == [found.kind for found in spool.differences()]

    spool.repair()

    assert [] == spool.differences()
    assert {"my.reason.txt", "rejected.zip", "rejected.zip.reason.txt"} == set(os.listdir(rejected))
    assert "not wanted" in (rejected / "rejected.zip.reason.txt").read_text()


def test_while_a_daemon_runs_nothing_is_repaired(spool: Checked) -> None:
    """What it owns is refused with the way to do it, and its claims are its own affair."""
    (spool.root / "rejected/rejected.zip.reason.txt").unlink()
    spool.path(Stage.CLAIMED, package("claimed.zip")).write_bytes(b"at work")
    before = spool.picture()
    with lock.hold(spool.folders.lock):
        # A lock is seen by other processes, and by other descriptors of this one.
        ((found, repaired, said),) = spool.repair()

    assert ("reason", False) == (found.kind, repaired)
    assert "systemctl stop tfwatch" in said
    assert before == spool.picture()


# --- backups and the sheet ------------------------------------------------------------------------------------------


@pytest.fixture
def tally(spool: Checked) -> Iterator[Tally]:
    with closing(Tally()) as tally:
        for record in Chain(str(spool.log), live=False).rows():
            tally.add(record)
        yield tally


def compared(storage: FakeStorage, tally: Tally, *, has_zip: bool = True) -> list[Difference]:
    return list(backup_check.compare(storage, tally, Quiet(), has_zip=lambda name: has_zip))


def test_backups_are_held_against_the_log(spool: Checked, tally: Tally) -> None:
    """A ZIP is only offered for a new copy; storage that is down is said once, and is not taken for empty."""
    storage, key = FakeStorage(), "2025/delivered.zip"
    (lost,) = compared(storage, tally, has_zip=False)
    (missing,) = compared(storage, tally)
    storage.objects[key] = b"another one"
    (other,) = compared(storage, tally)
    storage.objects[key] = b"delivered.zip"
    assert [] == compared(storage, tally)
    storage.failures = [TransientError("S3: no answer")]
    (down,) = compared(storage, tally)

    assert (False, missing.what) == (lost.safe, lost.what)
    assert (True, "the backup of delivered.zip is missing") == (missing.safe, missing.what)
    assert (True, "the backup of delivered.zip is another object") == (other.safe, other.what)
    assert (False, "the backups can't be compared: S3: no answer") == (down.safe, down.what)


class Mirrored:
    """The spool's log in a sheet, and the comparison."""

    def __init__(self, spool: Checked) -> None:
        self.log = str(spool.log)
        chain = Chain(self.log, live=False)
        self.sheet = FakeSheet(width=len(COLUMNS))
        self.sheet.mirror(1, [cells(record) for record in chain.rows()])
        self.last = chain.end
        self.pending = 0
        self.slept: list[float] = []

    def compare(self, *, written: int = 7) -> list[Difference]:
        check = SheetCheck(
            self.sheet, self.log, last=self.last, written=written, worksheet="log", sleep=self.slept.append
        )
        found = list(check.differences(Quiet(), running=False))
        self.pending = check.pending
        return found


@pytest.fixture
def mirrored(spool: Checked) -> Mirrored:
    return Mirrored(spool)


def test_a_true_mirror_has_no_difference(mirrored: Mirrored) -> None:
    """Row for row, and nothing below."""
    assert [] == mirrored.compare()


def test_an_edited_cell_is_named(mirrored: Mirrored) -> None:
    """With its place, its column, what it shows and what the log says."""
    mirrored.sheet.rows[2][5] = "my note"
    (found,) = mirrored.compare()

    assert ("sheet", "log!A3", False) == (found.kind, found.where, found.safe)
    assert "package is 'my note', in the log 'delivered.zip'" == found.what


def test_a_sorted_sheet_is_named(mirrored: Mirrored) -> None:
    """Each row that is not in its place says which one stands there."""
    mirrored.sheet.rows = dict(enumerate([mirrored.sheet.rows[seq] for seq in range(7, 0, -1)], 1))
    found = mirrored.compare()

    assert 6 == len(found)  # the middle one stays
    assert "another row stands here (seq '7'); the log has row 1" == found[0].what


def test_rows_gone_and_rows_to_come_are_told_apart(mirrored: Mirrored) -> None:
    """Emptied rows are a difference, wherever they are; those never written are not."""
    del mirrored.sheet.rows[6], mirrored.sheet.rows[7]
    assert [] == mirrored.compare(written=5)
    assert 2 == mirrored.pending
    (at_end,) = mirrored.compare()
    assert "rows 6 to 7 of the log are not there any more" == at_end.what
    assert "the running daemon fills them" in at_end.mend
    del mirrored.sheet.rows[2]
    assert ["row 2 of the log is not there any more"] == [found.what for found in mirrored.compare(written=5)]


def test_a_row_below_the_log_is_found(mirrored: Mirrored) -> None:
    """Somebody's sums under the table will be in the way of the next rows."""
    mirrored.sheet.rows[9] = ["sum"] * len(COLUMNS)
    (found,) = mirrored.compare()
    assert "log!A10" == found.where


def test_a_sheet_that_is_down_is_said(mirrored: Mirrored) -> None:
    """It is not taken for empty, and the hint is the service's."""

    class Down(FakeSheet):
        def read(self, first_seq: int, count: int) -> list[list[str]]:
            raise ServiceError("403", hint="share it")

    mirrored.sheet = Down(width=len(COLUMNS))
    (found,) = mirrored.compare()
    assert ("the sheet can't be compared: 403", "share it") == (found.what, found.mend)


def test_a_busy_sheet_is_waited_for(mirrored: Mirrored) -> None:
    """The daemon shares the quota: what passes by itself is tried again after the pause that was asked for."""

    class Busy(FakeSheet):
        def read(self, first_seq: int, count: int) -> Sequence[Sequence[str]]:
            if self.failures:
                raise self.failures.pop()
            return super().read(first_seq, count)

    mirrored.sheet = Busy(width=len(COLUMNS), rows=mirrored.sheet.rows, failures=[TransientError("429", retry_after=7)])
    assert [] == mirrored.compare()
    assert [7] == mirrored.slept


# --- progress -------------------------------------------------------------------------------------------------------


def test_progress_is_one_line_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe what is soon done says nothing; what lasts says how far it is, now and then."""
    import sys

    now = [0.0]
    progress = PlainProgress(sys.stderr, clock=lambda: now[0])
    progress.begin("reading", 10)
    for _ in range(10):
        now[0] += 2.5
        progress.advance()

    lines = capsys.readouterr().err.splitlines()
    assert 5 == len(lines)
    assert "reading: 2 of 10 (20 %)" == lines[0]
