"""The backups against the log: is each verified copy still there, and is it that package?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from tfwatch.errors import ServiceFailure
from tfwatch.fsck.difference import BackUpAgain, Difference, NoteErased, Progress
from tfwatch.fsck.tally import Entry, Tally
from tfwatch.model import Event, Sha256, Stage
from tfwatch.ports import BackupStoragePort, Kept
from tfwatch.spool.names import printable

_LOOKERS: Final = 8
_AT_ONCE: Final = 2000

_Job = tuple[str, str, Entry]


def compare(
    storage: BackupStoragePort, tally: Tally, progress: Progress, *, has_zip: Callable[[str], bool]
) -> Iterator[Difference]:
    """Look at every object the log says was verified; nothing is fetched.

    `has_zip`: whether delivered/ has a ZIP of that name, of which a new copy could be made.
    """
    jobs = [(sha, name, entry) for (sha, name), entry in tally.packages.items() if entry.backed_up and entry.backup_key]
    progress.begin("looking at backups, objects", len(jobs))
    with ThreadPoolExecutor(_LOOKERS) as lookers:
        for first in range(0, len(jobs), _AT_ONCE):
            some = jobs[first : first + _AT_ONCE]
            try:
                for job, kept in zip(some, lookers.map(partial(_look, storage, progress), some), strict=True):
                    if kept != "found":
                        yield _difference(*job, kept, has_zip=has_zip)
            except ServiceFailure as failure:
                hint = failure.hint or "try again later"
                yield Difference(
                    kind="backup", what=f"the backups can't be compared: {failure}", where="S3", mend=hint
                )  # fmt: skip
                return


def _look(storage: BackupStoragePort, progress: Progress, job: _Job) -> Kept:
    sha256, _, entry = job
    kept = storage.verify(entry.backup_key or "", Sha256(sha256), entry.bytes)
    progress.advance()
    return kept


def _difference(sha256: str, name: str, entry: Entry, kept: Kept, *, has_zip: Callable[[str], bool]) -> Difference:
    what = f"the backup of {printable(name)} " + ("is missing" if kept == "missing" else "is another object")
    where = f"S3 {printable(entry.backup_key or '')}"
    if entry.stage is not Stage.DELIVERED or not has_zip(name):
        return _without_zip(sha256, name, entry, what, where, is_missing=kept == "missing")
    mend = "tfwatch fsck --repair asks the daemon, which stores it again from delivered/"
    return Difference(
        kind="backup", what=what, where=where, mend=mend, action=BackUpAgain(name=name, sha256=Sha256(sha256))
    )


def _without_zip(sha256: str, name: str, entry: Entry, what: str, where: str, *, is_missing: bool) -> Difference:
    mend = "put the object back from the bucket's own history, or the ZIP into delivered/; then run fsck again"
    if entry.event is Event.PRUNED:
        what += ", and its ZIP was removed by retention"
    elif entry.event is Event.MOVED and entry.stage is None and is_missing:
        mend += ". If both were erased on purpose: tfwatch fsck --repair has the daemon note that in the log"
        return Difference(
            kind="backup", what=what, where=where, mend=mend, action=NoteErased(name=name, sha256=Sha256(sha256))
        )
    return Difference(kind="backup", what=what, where=where, mend=mend)
