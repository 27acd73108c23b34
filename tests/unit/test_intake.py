"""Finished? Sound? The two questions asked of every ZIP."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfwatch.errors import Stopping
from tfwatch.spool import intake
from tfwatch.spool.filesystem import sees_every_writer
from tfwatch.spool.intake import (
    Finish,
    Inspection,
    Limits,
    Probe,
    Unfinished,
    Unsound,
    hash_file,
    ignore_lease_signals,
    inspect,
    probe,
)
from tfwatch.spool.zipformat import check_structure

LIMITS = Limits(max_bytes=1 << 30, max_entries=1000, max_uncompressed_bytes=1 << 30)
FINISHED = Probe(state=Finish.FINISHED, proven_by="lease")


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target.getvalue()


SMALL = {
    "job/manifest.json": b'{"trace_id": "trace-1"}',
    "job/a.txt": b"hello " * 300,
    "job/b.bin": random.Random(1).randbytes(19_000),
}


@pytest.fixture
def dropped(tmp_path: Path) -> Iterator[Callable[[bytes], int]]:
    """Writes a file and opens it as the folders do."""
    opened = []

    def drop(data: bytes) -> int:
        path = tmp_path / "a.zip"
        path.write_bytes(data)
        opened.append(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK))
        return opened[-1]

    yield drop
    for fd in opened:
        os.close(fd)


def ask(fd: int, *, still: float = 0.0) -> Probe:
    return probe(fd, still_seconds=still, settle_seconds=5.0)


def look(fd: int, limits: Limits = LIMITS, **options: Any) -> Inspection:
    return inspect(fd, limits, **{"verify": "full", "stopping": lambda: False, "progress": lambda _: None, **options})


def refusal(fd: int, limits: Limits = LIMITS, **options: Any) -> str:
    with pytest.raises(Unsound) as caught:
        look(fd, limits, **options)
    assert caught.value.message.endswith(".")
    return caught.value.code


# --- finished? --------------------------------------------------------------------------------------------------------


@pytest.fixture
def leased(dropped: Callable[[bytes], int], tmp_path: Path) -> Iterator[Callable[[bytes], int]]:
    """The same, where leases count; SIGIO is ignored as the daemon does."""
    before = signal.getsignal(signal.SIGIO)
    ignore_lease_signals()
    if not sees_every_writer(dropped(b"")):
        pytest.skip(f"leases don't count on the file system of {tmp_path}")
    yield dropped
    signal.signal(signal.SIGIO, before)


def test_a_closed_zip_is_finished_at_once(leased: Callable[[bytes], int]) -> None:
    """With a lease no waiting period is needed."""
    assert FINISHED == ask(leased(zip_of(SMALL)))


def test_a_writer_keeps_it_from_being_finished(leased: Callable[[bytes], int], tmp_path: Path) -> None:
    """However whole it looks, a ZIP that someone has open for writing is being written, until it is closed."""
    fd = leased(zip_of(SMALL))
    with (tmp_path / "a.zip").open("ab"):
        assert Probe(state=Finish.BEING_WRITTEN, why="is still open for writing", proven_by="lease") == ask(fd)

    assert FINISHED == ask(fd)


def test_a_writer_in_another_process_counts(leased: Callable[[bytes], int], tmp_path: Path) -> None:
    """The lease sees writers anywhere on this machine, and readers don't matter."""
    fd = leased(zip_of(SMALL))
    command = ["sh", "-c", 'exec 3>>"$0"; echo open; read _', str(tmp_path / "a.zip")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with (tmp_path / "a.zip").open("rb"):
            assert Finish.BEING_WRITTEN == ask(fd).state
        writer.communicate(b"\n")
    with (tmp_path / "a.zip").open("rb"):
        assert FINISHED == ask(fd)


@pytest.mark.parametrize("data", [b"", b"PK\3\4", zip_of(SMALL)[:-1], b"not a zip"])
def test_a_file_that_is_no_whole_zip_is_unfinished(leased: Callable[[bytes], int], data: bytes) -> None:
    """Closed, but not whole: unfinished, and it says why."""
    found = ask(leased(data))

    assert (Finish.UNFINISHED, "lease") == (found.state, found.proven_by)
    assert found.why


@pytest.mark.parametrize("data", [zip_of(SMALL), b"", b"half"])
def test_the_lease_is_gone_after_the_probe(leased: Callable[[bytes], int], tmp_path: Path, data: bytes) -> None:
    """A writer that comes later need not wait: nothing is held beyond the check, whatever it found."""
    ask(leased(data))

    # Non-blocking: with a lease still there this would raise BlockingIOError.
    os.close(os.open(tmp_path / "a.zip", os.O_WRONLY | os.O_NONBLOCK))


def test_the_lease_is_gone_after_an_error(
    leased: Callable[[bytes], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that can't be read raises, and still leaves no lease."""

    def broken(fd: int, size: int) -> None:
        raise OSError(5, "Input/output error")

    fd = leased(zip_of(SMALL))
    monkeypatch.setattr(intake, "check_structure", broken)

    with pytest.raises(OSError, match="Input/output"):
        ask(fd)
    os.close(os.open(tmp_path / "a.zip", os.O_WRONLY | os.O_NONBLOCK))


def test_a_writer_that_slips_in_during_the_check(
    leased: Callable[[bytes], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease broken while the structure is read voids the answer; the signal it raises ends nobody."""
    fd = leased(zip_of(SMALL))
    check = check_structure

    def check_with_a_guest(fd: int, size: int) -> object:
        with pytest.raises(BlockingIOError):  # it may not open yet, but the lease is being broken from here on
            os.open(tmp_path / "a.zip", os.O_WRONLY | os.O_NONBLOCK)
        return check(fd, size)

    monkeypatch.setattr(intake, "check_structure", check_with_a_guest)
    assert Finish.BEING_WRITTEN == ask(fd).state
    monkeypatch.undo()
    assert FINISHED == ask(fd)


def test_where_leases_do_not_count_stillness_decides(
    dropped: Callable[[bytes], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere the file must have been still for settle_seconds, and whole."""
    monkeypatch.setattr(intake, "sees_every_writer", lambda fd: False)

    moving = Probe(state=Finish.BEING_WRITTEN, why="has not yet been still for 5 s", proven_by="settling")
    assert moving == ask(dropped(zip_of(SMALL)), still=4.9)
    assert Probe(state=Finish.FINISHED, proven_by="settling") == ask(dropped(zip_of(SMALL)), still=5.0)
    assert Finish.UNFINISHED == ask(dropped(b""), still=5.0).state


def test_leases_do_not_count_on_other_file_systems() -> None:
    """Only the file systems that were tried are trusted; procfs stands for all others."""
    fd = os.open("/proc/self/status", os.O_RDONLY)
    try:
        assert not sees_every_writer(fd)
        assert "settling" == ask(fd).proven_by
    finally:
        os.close(fd)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="drops root to be refused the lease of another user's file")
def test_someone_elses_file_falls_back_to_stillness(leased: Callable[[bytes], int]) -> None:
    """A lease needs ownership or CAP_LEASE; without, stillness decides."""
    fd = leased(zip_of(SMALL))
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        told = [ask(fd, still=seconds) for seconds in (0.0, 5.0)]
        right = [(Finish.BEING_WRITTEN, "settling"), (Finish.FINISHED, "settling")]
        os._exit(0 if right == [(each.state, each.proven_by) for each in told] else 1)

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# --- sound? -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verify", ["full", "structure"])
def test_a_sound_zip(dropped: Callable[[bytes], int], verify: str) -> None:
    """Its SHA-256, sizes, entries and trace come back."""
    data = zip_of(SMALL)
    expected = Inspection(
        sha256=hashlib.sha256(data).hexdigest(),  # type: ignore[arg-type]
        bytes=len(data),
        entries=3,
        uncompressed_bytes=sum(map(len, SMALL.values())),
        trace_id="trace-1",  # type: ignore[arg-type]
    )

    assert expected == look(dropped(data), verify=verify)


def test_an_empty_archive_is_refused(dropped: Callable[[bytes], int]) -> None:
    """A ZIP without entries is finished, but nothing to deliver."""
    assert "empty" == refusal(dropped(zip_of({})))


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"max_bytes": 100}, "too_big"),
        ({"max_entries": 2}, "too_many_entries"),
        ({"max_uncompressed_bytes": 20_000}, "bomb"),
    ],
)
def test_limits(dropped: Callable[[bytes], int], limits: dict[str, int], code: str) -> None:
    """Exactly the limit passes; one less is refused, before anything is hashed."""
    sizes = look(dropped(zip_of(SMALL)))
    exact = {
        "max_bytes": sizes.bytes,
        "max_entries": sizes.entries,
        "max_uncompressed_bytes": sizes.uncompressed_bytes,
    }
    reported: list[int] = []

    look(dropped(zip_of(SMALL)), Limits(**exact))
    assert code == refusal(dropped(zip_of(SMALL)), Limits(**{**exact, **limits}), progress=reported.append)
    assert [] == reported


