"""POSIX ACLs, as far as they decide what lets the daemon read a file: acl(5), and the kernel's posix_acl_xattr.h."""

from __future__ import annotations

import os
import struct
from typing import Final

_ENTRY: Final = struct.Struct("<HHI")
"""tag, permissions, id; they follow a version of 4 bytes."""

_NAMED_USER: Final = 0x02
_READ: Final = 0x04


def what_lets_read(path: str, uid: int) -> str:
    """The `chmod` after which a user may read a file that they may not.

    Where the file's ACL gives them the right by name and its mask takes it away (made with mode 0600 in a folder with
    a default ACL), the mask is enough, which is what the group's digit of such a file is. It opens it to nobody else.
    """
    return "chmod g+r" if _names(path, uid) else "chmod a+r"


def inherits_rights(folder: str) -> bool:
    """Whether what is made in a folder gets an ACL from it, so that its own mode is no more than that ACL's mask."""
    try:
        return bool(os.getxattr(folder, "system.posix_acl_default"))
    except OSError:
        return False


def _names(path: str, uid: int) -> bool:
    try:
        acl = os.getxattr(path, "system.posix_acl_access", follow_symlinks=False)
    except OSError:
        return False
    entries = (_ENTRY.unpack_from(acl, at) for at in range(4, len(acl) - _ENTRY.size + 1, _ENTRY.size))
    return any(tag == _NAMED_USER and who == uid and rights & _READ for tag, rights, who in entries)
