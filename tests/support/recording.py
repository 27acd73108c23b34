"""What a process did to a folder and said to its services, call by call, as strace saw it.

Each call has a beginning and an end on one clock. What it does may be on the disk from its beginning on; what it
promises holds from its end on. So an order by beginnings never contradicts cause and effect, also between processes
that were traced apart.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from tests.support.daemon import wait_until
from tests.support.require import need

CALLS: Final = (
    "open", "openat", "creat", "close", "lseek", "write", "writev", "pwrite64", "pwritev", "sendfile",
    "copy_file_range", "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "mkdir",
    "mkdirat", "rmdir", "truncate", "ftruncate", "fallocate", "fsync", "fdatasync", "sync", "syncfs", "msync",
    "connect", "sendto", "sendmsg",
)  # fmt: skip

_LINE = re.compile(r"(?P<thread>\d+) +(?P<at>\d+\.\d+) (?P<rest>.*)", re.DOTALL)
_CALL = re.compile(r"(?P<name>\w+)\((?P<args>.*)\) += (?P<result>-?\d+|\?).*?(?:<(?P<took>[\d.]+)>)?$", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)", re.DOTALL)
_UNFINISHED = " <unfinished ...>"
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_FD = re.compile(r"(\d+)<([^>]*)>")
_PORT = re.compile(r"sin6?_port=htons\((\d+)\)")

Kind = Literal["create", "write", "truncate", "rename", "link", "unlink", "mkdir", "sync", "sync folder", "send"]
NAMING: Final = frozenset(("create", "rename", "link", "unlink", "mkdir"))
"""Operations on names; `write` and `truncate` are those on data."""


@dataclass(slots=True, kw_only=True)
class Operation:
    """One thing done. `file` is a file's number: it stays the same under all its names.

    `path`, `target`: names below the recorded folder. `begin`, `end`: seconds; of a write its place in the file too.
    """

    kind: Kind
    begin: float
    end: float
    by: str
    file: int = 0
    path: str = ""
    target: str = ""
    offset: int = 0
    data: bytes = b""
    port: int = 0

    def __str__(self) -> str:
        what = f"{len(self.data)} bytes at {self.offset}" if self.kind == "write" else self.target
        return f"{self.begin:.6f} {self.by} {self.kind} #{self.file} {self.path} {what}".rstrip()


def tracing(record: Path) -> tuple[str, ...]:
    """What to start a process with so that `record` holds what it does; signals and the exit code are its own."""
    return (
        need("strace"), "-D", "-f", "-qq", "-ttt", "-T", "-y", "-xx", "--seccomp-bpf", "-s", str(1 << 24),
        "-o", str(record), "-e", f"trace={','.join(CALLS)}", "-e", "signal=none",
    )  # fmt: skip


def read(records: dict[str, Path], folder: Path) -> list[Operation]:
    """All operations of the traced processes (who → its record) in that folder and towards services, in order.

    SQLite's shared memory (`-shm`) is left out: it is mapped, and made anew at each start.
    """
    reader = _Reader(str(folder))
    moments = []
    for who, record in records.items():
        wait_until(lambda record=record: _is_complete(record), f"strace has written {record.name} to its end")
        for n, call in enumerate(_calls(record.read_text("latin-1").splitlines(), who)):
            moments += [(call.begin, n, 0, call), (call.end, n, 1, call)]
    for *_, is_end, call in sorted(moments, key=lambda moment: moment[:3]):
        reader.end(call) if is_end else reader.begin(call)
    return reader.operations


def _is_complete(record: Path) -> bool:
    """Whether the strace that writes it has ended: no process names it any more."""
    named = os.fsencode(record)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if named in (process / "cmdline").read_bytes().split(b"\0"):
                return False
    return True


# --- the text -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Call:
    name: str
    args: str
    result: int
    begin: float
    end: float
    by: str
    file: int | None = None

    def texts(self) -> list[bytes]:
        found = _TEXT.findall(self.args)
        assert not any(cut for _, cut in found), f"strace cut a text short: {self.args[:200]}"
        return [bytes.fromhex(text.replace("\\x", "")) for text, _ in found]

    def paths(self) -> list[str]:
        return [os.fsdecode(text) for text in self.texts()]

    def number(self, at: int) -> int:
        return int(self.args.rsplit(",", -at)[at] if at < 0 else self.args.split(",")[at])

    def descriptor(self) -> int:
        return int(re.match(r"\d+", self.args).group())  # type: ignore[union-attr]


def _calls(lines: Iterable[str], who: str) -> Iterator[_Call]:
    """Whole calls; one that another thread interrupted stands on two lines, one that never ended has no result."""
    begun: dict[str, tuple[float, str]] = {}
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        thread, at, rest = match["thread"], float(match["at"]), match["rest"]
        if rest.endswith(_UNFINISHED):
            begun[thread] = at, rest.removesuffix(_UNFINISHED)
            continue
        began, end = at, None
        if resumed := _RESUMED.match(rest):
            began, head = begun.pop(thread)
            rest, end = head + resumed["rest"], at
        found = _CALL.match(rest)
        if found is None:
            assert "= ?" in rest or rest.startswith(("+++", "---")), f"not understood: {line[:300]}"
            continue
        result = -1 if found["result"] == "?" else int(found["result"])
        took = float(found["took"] or 0)
        yield _Call(found["name"], found["args"], result, began, end if end is not None else began + took, who)


# --- the meaning ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Handle:
    file: int
    folder: str = ""
    position: int = 0
    appends: bool = False
    port: int = 0


@dataclass
class _Reader:
    """Follows names, descriptors and file positions through the calls."""

    root: str
    operations: list[Operation] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    handles: dict[tuple[str, int], _Handle] = field(default_factory=dict)

    def begin(self, call: _Call) -> None:
        action = getattr(self, f"_{call.name}", None)
        if call.name == "connect" or (action is not None and call.result >= 0):
            assert action is not None
            action(call)

    def end(self, call: _Call) -> None:
        """A descriptor is there when its call ends: its number may have been freed while the call was under way."""
        if call.name in ("open", "openat", "creat") and call.result >= 0:
            handle = _Handle(call.file or 0, appends="O_APPEND" in call.args)
            if call.file is None:
                handle.folder = self._inside(call.paths()[-1]) or ""
                if not handle.folder:
                    self.handles.pop((call.by, call.result), None)
                    return
            self.handles[call.by, call.result] = handle

    def _note(self, kind: Kind, call: _Call, **what: object) -> None:
        self.operations.append(Operation(kind=kind, begin=call.begin, end=call.end, by=call.by, **what))  # type: ignore[arg-type]

    def _inside(self, path: str) -> str | None:
        """A path below the folder, as `outbox/a.zip`; `.` the folder itself; None elsewhere."""
        if (path != self.root and not path.startswith(self.root + "/")) or path.endswith("-shm"):
            return None
        return os.path.relpath(path, self.root)

    def _handle(self, call: _Call) -> _Handle | None:
        return self.handles.get((call.by, call.descriptor()))

    # --- files ---

    def _openat(self, call: _Call) -> None:
        path = self._inside(call.paths()[-1])
        if path is None or "O_DIRECTORY" in call.args:
            return
        if path not in self.names and "O_CREAT" in call.args:
            self.names[path] = len(self.sizes) + 1
            self.sizes[self.names[path]] = 0
            self._note("create", call, file=self.names[path], path=path)
        call.file = self.names.get(path)
        if call.file and "O_TRUNC" in call.args and self.sizes[call.file]:
            self._truncate_file(call, call.file, 0)

    _open = _creat = _openat

    def _close(self, call: _Call) -> None:
        self.handles.pop((call.by, call.descriptor()), None)

    def _lseek(self, call: _Call) -> None:
        if handle := self._handle(call):
            handle.position = call.result

    def _write(self, call: _Call) -> None:
        handle = self._handle(call)
        if handle is None:
            return
        data = b"".join(call.texts())[: call.result]
        if handle.port:
            self._note("send", call, port=handle.port, data=data)
            return
        if handle.file:
            at = self.sizes[handle.file] if handle.appends else handle.position
            handle.position = at + len(data)
            self._put(call, handle.file, at, data)

    _writev = _write

    def _pwrite64(self, call: _Call) -> None:
        handle = self._handle(call)
        if handle is not None and handle.file:
            self._put(call, handle.file, call.number(-1), call.texts()[0][: call.result])

    def _put(self, call: _Call, file: int, at: int, data: bytes) -> None:
        self.sizes[file] = max(self.sizes[file], at + len(data))
        self._note("write", call, file=file, offset=at, data=data)

    def _ftruncate(self, call: _Call) -> None:
        handle = self._handle(call)
        if handle is not None and handle.file:
            self._truncate_file(call, handle.file, call.number(-1))

    def _truncate_file(self, call: _Call, file: int, size: int) -> None:
        self.sizes[file] = size
        self._note("truncate", call, file=file, offset=size)

    def _refuse(self, call: _Call) -> None:
        """Nobody uses these in the spool; if somebody begins to, the model must learn them first."""
        handle = self.handles.get((call.by, call.descriptor())) if call.args[:1].isdigit() else None
        inside = [path for path in call.paths() if self._inside(path)] + ([handle.file] if handle else [])
        assert not any(inside), f"not in the model: {call.name}({call.args[:200]}"

    _pwritev = _fallocate = _truncate = _link = _linkat = _rmdir = _refuse

    def _sendfile(self, call: _Call) -> None:
        self._refuse(call)

    _copy_file_range = _sendfile

    # --- names ---

    def _rename(self, call: _Call) -> None:
        source, target = (self._inside(path) for path in call.paths()[-2:])
        if source is None and target is None:
            return
        assert target is not None, f"moved away: {call.args[:200]}"
        assert source is not None, f"moved in from elsewhere: {call.args[:200]}"
        file = self.names.pop(source)
        self.names[target] = file
        self._note("rename", call, file=file, path=source, target=target)

    _renameat = _renameat2 = _rename

    def _unlink(self, call: _Call) -> None:
        path = self._inside(call.paths()[-1])
        if path is not None:
            self._note("unlink", call, file=self.names.pop(path), path=path)

    _unlinkat = _unlink

    def _mkdir(self, call: _Call) -> None:
        path = self._inside(call.paths()[-1])
        if path is not None:
            self._note("mkdir", call, path=path)

    _mkdirat = _mkdir

    # --- promises ---

    def _fsync(self, call: _Call) -> None:
        handle = self._handle(call)
        if handle is not None and handle.file:
            self._note("sync", call, file=handle.file)
        elif handle is not None and handle.folder:
            self._note("sync folder", call, path=handle.folder)

    _fdatasync = _fsync

    # --- services ---

    def _connect(self, call: _Call) -> None:
        if port := _PORT.search(call.args):
            self.handles[call.by, call.descriptor()] = _Handle(0, port=int(port[1]))

    _sendto = _sendmsg = _write
