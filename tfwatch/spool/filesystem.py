"""What a file lies on: whether this machine's kernel sees everybody who writes there, and through which mount."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Final

# statfs(2), "filesystem type constants". A shared mount grants a lease while another client writes, and raises no
# event for a file of another client's.
_OURS_ALONE: Final = frozenset(
    {
        0xEF53,  # ext2, ext3, ext4
        0x58465342,  # xfs
        0x9123683E,  # btrfs
        0x01021994,  # tmpfs
        0x794C7630,  # overlay
    }
)


def sees_every_writer(fd: int) -> bool:
    """Whether every writer there can be on this file's file system goes through this machine's kernel.

    Asked anew each time (about 1 µs): device numbers of tmpfs, overlay and network mounts are used again.
    """
    kind = ctypes.c_ulong()
    # f_type is the first word of struct statfs, which is 120 bytes long on 64-bit Linux.
    answer = (ctypes.c_char * 512)()
    if _libc().fstatfs(fd, answer) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    ctypes.memmove(ctypes.byref(kind), answer, ctypes.sizeof(kind))
    return kind.value in _OURS_ALONE


def mount_of(path: str) -> int:
    """The mount a folder is reached through: two mounts of one file system share a device number, never this.

    Raises OSError.
    """
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="utf-8") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("mnt_id:"))
    finally:
        os.close(fd)


def kind_of(path: str) -> str:
    """The name of the file system a folder lies on, as the kernel has it: `ext4`, `nfs4`. Raises OSError."""
    mount = str(mount_of(path))
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            if before.split(" ", 1)[0] == mount:
                return after.split(" ", 1)[0]
    return "an unknown file system"


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