def test_damaged_members_are_seen_with_full_only(dropped: Callable[[bytes], int]) -> None:
    """`structure` trusts the members' bytes, `full` tests them."""
    data = bytearray(zip_of(SMALL, zipfile.ZIP_STORED))
    data[data.index(b"hello ")] ^= 1

    assert "corrupt" == refusal(dropped(bytes(data)))
    assert 3 == look(dropped(bytes(data)), verify="structure").entries


def test_unsafe_names_are_refused_without_verifying_too(dropped: Callable[[bytes], int]) -> None:
    """Names are a matter of structure."""
    assert "unsafe_name" == refusal(dropped(zip_of({"a/../../b": b"x"})), verify="structure")


def test_a_cut_zip_is_unfinished(dropped: Callable[[bytes], int]) -> None:
    """What is not whole is not judged."""
    with pytest.raises(Unfinished):
        look(dropped(zip_of(SMALL)[:-5]))


@pytest.mark.parametrize("change", [-5, +5])
def test_a_size_that_changes_meanwhile(dropped: Callable[[bytes], int], tmp_path: Path, change: int) -> None:
    """A file that grows or shrinks while it is read is not finished, whatever was read."""
    fd = dropped(zip_of(SMALL))

    def meddle(_: int) -> None:
        os.truncate(tmp_path / "a.zip", len(zip_of(SMALL)) + change)

    with pytest.raises(Unfinished):
        look(fd, progress=meddle, verify="structure")


