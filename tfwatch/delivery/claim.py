"""Scan the outbox, tell finished ZIPs from unfinished ones, and claim the oldest first. The loop's own work."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

from loguru import logger

from tfwatch import disk
from tfwatch.delivery.admit import Admission
from tfwatch.delivery.desk import Desk
from tfwatch.delivery.journal import fields_of
from tfwatch.delivery.recognise import Claim
from tfwatch.delivery.waiting import WaitingRoom
from tfwatch.delivery.wiring import Policy
from tfwatch.language import number, tr
from tfwatch.model import Stage
from tfwatch.spool.intake import Finish, Probe, is_hollow, probe
from tfwatch.spool.listing import Entry, Listing, NotAPackage
from tfwatch.spool.names import printable
from tfwatch.spool.stillness import Stillness
from tfwatch.wording import kind_of_file

_LOOK_AGAIN: Final = 1.0
_LOOK_AT_HELD: Final = 0.2
_FEW: Final = 64
"""So many unfinished files are looked at on every ring of the bell; more of them only when they have changed."""


@dataclass(frozen=True, slots=True)
class _Unfinished:
    """A file whose writer isn't done: what its entry showed, and when to look again whatever it shows."""

    entry: Entry
    look_at: float
    why: str


class Outbox:
    """What lies in the outbox, and the way out of it. Used by the daemon's loop alone."""

    def __init__(
        self,
        desk: Desk,
        waiting: WaitingRoom,
        admission: Admission,
        *,
        dispatch: Callable[[Claim], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk = desk
        self._waiting = waiting
        self._admission = admission
        self._dispatch = dispatch
        self._clock = clock
        self._ready: deque[Entry] = deque()
        self._still = Stillness()
        self._unfinished: dict[str, _Unfinished] = {}
        self._held: dict[str, tuple[Claim, Entry]] = {}
        self._told: dict[str, str] = {}
        self.problems: dict[str, str] = {}
        self.listing = Listing((), (), 0)
        self._taken: set[str] = set()
        self.scanned_at = float("-inf")
        self.scan_seconds = 0.0

    @property
    def has_candidates(self) -> bool:
        """Whether the last scan found files that were not looked at yet."""
        return bool(self._ready)

    @property
    def unclaimed(self) -> list[Entry]:
        """What the last scan found and was not claimed since. Any thread may ask."""
        taken = self._taken
        return [entry for entry in self.listing.entries if entry.name not in taken]

    @property
    def unfinished(self) -> dict[str, str]:
        """Files whose writer isn't done, and why we think so."""
        return {name: unfinished.why for name, unfinished in self._unfinished.items()}

    def scan(self) -> None:
        """Look at the whole outbox: the truth, whatever events came or didn't."""
        began = self._clock()
        self.listing = self._list()
        self._taken = set()
        names = {entry.name for entry in self.listing.entries}
        for gone in self._unfinished.keys() - names:
            del self._unfinished[gone]
            self._still.forget(gone)
        self._waiting.keep_only(names)
        self.problems = {name: text for name, text in self.problems.items() if name in names}
        self._told = {name: text for name, text in self._told.items() if name in names or name in self._oddities()}
        self._report_oddities()
        few = len(self._unfinished) <= _FEW
        due = [entry for entry in self.listing.entries if self._is_due(entry, few=few)]
        self._ready = deque(sorted(due, key=lambda entry: (entry.ctime_ns, entry.name)))
        self.scanned_at = self._clock()
        self.scan_seconds = self.scanned_at - began

    def _list(self) -> Listing:
        try:
            return self._desk.folders.list(Stage.OUTBOX)
        except (FileNotFoundError, NotADirectoryError):
            # Somebody took the folder away; it is made again, or found again, at the next rescan.
            return Listing((), (), 0)

    def next_look(self) -> float | None:
        """Seconds until a file must be looked at again without any event; None when none must."""
        if self._held:
            return _LOOK_AT_HELD
        look_at = min((unfinished.look_at for unfinished in self._unfinished.values()), default=None)
        waits = [wait for wait in (self._waiting.next_due(),) if wait is not None]
        if look_at is not None:
            waits.append(max(0.0, look_at - self._clock()))
        return min(waits, default=None)

    def claim_next(self, policy: Policy, *, purpose: Literal["deliver", "back up"], is_probe: bool = False) -> bool:
        """Claim the oldest finished ZIP and dispatch it; False when there is none left from the last scan."""
        while self._ready:
            if self._try(self._ready.popleft(), policy, purpose, is_probe=is_probe):
                return True
        return False

    def look_at_held(self, policy: Policy) -> None:
        """Look again at claimed files which a writer still had open when they were claimed."""
        for name, (claim, entry) in list(self._held.items()):
            found = self._prove_again(name, entry, policy)
            if isinstance(found, str) or found.state is not Finish.BEING_WRITTEN:
                del self._held[name]
                self._take_over(claim, found)

    def give_back_held(self) -> None:
        """The daemon stops: nothing was done to these yet."""
        for claim, _ in self._held.values():
            self._admission.give_back(claim)
            self._desk.in_work.release(claim.name)
        self._held.clear()

    # --- looking ---------------------------------------------------------------------------------------------------

    def _is_due(self, entry: Entry, *, few: bool) -> bool:
        if not self._waiting.lets_go(entry):
            return False
        unfinished = self._unfinished.get(entry.name)
        return few or unfinished is None or unfinished.entry != entry or unfinished.look_at <= self._clock()

    def _try(self, entry: Entry, policy: Policy, purpose: Literal["deliver", "back up"], *, is_probe: bool) -> bool:
        name = entry.name
        if name in self._desk.in_work and not self._lies_elsewhere(name):
            # Whoever holds the name is about to let go of it; no event will say so.
            self._waiting.put(name, entry, _LOOK_AT_HELD)
            return False
        try:
            still, found = self._look_into(name, policy)
        except FileNotFoundError:
            return False
        except NotAPackage:
            self._tell(name, tr("is no regular file any more; it is left where it is"))
            return False
        except PermissionError:
            self._report_unreadable(name)
            return False
        except BlockingIOError:
            self._wait_for_writer(entry, _leased(), 0.0, policy)
            return False
        except OSError as error:
            self._tell(name, _unreadable(error))
            return False
        if found is None:
            self._report_hollow(name, policy)
            return False
        expired = found.state is Finish.UNFINISHED and still >= policy.incomplete_timeout_seconds
        if found.state is not Finish.FINISHED and not expired:
            self._wait_for_writer(entry, found, still, policy)
            return False
        return self._claim(entry, policy, Claim(
            name="", dropped_as=name, purpose=purpose, probe=is_probe, expired=expired,
        ))  # fmt: skip

    def _look_into(self, name: str, policy: Policy) -> tuple[float, Probe | None]:
        """For how long a file has been still, and how far its writer has come; None: it is hollow."""
        with disk.about(self._desk.folders.path(Stage.OUTBOX, name)):
            fd = self._desk.folders.open(Stage.OUTBOX, name)
            try:
                if is_hollow(fd, policy.limits.max_bytes):
                    return 0.0, None
                still = self._still.observe(name, os.fstat(fd), self._clock())
                return still, probe(fd, still_seconds=still, settle_seconds=policy.settle_seconds)
            finally:
                os.close(fd)

    def _wait_for_writer(self, entry: Entry, found: Probe, still: float, policy: Policy) -> None:
        look_in = _LOOK_AGAIN
        if found.proven_by == "settling" and found.state is Finish.BEING_WRITTEN:
            look_in = max(0.05, policy.settle_seconds - still)
        self._unfinished[entry.name] = _Unfinished(entry, self._clock() + look_in, found.why)
        if still >= policy.incomplete_timeout_seconds:
            self._tell(
                entry.name,
                tr(
                    "{why} for {minutes} min; it is sent when its writer closes it (fuser shows who that is)",
                    why=found.why,
                    minutes=number(still / 60),
                ),
            )

    def _lies_elsewhere(self, name: str) -> bool:
        return any(self._desk.folders.look(stage, name) for stage in Stage if stage is not Stage.OUTBOX)

    # --- claiming --------------------------------------------------------------------------------------------------

    def _claim(self, entry: Entry, policy: Policy, claim: Claim) -> bool:
        name = self._desk.folders.free_name(entry.name, leaving=Stage.OUTBOX, taken=self._desk.in_work.__contains__)
        if not self._desk.in_work.take(name):
            return False
        try:
            self._desk.folders.move(Stage.OUTBOX, entry.name, Stage.CLAIMED, name)
        except FileNotFoundError:
            self._desk.in_work.release(name)
            return False
        except PermissionError as error:
            self._desk.in_work.release(name)
            mend = self._desk.folders.how_to_let_go(Stage.OUTBOX, entry.name, error)
            self._tell(entry.name, tr("can't be claimed: {error}; {mend}", error=error.strerror, mend=mend))
            return False
        except OSError as error:
            self._desk.in_work.release(name)
            if error.errno in disk.NO_ROOM:
                why = tr("can't be claimed: {error}: free some space (df -h, df -i)", error=error.strerror)
                self._tell(entry.name, why)
                return False
            if error.errno != errno.EXDEV or not self._desk.look_at_mounts():
                raise
            self._ready.clear()  # it holds for all of them; that is said once, and looked at again with each scan
            return False
        self._taken.add(entry.name)
        self._unfinished.pop(entry.name, None)
        self._still.forget(entry.name)
        self.problems.pop(entry.name, None)
        claim = replace(claim, name=name, taken_at=self._clock())
        found = self._prove_again(name, entry, policy)
        if not isinstance(found, str) and found.state is Finish.BEING_WRITTEN:
            self._held[name] = (claim, entry)
            return True
        self._take_over(claim, found)
        return True

    def _prove_again(self, name: str, entry: Entry, policy: Policy) -> Probe | str:
        """A writer may have slipped in before the rename; now nobody can open the file by name any more.

        Words: why it is not to be had after all; they go on from its name.
        """
        try:
            fd = self._desk.folders.open(Stage.CLAIMED, name)
        except NotAPackage:
            return tr("was changed for something else as it was claimed; it is put back")
        except PermissionError:
            return tr("may not be read any more as it was claimed; it is put back")
        except BlockingIOError:
            return _leased()
        except FileNotFoundError:
            if self._desk.look_at_mounts():
                why = tr("lies under another mount")
                return Probe(state=Finish.BEING_WRITTEN, why=why, proven_by="lease")
            raise
        except OSError as error:
            return _unreadable(error)
        try:
            info = os.fstat(fd)
            unchanged = (info.st_size, info.st_mtime_ns) == (entry.size, entry.mtime_ns)
            still = policy.settle_seconds if unchanged else self._still.observe(name, info, self._clock())
            return probe(fd, still_seconds=still, settle_seconds=policy.settle_seconds)
        except OSError as error:
            return _unreadable(error)
        finally:
            os.close(fd)

    def _take_over(self, claim: Claim, found: Probe | str) -> None:
        self._still.forget(claim.name)
        if isinstance(found, str):
            self._tell(claim.dropped_as, found)
        if isinstance(found, str) or (found.state is Finish.UNFINISHED and not claim.expired):
            self._admission.give_back(claim)
            self._desk.in_work.release(claim.name)
        else:
            self._dispatch(claim)

    # --- telling ---------------------------------------------------------------------------------------------------

    def _oddities(self) -> dict[str, str]:
        return dict(self.listing.oddities)

    def _report_oddities(self) -> None:
        for name, kind in self.listing.oddities:
            text = tr(
                "is a {kind}, not a regular file; it is left where it is: drop the ZIP itself", kind=kind_of_file(kind)
            )
            self._tell(name, text)

    def _report_unreadable(self, name: str) -> None:
        try:
            who = self._desk.folders.describe(Stage.OUTBOX, name)
        except FileNotFoundError:
            return
        mend = self._desk.folders.how_to_let_read(Stage.OUTBOX, name)
        self._tell(name, tr("can't be read ({who}); let the daemon read it: {mend}", who=who, mend=mend))

    def _report_hollow(self, name: str, policy: Policy) -> None:
        self._tell(
            name,
            tr(
                "is larger than intake.max_bytes ({most}) allows, and most of it was never written (a sparse file); "
                "it is left where it is: remove it, or copy it again",
                most=number(policy.limits.max_bytes),
            ),
        )

    def _tell(self, name: str, what: str) -> None:
        """Once for each file: shown in status while it lasts. `what` goes on from its name."""
        text = f"outbox/{printable(name)}: {what}"
        self.problems[name] = text
        if self._told.get(name) != text:
            self._told[name] = text
            logger.bind(**fields_of(self._desk.index, name)).warning("{}", text)


def _leased() -> Probe:
    why = tr("is held by another program (a lease)")
    return Probe(state=Finish.BEING_WRITTEN, why=why, proven_by="lease")


def _unreadable(error: OSError) -> str:
    """Words for what the disk says of one file; any other error is raised again."""
    if not disk.is_of_one_file(error):
        raise error
    return tr(
        "can't be read: {error}; it is tried again at each scan: see dmesg for what the disk says, or copy it again",
        error=error.strerror,
    )
