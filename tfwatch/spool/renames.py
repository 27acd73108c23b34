"""One no-clobber rename, as the kernel does it: `renameat2(2)` with RENAME_NOREPLACE (Linux 3.15, glibc 2.28)."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1

_libc = ctypes.CDLL(None, use_errno=True)
_renameat2: Callable[[int, bytes, int, bytes, int], int] | None
try:
    _function = _libc.renameat2
except AttributeError:
    _renameat2 = None
else:
    _function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    _function.restype = ctypes.c_int
    _renameat2 = _function

_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def rename_noreplace(source: str, target: str) -> bool:
    """Rename; raises FileExistsError when `target` exists, FileNotFoundError when `source` doesn't.

    Returns True when the kernel guaranteed it in one step. False: the file system has no RENAME_NOREPLACE, so it
    was looked at first and renamed then, which is sound only among processes that hold the spool's lock.
    """
    if _renameat2 is not None:
        if _renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
            return True
        code = ctypes.get_errno()
        if code not in _UNSUPPORTED:
            raise OSError(code, os.strerror(code), source, None, target)
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), source, None, target)
    os.rename(source, target)
    return False
