"""ACLs: the command that lets the daemon read a file opens it to nobody else where that can be."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from tfwatch.model import Stage
from tfwatch.spool.access import inherits_rights, what_lets_read
from tfwatch.spool.folders import Folders

DAEMON, SOMEBODY = 995, 1001
OWNER, USER, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x10, 0x20


def acl(*entries: tuple[int, int, int]) -> bytes:
    """As the kernel stores it: version 2, then tag, permissions and id of each."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def made_in_a_folder_with_a_default_acl(user: int, rights: int) -> bytes:
    """A file of mode 0600: its mask takes away what it gives by name."""
    none = 0xFFFFFFFF
    return acl((OWNER, 6, none), (USER, rights, user), (GROUP, 0, none), (MASK, 0, none), (OTHER, 0, none))


@pytest.mark.parametrize(
    ("user", "rights", "command"),
    [(DAEMON, 4, "chmod g+r"), (DAEMON, 5, "chmod g+r"), (DAEMON, 2, "chmod a+r"), (SOMEBODY, 4, "chmod a+r")],
)
def test_the_mask_is_opened_where_that_is_enough(tmp_path: Path, user: int, rights: int, command: str) -> None:
    """The ACL gives this user reading, and only the mask is in the way: the group digit is the mask."""
    file = tmp_path / "a.zip"
    file.write_bytes(b"")
    os.setxattr(file, "system.posix_acl_access", made_in_a_folder_with_a_default_acl(user, rights))
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert command == what_lets_read(str(file), DAEMON)


def test_without_an_acl_all_may_read(tmp_path: Path) -> None:
    """A file that was moved in keeps what it had; one that is gone has nothing to mend."""
    file = tmp_path / "a.zip"
    file.write_bytes(b"")
    assert "chmod a+r" == what_lets_read(str(file), DAEMON)
    assert "chmod a+r" == what_lets_read(str(tmp_path / "gone.zip"), DAEMON)


def test_the_daemons_own_folders_are_closed_unless_an_acl_says_who_may_look(tmp_path: Path) -> None:
    """Made again below a root with a default ACL their mode is that ACL's mask, which 0700 would make empty."""
    folders = Folders(str(tmp_path))
    folders.prepare()
    claimed = Path(folders.folder(Stage.CLAIMED))
    assert not inherits_rights(str(claimed.parent))
    assert 0o700 == stat.S_IMODE(claimed.stat().st_mode)
    claimed.rmdir()
    none = 0xFFFFFFFF
    default = acl((OWNER, 7, none), (USER, 5, SOMEBODY), (GROUP, 5, none), (MASK, 7, none), (OTHER, 0, none))
    os.setxattr(claimed.parent, "system.posix_acl_default", default)
    folders.prepare()
    assert inherits_rights(str(claimed.parent))
    assert 0o750 == stat.S_IMODE(claimed.stat().st_mode)
