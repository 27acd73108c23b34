"""What a disk may hold after a power cut, by what the file systems promise.

A name and its file's data reach the disk apart. What each model may lose of that which was not synced:

`journal` (ext4 with data=ordered, and XFS). Names: the journal is written in order, so only a suffix of the operations
    on names is lost; a sync of a file or folder commits everything up to the last change of that file's or folder's
    names. Data: delayed allocation, so an appended part is there up to any sector or not at all (a new file under its
    final name with 0 bytes is the usual sight); an overwritten part is old or new, piece by piece. Sizes grow with the
    data. Sources: kernel Documentation/filesystems/ext4 and xfs "delayed logging"; seen on loop images cut in mid-work.
`btrfs`. The whole tree as of some commit, and over it what was synced since: a sync of a file keeps its data and names,
    a sync of a folder the names in it. Anything else of later is gone: a rename without a sync of its folders, too.
    Sources: btrfs(5); CrashMonkey, OSDI'18; seen on loop images.
`posix`. Harsher than any of them. Every operation on names may be lost alone unless all folders it touches were synced;
    a sync of a file keeps its data and no name; a grown file may show zeros instead of its data; of several pieces
    written any may be missing. Source: ALICE ("All File Systems Are Not Created Equal", OSDI'14).

In all of them a rename is whole or not done, as on every journaling file system, and the names of one file come in the
order in which it had them. A written piece can end at any 512-byte sector.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.recording import NAMING, Operation

MODELS: Final = ("journal", "btrfs", "posix")
SECTOR: Final = 512

Tree = dict[str, bytes | None]
"""Path → content; None is a folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A folder as a power cut at the moment `cut` may have left it; `operations`: how many had begun by then."""

    model: str
    cut: float
    operations: int
    names: str
    data: str
    tree: Tree

    def write(self, folder: Path) -> None:
        """Make it anew there."""
        for path, content in sorted(self.tree.items()):
            if content is None:
                (folder / path).mkdir(exist_ok=True)
        for path, content in self.tree.items():
            if content is not None:
                (folder / path).write_bytes(content)

    def key(self, seen: Callable[[str, bytes | None], Hashable] = lambda path, content: content) -> Hashable:
        """Two states with the same key are the same to whoever starts there.

        `seen` says what counts of a path's content; `Ellipsis`: not even that it is there.
        """
        shown = ((path, seen(path, content)) for path, content in sorted(self.tree.items()))
        return tuple((path, what) for path, what in shown if what is not Ellipsis)

    def __str__(self) -> str:
        return f"{self.model}, {self.operations} operations begun, names: {self.names}, data: {self.data}"


class Disk:
    """What may be left of one recording. `made`: folders that were there, and on disk, before it began."""

    def __init__(self, operations: Sequence[Operation], made: Iterable[str]) -> None:
        self._all = list(operations)
        self._made = tuple(made)
        self._prefixes: dict[tuple[int, int], bytes] = {}
        self._naming = [operation for operation in self._all if operation.kind in NAMING]
        self._syncs = [operation for operation in self._all if operation.kind in ("sync", "sync folder")]
        self._sure_by_folders = {id(o): self._sure_at(o, with_file=False) for o in self._naming}
        self._sure_by_files = {id(o): self._sure_at(o, with_file=True) for o in self._naming}
        self._commits = [(sync.end, self._committed_by(sync)) for sync in self._syncs]
        self._synced = {(sync.file, sync.begin, sync.end) for sync in self._syncs if sync.kind == "sync"}

    def cuts(self) -> list[float]:
        """Every moment that makes a difference: something has begun, or a promise has been given."""
        moments = {operation.begin for operation in self._all}
        return sorted(moments | {sync.end for sync in self._syncs})

    def live(self) -> Tree:
        """What every process sees at the end, nothing lost."""
        writes = self._writes(float("inf"))
        return self._tree(self._naming, {file: self._first(len(ops), ops) for file, ops in writes.items()})

    def states(self, cut: float, rng: random.Random, *, samples: int) -> Iterator[State]:
        """The extremes of each model at one moment, and `samples` more by chance; the same tree may come twice."""
        begun = sum(operation.begin <= cut for operation in self._all)
        writes = self._writes(cut)
        pending = {file: self._pending(file, ops, cut) for file, ops in writes.items()}
        for model in MODELS:
            for said_names, names in self._kept_names(model, cut, rng, samples):
                for said_data, contents in self._kept_data(model, writes, pending, rng, samples):
                    yield State(
                        model=model, cut=cut, operations=begun, names=said_names, data=said_data,
                        tree=self._tree(names, contents),
                    )  # fmt: skip

    # --- names -----------------------------------------------------------------------------------------------------

    def _kept_names(
        self, model: str, cut: float, rng: random.Random, samples: int
    ) -> Iterator[tuple[str, list[Operation]]]:
        begun = [o for o in self._naming if o.begin <= cut]
        if model == "journal":
            sure = max((n for end, n in self._commits if end <= cut), default=0)
            lost = range(sure, len(begun))
            yield from ((f"the first {n}", begun[:n]) for n in sorted({sure, *_some(lost, rng, samples)}))
            yield "all", begun
            return
        sure_at = self._sure_by_files if model == "btrfs" else self._sure_by_folders
        sure_ones = [o for o in begun if sure_at[id(o)] <= cut]
        unsure = [n for n, o in enumerate(begun) if sure_at[id(o)] > cut]
        yield "all", begun
        if unsure:
            yield "synced", self._closed(begun, sure_ones)
        if model == "btrfs":
            for n in _some(unsure[1:], rng, samples):
                yield f"a commit of the first {n}", self._closed(begun, [*sure_ones, *begun[:n]])
        elif len(unsure) > 1:
            for number in range(samples):
                chosen = [begun[n] for n in unsure if rng.random() < 0.5]
                yield f"by chance {number}", self._closed(begun, [*sure_ones, *chosen])

    def _committed_by(self, sync: Operation) -> int:
        """How many operations on names are in the journal, which is in order, once that was synced."""
        changes = (n for n, o in enumerate(self._naming, 1) if o.end < sync.begin and _touches(o, sync))
        return max(changes, default=0)

    def _sure_at(self, operation: Operation, *, with_file: bool) -> float:
        """From when on it is on disk: all its folders were synced after it; where that counts, or its file was."""
        later = [sync for sync in self._syncs if operation.end < sync.begin]
        never = float("inf")
        of_folders = max(
            min((sync.end for sync in later if sync.kind == "sync folder" and sync.path == folder), default=never)
            for folder in _folders(operation)
        )
        of_file = min((s.end for s in later if s.kind == "sync" and s.file == operation.file), default=never)
        return min(of_folders, of_file) if with_file and operation.file else of_folders

    @staticmethod
    def _closed(begun: list[Operation], kept: list[Operation]) -> list[Operation]:
        """With all that these rest on: a file's earlier names, and the folders that hold them."""
        chosen = {id(operation) for operation in kept}
        last: dict[int, float] = {}
        for operation in kept:
            last[operation.file] = max(last.get(operation.file, 0.0), operation.begin)
        held = {folder for operation in kept for folder in _folders(operation)}
        return [
            o
            for o in begun
            if id(o) in chosen
            or (o.file and o.begin <= last.get(o.file, 0.0))
            or (o.kind == "mkdir" and o.path in held)
        ]

    # --- data ------------------------------------------------------------------------------------------------------

    def _writes(self, cut: float) -> dict[int, list[Operation]]:
        found: dict[int, list[Operation]] = {}
        for operation in self._all:
            if operation.kind in ("create", "write", "truncate") and operation.begin <= cut:
                found.setdefault(operation.file, [])
                if operation.kind != "create":
                    found[operation.file].append(operation)
        return found

    def _pending(self, file: int, writes: list[Operation], cut: float) -> int:
        """How many of a file's last writes no sync has put on disk."""
        covered = max((begin for of, begin, end in self._synced if of == file and end <= cut), default=0.0)
        return sum(write.end >= covered for write in writes)

    def _kept_data(
        self,
        model: str,
        writes: dict[int, list[Operation]],
        pending: dict[int, int],
        rng: random.Random,
        samples: int,
    ) -> Iterator[tuple[str, dict[int, bytes]]]:
        full = {file: self._first(len(ops), ops) for file, ops in writes.items()}
        synced = {file: self._first(len(ops) - pending[file], ops) for file, ops in writes.items()}
        yield "all", full
        if not any(pending.values()):
            return
        yield "synced", synced
        unsure = [file for file in pending if pending[file]]
        youngest = max(unsure, key=lambda file: writes[file][-1].begin)
        yield f"only of #{youngest} a part", {**synced, youngest: self._torn(writes[youngest], pending[youngest], rng)}
        for file in unsure:
            yield f"#{file} torn", {**full, file: self._torn(writes[file], pending[file], rng)}
        if model == "posix":
            yield "zeros", {file: _zeros(synced[file], full[file]) if pending[file] else full[file] for file in full}
        for number in range(samples):
            mixed = {file: self._by_chance(model, writes[file], pending[file], rng) for file in unsure}
            yield f"chance {number}", {**full, **mixed}

    def _by_chance(self, model: str, writes: list[Operation], pending: int, rng: random.Random) -> bytes:
        sure, unsure = writes[: len(writes) - pending], writes[len(writes) - pending :]
        match rng.randrange(4):
            case 0:
                return self._data(sure)
            case 1:
                return self._data(writes)
            case 2:
                return self._torn(writes, pending, rng)
        size = len(self._data(sure))
        if model == "posix":
            return self._data([*sure, *(write for write in unsure if rng.random() < 0.5)])
        # Pieces inside the old size in any order; what makes the file longer only from the left.
        inside = [w for w in unsure if w.kind == "write" and w.offset + len(w.data) <= size and rng.random() < 0.5]
        return self._data([*sure, *inside])

    def _torn(self, writes: list[Operation], pending: int, rng: random.Random) -> bytes:
        """Up to some sector of one of the last writes."""
        n = rng.randrange(len(writes) - pending, len(writes))
        write = writes[n]
        if write.kind == "truncate":
            return self._data(writes[:n])
        sectors = range(-(-(write.offset + 1) // SECTOR), -(-(write.offset + len(write.data)) // SECTOR))
        length = rng.choice(sectors) * SECTOR - write.offset if sectors else 0
        part = Operation(
            kind="write", begin=write.begin, end=write.end, by=write.by, file=write.file, offset=write.offset,
            data=write.data[:length],
        )  # fmt: skip
        return self._data([*writes[:n], part])

    def _first(self, count: int, writes: list[Operation]) -> bytes:
        """A file after its first so many writes; kept, since most states share it."""
        if not count:
            return b""
        known = writes[0].file, count
        if known not in self._prefixes:
            self._prefixes[known] = self._data(writes[:count])
        return self._prefixes[known]

    @staticmethod
    def _data(writes: Iterable[Operation]) -> bytes:
        data = bytearray()
        for write in writes:
            if write.kind == "truncate":
                data = data[: write.offset].ljust(write.offset, b"\0")
            elif write.data:
                data.extend(bytes(max(0, write.offset - len(data))))
                data[write.offset : write.offset + len(write.data)] = write.data
        return bytes(data)

    # --- both ------------------------------------------------------------------------------------------------------

    def _tree(self, naming: Iterable[Operation], contents: dict[int, bytes]) -> Tree:
        names: dict[str, int] = {}
        tree: Tree = dict.fromkeys(self._made)
        for operation in naming:
            if operation.kind == "mkdir":
                tree[operation.path] = None
                continue
            if operation.kind != "link":
                names = {path: file for path, file in names.items() if file != operation.file}
            if operation.kind != "unlink":
                names[operation.target or operation.path] = operation.file
        tree |= {path: contents[file] for path, file in names.items()}
        return tree


def _some(numbers: Sequence[int], rng: random.Random, count: int) -> list[int]:
    return rng.sample(numbers, min(count, len(numbers)))


def _folders(operation: Operation) -> set[str]:
    """The folders whose entries it changes."""
    return {path.rpartition("/")[0] or "." for path in (operation.path, operation.target) if path}


def _touches(operation: Operation, sync: Operation) -> bool:
    """Whether what is synced has its names changed by an operation."""
    if sync.kind == "sync":
        return operation.file == sync.file
    return sync.path in _folders(operation) or operation.path == sync.path


def _zeros(old: bytes, new: bytes) -> bytes:
    return old + bytes(max(0, len(new) - len(old)))
