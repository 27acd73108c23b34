"""Run a program and kill it with all its threads right before its n-th system call that changes anything outside it.

    python tracer.py RECORD CALL N PROGRAM …

CALL: a name out of `CALLS`, or `any` of them. N counts over all threads, from the program's first instruction; 0 kills
nothing. RECORD gets a line for each such call: name, thread, and which files or sockets it is about. x86-64 only.

strace can't do this: its `when=` counts for each thread by itself, so the second thread to make a first call is never
killed there. Like `strace -D` this traces from beside: signals and the exit code are the program's own. A seccomp
filter stops the program at these calls only, so that it runs at its full speed between them. Needs nothing but Python,
and is a program of its own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
from collections import Counter
from typing import Final, NoReturn

CALLS: Final[dict[str, tuple[int, str]]] = {
    "write": (1, "f"), "pwrite64": (18, "f"), "writev": (20, "f"), "pwritev": (296, "f"), "pwritev2": (328, "f"),
    "sendto": (44, "f"), "sendmsg": (46, "f"), "sendmmsg": (307, "f"), "sendfile": (40, "f"), "connect": (42, "f"),
    "copy_file_range": (326, "__f"), "splice": (275, "__f"),
    "open": (2, "p"), "creat": (85, "p"), "openat": (257, "_p"), "flock": (73, "f"),
    "rename": (82, "pp"), "renameat": (264, "_p_p"), "renameat2": (316, "_p_p"),
    "link": (86, "pp"), "linkat": (265, "_p_p"), "symlink": (88, "pp"), "symlinkat": (266, "p_p"),
    "unlink": (87, "p"), "unlinkat": (263, "_p"), "rmdir": (84, "p"), "mkdir": (83, "p"), "mkdirat": (258, "_p"),
    "mknod": (133, "p"), "mknodat": (259, "_p"), "fsync": (74, "f"), "fdatasync": (75, "f"), "sync": (162, ""),
    "syncfs": (306, "f"), "sync_file_range": (277, "f"), "msync": (26, ""),
    "truncate": (76, "p"), "ftruncate": (77, "f"), "fallocate": (285, "f"),
    "chmod": (90, "p"), "fchmod": (91, "f"), "fchmodat": (268, "_p"), "chown": (92, "p"), "fchown": (93, "f"),
    "fchownat": (260, "_p"), "utimensat": (280, "_p"), "setxattr": (188, "p"), "fsetxattr": (190, "f"),
}  # fmt: skip
"""Call → its number on x86-64, and what its arguments are: `f` a descriptor, `p` a path, `_` anything else."""

_AUDIT_ARCH_X86_64: Final = 0xC000003E
_OPENS_FOR_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_FLAGS: Final = {"open": 1, "openat": 2}
"""Which argument holds the flags: of opens only those for writing count."""

# ptrace(2), seccomp(2), bpf: the numbers of their headers.
_SEIZE, _CONT, _LISTEN, _GET_SYSCALL_INFO = 0x4206, 7, 0x4208, 0x420E
_TRACE_OPTIONS: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x80 | 0x100000  # (v)fork, clone, exec, seccomp, kill us: kill it
_EVENT_SECCOMP, _EVENT_STOP = 7, 128
_LD, _JEQ, _JSET, _RET = 0x20, 0x15, 0x45, 0x06
_TRACE, _ALLOW = 0x7FF00000, 0x7FFF0000
_WALL: Final = 0x40000000

libc: Final = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
libc.ptrace.restype = ctypes.c_long


def main() -> NoReturn:
    """Become the program, once the tracer has hold of this process."""
    record, call, number, *command = sys.argv[1:]
    trace(record, call, int(number))
    os.execv(command[0], command)


def trace(record: str, call: str, number: int) -> None:
    """From here on this process, which must have one thread only, is traced."""
    program = os.getpid()
    ready, tell = os.pipe()
    between = os.fork()
    if between == 0:
        if os.fork() == 0:
            os.setsid()
            _ask(_SEIZE, program, _TRACE_OPTIONS)
            os.write(tell, b"x")
            os.close(tell)
            _Tracer(program, record, call, number).run()
        os._exit(0)
    os.waitpid(between, 0)
    os.close(tell)
    if os.read(ready, 1) != b"x":
        sys.exit("tracer: can't trace this process")
    os.close(ready)
    _stop_at_calls()


class _Tracer:
    def __init__(self, program: int, record: str, call: str, number: int) -> None:
        self._program = program
        self._record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._call = call
        self._number = number
        self._made: Counter[str] = Counter()

    def run(self) -> None:
        """Until the program has ended."""
        while True:
            try:
                thread, status = os.waitpid(-1, _WALL)
            except ChildProcessError:
                return
            if not os.WIFSTOPPED(status):
                if thread == self._program:
                    return
                continue
            number, event = os.WSTOPSIG(status), status >> 16
            if event == _EVENT_SECCOMP:
                self._look(thread)
            if event == _EVENT_STOP and number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
                _ask(_LISTEN, thread, 0)
            else:
                _ask(_CONT, thread, 0 if event else number)

    def _look(self, thread: int) -> None:
        info = ctypes.create_string_buffer(88)
        if libc.ptrace(_GET_SYSCALL_INFO, thread, ctypes.c_void_p(len(info)), info) <= 0:
            return  # killed meanwhile
        _, *arguments = struct.unpack_from("=7Q", info, 24)
        (which,) = struct.unpack_from("=I", info, 80)
        call = list(CALLS)[which]
        self._made.update((call, "any"))
        about = " ".join(self._about(thread, call, arguments))
        os.write(self._record, f"{call} {thread} {about}\n".encode(errors="surrogateescape"))
        if self._made[self._call] == self._number:
            # Of a call that waits here nothing is done any more: the kernel looks for a deadly signal first.
            os.kill(self._program, signal.SIGKILL)

    def _about(self, thread: int, call: str, arguments: list[int]) -> list[str]:
        found = []
        for kind, argument in zip(CALLS[call][1], arguments, strict=False):
            try:
                if kind == "f":
                    found.append(os.readlink(f"/proc/{thread}/fd/{argument & 0xFFFFFFFF}"))
                elif kind == "p":
                    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
                        memory.seek(argument)
                        found.append(os.fsdecode(memory.read(512).partition(b"\0")[0]))
            except OSError:
                found.append("?")
        return found


def _ask(request: int, thread: int, data: int) -> None:
    # ESRCH: it was killed meanwhile, and its end will be reported.
    libc.ptrace(request, thread, None, ctypes.c_void_p(data))


def _stop_at_calls() -> None:
    """From now on the kernel stops this process, for its tracer, at each of `CALLS`."""
    steps = [(_LD, 0, 0, 4), (_JEQ, 1, 0, _AUDIT_ARCH_X86_64), (_RET, 0, 0, _ALLOW)]
    for which, (call, (number, _)) in enumerate(CALLS.items()):
        steps.append((_LD, 0, 0, 0))
        if call in _FLAGS:
            steps += [(_JEQ, 0, 4, number), (_LD, 0, 0, 16 + 8 * _FLAGS[call]), (_JSET, 0, 1, _OPENS_FOR_WRITING)]
            steps += [(_RET, 0, 0, _TRACE | which), (_RET, 0, 0, _ALLOW)]
        else:
            steps += [(_JEQ, 0, 1, number), (_RET, 0, 0, _TRACE | which)]
    steps.append((_RET, 0, 0, _ALLOW))
    code = b"".join(struct.pack("=HBBI", *step) for step in steps)
    kept = ctypes.create_string_buffer(code)
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(kept)))
    for option, first, second in ((38, 1, None), (22, 2, program)):  # PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP
        if libc.prctl(option, ctypes.c_ulong(first), second, None, None) != 0:
            sys.exit(f"tracer: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
