"""The daemon under strace: which system calls it makes, and one of them made to fail.

What counts (strace 6.1, tried): `when=N` counts for each thread by itself, so it strikes in the first thread that makes
its N-th such call. With a path (`-P`) only calls on that path are counted, which mostly leaves one thread. Signals are
not injected with `--seccomp-bpf`; errors are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.require import need

_LINE = re.compile(r"(?P<thread>\d+) +(?P<resumed><\.\.\. )?(?P<call>\w+)(?:\(| resumed>)(?P<rest>.*)", re.DOTALL)
_UNFINISHED = " <unfinished ...>"
_PATHS = re.compile(r'"((?:[^"\\]|\\.)*)"|<(/[^>]*)>')


@dataclass(frozen=True, slots=True)
class Call:
    """One system call as strace wrote it down: whose, which, and the paths that it names, by text or descriptor."""

    thread: int
    name: str
    rest: str

    @property
    def paths(self) -> list[str]:
        """Absolute paths among its arguments, in order."""
        return [path for pair in _PATHS.findall(self.rest) for path in pair if path.startswith("/")]

    @property
    def was_injected(self) -> bool:
        """Whether it is the one that was made to fail."""
        return self.rest.rstrip().endswith("(INJECTED)")


def recording(record: Path, *calls: str) -> tuple[str, ...]:
    """What to start a daemon with so that these calls of all its threads are written to `record`.

    strace runs beside the daemon, not as its parent (`-D`): signals and the exit code are the daemon's own, and strace
    ends with it.
    """
    return (
        need("strace"), "-D", "-f", "-qq", "-y", "--seccomp-bpf", "-s", "300", "-o", str(record),
        "-e", f"trace={','.join(calls)}", "-e", "signal=none",
    )  # fmt: skip


def failing(
    record: Path, call: str, error: str, when: str, *, path: Path | None = None, also: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The same, with `call` failing with `error`, for example `ENOSPC`: nothing of it is done. `also`: recorded too.

    `when` is strace's: `3` only the third, `3+` the third and all after it, `3+2` every second from there.
    """
    on_path = ("-P", str(path)) if path is not None else ()
    return (*recording(record, call, *also), *on_path, "-e", f"inject={call}:error={error}:when={when}")


def recorded(record: Path) -> list[Call]:
    """What was written down, in the order in which it began."""
    calls: list[Call] = []
    unfinished: dict[int, int] = {}
    for match in map(_LINE.match, record.read_text(errors="replace").splitlines()):
        if match is None:
            continue
        thread, rest = int(match["thread"]), match["rest"]
        if match["resumed"]:
            number = unfinished.pop(thread)
            calls[number] = Call(thread, match["call"], calls[number].rest.removesuffix(_UNFINISHED) + rest)
            continue
        if rest.endswith(_UNFINISHED):
            unfinished[thread] = len(calls)
        calls.append(Call(thread, match["call"], rest))
    return calls