def test_stopping_between_chunks(dropped: Callable[[bytes], int]) -> None:
    """When the daemon stops, it stops within a MiB, in hashing as in unpacking."""
    fd = dropped(zip_of({"a": bytes(5 << 20), "b": random.Random(3).randbytes(3 << 20)}, zipfile.ZIP_STORED))
    whole: list[int] = []
    look(fd, progress=whole.append)
    assert whole == sorted(set(whole))
    assert os.fstat(fd).st_size + (8 << 20) == whole[-1]
    assert 1 << 20 >= max(after - before for before, after in zip([0, *whole], whole, strict=False))

    for point in (1, len(whole) // 2, len(whole) - 1):
        done: list[int] = []
        with pytest.raises(Stopping):
            look(fd, progress=done.append, stopping=lambda: len(done) >= point)  # noqa: B023
        assert whole[:point] == done


def test_hash_file_needs_no_zip(dropped: Callable[[bytes], int]) -> None:
    """Whatever is refused has a SHA-256 too."""
    data = random.Random(4).randbytes((2 << 20) + 1)

    assert hashlib.sha256(data).hexdigest() == hash_file(dropped(data), stopping=lambda: False, progress=lambda _: None)
    with pytest.raises(Stopping):
        hash_file(dropped(data), stopping=lambda: True, progress=lambda _: None)


# --- the trace --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "trace_id"),
    [
        ({"manifest.json": b'{"trace_id": "a"}'}, "a"),
        ({"job/x": b"", "job/manifest.json": b'{"trace_id": "b"}'}, "b"),
        ({"job/manifest.json": b'{"trace_id": "b"}', "manifest.json": b'{"trace_id": "a"}'}, "a"),
        ({"first/x": b"", "second/manifest.json": b'{"trace_id": "b"}'}, None),
        ({"readme": b"", "job/": b"", "job/manifest.json": b'{"trace_id": "b"}'}, "b"),
        ({"job/deep/manifest.json": b'{"trace_id": "b"}'}, None),
        ({"x": b""}, None),
    ],
    ids=lambda files: " ".join(files) if isinstance(files, dict) else str(files),
)
def test_where_the_manifest_is_looked_for(
    dropped: Callable[[bytes], int], files: dict[str, bytes], trace_id: str | None
) -> None:
    """In the root, else in the first folder; nowhere else."""
    assert trace_id == look(dropped(zip_of(files))).trace_id


