"""Any bytes at all, looked at as the daemon looks: refused in plain words, or read by everybody as we read them."""

from __future__ import annotations

import hashlib
import io
import resource
import subprocess
import time
import zipfile
from collections import Counter
from pathlib import Path

from tests.fuzz.mutations import Mutant, mutants, seeds
from tests.fuzz.rounds import look_for_a_failure
from tests.support.extent import Extent
from tests.support.require import need
from tests.unit.zips import LZMA, opened
from tfwatch.spool.intake import Finish, Limits, Unfinished, Unsound, inspect, probe
from tfwatch.spool.zipformat import check_structure, walk
from tfwatch.spool.zipmembers import lay_out, unpack

LIMITS = Limits(max_bytes=1 << 20, max_entries=1000, max_uncompressed_bytes=1 << 24)
SECONDS = 5.0
"""Far more than any of these takes, however busy the machine is."""

_UNZIP_IS_TOO_OLD = 81
"""Its exit code for entries that need a program of a version beyond 4.6, or were made on VMS."""

MEBIBYTES = 160
"""What inspecting may add at its peak: an LZMA member may ask for 64 MiB, and the pieces are of 1 MiB."""


def inspected(fd: int, *, stopping_after: float = SECONDS) -> None:
    until = time.monotonic() + stopping_after
    inspect(fd, LIMITS, verify="full", stopping=lambda: time.monotonic() > until, progress=lambda _: None)


def contents(fd: int, size: int) -> list[tuple[bytes, int, bytes]]:
    """Name, method and content of each member, as we read them."""
    directory = check_structure(fd, size)
    data_at = lay_out(fd, directory, lambda _: None)
    return [
        (entry.name, entry.method, b"".join(unpack(fd, entry, at)))
        for entry, at in zip(walk(fd, directory), data_at, strict=True)
    ]


def test_nothing_but_a_refusal(extent: Extent) -> None:
    """Whatever the bytes: a verdict or a refusal of ours, in bounded time and memory, and always the same one."""
    verdicts, longest = Counter[str](), 0.0
    for data in seeds():
        with opened(data) as fd:
            inspected(fd)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def check(mutant: Mutant) -> None:
        nonlocal longest
        data = mutant.build()
        began = time.monotonic()
        with opened(data) as fd:
            first, again = verdict(fd), verdict(fd)
            found = probe(fd, still_seconds=9.0, settle_seconds=1.0)
        longest = max(longest, time.monotonic() - began)
        assert first == again
        assert (found.state is Finish.UNFINISHED) == (first == "unfinished")
        verdicts[first] += 1

    checked = look_for_a_failure(extent, mutants, check)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"\n{checked:,} ZIPs: {dict(verdicts)}; longest {longest * 1000:.0f} ms; {grown:.0f} MiB; seed {extent.seed}")
    assert MEBIBYTES > grown
    assert "unprintable" not in verdicts
    assert {"accepted", "unfinished", "corrupt", "overlapping"} <= verdicts.keys() or extent.fuzz_seconds < 5


def verdict(fd: int) -> str:
    try:
        inspected(fd)
    except Unfinished:
        return "unfinished"
    except Unsound as refused:
        return refused.code if refused.message.isprintable() else "unprintable"
    return "accepted"


def test_what_is_accepted_is_read_alike_by_all(extent: Extent, tmp_path: Path) -> None:
    """Python, Info-ZIP and 7-Zip find no fault in what we accept, and read the very members that we have read."""
    need("unzip", "7z")
    originals = set(seeds())
    seen, told, untold = set[bytes](), Counter[str](), 0

    def check(mutant: Mutant) -> None:
        nonlocal untold
        data = mutant.build()
        digest = hashlib.sha256(data).digest()
        if data in originals or digest in seen:
            return
        with opened(data) as fd:
            if verdict(fd) != "accepted":
                untold += 1
                return
            ours = contents(fd, len(data))
        compare(data, ours, tmp_path)
        seen.add(digest)
        told.update(mutation.kind for mutation in mutant.changes)

    checked = look_for_a_failure(extent, mutants, check)
    print(
        f"\n{checked:,} ZIPs, {untold:,} refused, {len(seen):,} accepted and compared: {dict(told)}; seed {extent.seed}"
    )
    assert seen


def compare(data: bytes, ours: list[tuple[bytes, int, bytes]], home: Path) -> None:
    """Hold our reading against three others."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert [content for _, _, content in ours] == [archive.read(info) for info in archive.infolist()]
        hollow = any(info.compress_type and not info.compress_size for info in archive.infolist())
    path = home / "a.zip"
    path.write_bytes(data)
    tested = run("7z", "t", "-bso0", "-p-", path)
    assert tested.returncode in (0, 1), (tested.returncode, tested.stderr, ours)
    if hollow or any(method == LZMA for _, method, _ in ours):
        return  # unzip knows no LZMA, and no empty member that is called compressed
    printed = run("unzip", "-p", path)
    if printed.returncode == _UNZIP_IS_TOO_OLD:
        return
    assert printed.returncode in (0, 1), (printed.returncode, printed.stderr, ours)
    assert b"".join(content for _, _, content in ours) == printed.stdout, (printed.stderr, ours)


def run(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