@pytest.mark.parametrize(
    ("manifest", "trace_id"),
    [
        (b'{"trace_id": "' + b"x" * 128 + b'"}', "x" * 128),
        (b'\xef\xbb\xbf{"trace_id": "bom"}', "bom"),
        (b'{"trace_id": "' + b"x" * 129 + b'"}', None),
        (b'{"trace_id": ""}', None),
        (b'{"trace_id": "a b"}', None),
        (b'{"trace_id": "a\\n"}', None),
        (b'{"trace_id": "\xc3\xa9"}', None),
        (b'{"trace_id": 7}', None),
        (b'{"other": "x"}', None),
        (b'["trace_id"]', None),
        (b"not json", None),
        (b"\xff\xfe\xfd", None),
        (b"", None),
        (b"[" * 100_000, None),
        (b'{"n": ' + b"9" * 10_000 + b', "trace_id": "x"}', None),
        (b'{"trace_id": "x"}' + b" " * (1 << 20), None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_bad_manifest_is_ignored(dropped: Callable[[bytes], int], manifest: bytes, trace_id: str | None) -> None:
    """A trace id is 1 to 128 printing ASCII characters; a manifest without one refuses nothing."""
    assert trace_id == look(dropped(zip_of({"manifest.json": manifest}))).trace_id


def test_a_manifest_that_can_not_be_unpacked_is_ignored_without_verifying(dropped: Callable[[bytes], int]) -> None:
    """With `structure` a damaged manifest gives no trace, and no refusal."""
    data = zip_of({"manifest.json": json.dumps({"trace_id": "x"}).encode()}, zipfile.ZIP_STORED).replace(b'"x"', b'"y"')

    assert look(dropped(data), verify="structure").trace_id is None


# --- fast -------------------------------------------------------------------------------------------------------------


def test_a_small_zip_takes_about_a_millisecond(dropped: Callable[[bytes], int]) -> None:
    """20 KB with 3 entries: probe and full inspection, at their best, stay below a millisecond of CPU."""
    fd = dropped(zip_of(SMALL))
    times = []
    for _ in range(50):
        began = time.thread_time()
        ask(fd)
        look(fd)
        times.append(time.thread_time() - began)

    assert 0.001 > min(times)


# --- anything at all --------------------------------------------------------------------------------------------------

_SEED = zip_of(SMALL | {"job/c.txt": b"more " * 100})


@settings(max_examples=500, deadline=2000)
@example(changes=[], cut=len(_SEED))
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, len(_SEED) - 1) | st.integers(len(_SEED) - 300, len(_SEED) - 1) | st.integers(0, 120),
            st.integers(0, 255),
        ),
        max_size=6,
    ),
    cut=st.just(len(_SEED)) | st.integers(0, len(_SEED)),
)
def test_inspect_answers_whatever_the_bytes(changes: list[tuple[int, int]], cut: int) -> None:
    """Inspecting any bytes ends in time: with an inspection, `Unsound` or `Unfinished`."""
    data = bytearray(_SEED)
    for at, value in changes:
        data[at] = value
    fd = os.memfd_create("zip")
    try:
        os.write(fd, data[:cut])
        try:
            found = look(fd)
        except (Unsound, Unfinished):
            return
        assert hashlib.sha256(data[:cut]).hexdigest() == found.sha256
    finally:
        os.close(fd)
