"""The spool on a real disk: nothing is overwritten, nothing followed; what is wrong is said with the way out."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tfwatch.disk import NotSynced, told
from tfwatch.model import Stage
from tfwatch.spool import folders as module
from tfwatch.spool.durable import write_file
from tfwatch.spool.folders import Folders, SpoolUnusable
from tfwatch.spool.listing import NotAPackage
from tfwatch.spool.names import reason_name

NOT_ROOT = os.geteuid() != 0
NOBODY = 65534


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "spool"
    path.mkdir()
    return path


@pytest.fixture
def folders(root: Path) -> Folders:
    made = Folders(str(root))
    made.prepare()
    return made


def lay(folders: Folders, stage: Stage, name: str, data: bytes = b"x") -> Path:
    path = Path(folders.path(stage, name))
    path.write_bytes(data)
    return path


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def unprivileged(work: Callable[[], object]) -> str:
    """Do some work as a user without rights, in a process of its own; gives what it raised, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if not NOT_ROOT:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            work()
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        text = said.read()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def public() -> Iterator[Path]:
    """A spool's folder that every user may walk to, which pytest's own are not."""
    home = Path(tempfile.mkdtemp(prefix="tfwatch-test-"))
    home.chmod(0o755)
    path = home / "spool"
    path.mkdir()
    yield path
    for closed in (path, *path.rglob("*")):
        closed.chmod(0o755)
    shutil.rmtree(home)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """`mount`, undone at the end, last first."""
    if NOT_ROOT:
        pytest.skip("needs root to mount")
    mounted: list[str] = []

    def run(*words: str) -> None:
        if subprocess.run(["mount", *words], capture_output=True).returncode:
            pytest.skip(f"may not mount here: mount {' '.join(words)}")
        if words[-1] not in mounted:
            mounted.append(words[-1])

    yield run
    for path in reversed(mounted):
        subprocess.run(["umount", path], check=True)


# --- preparing --------------------------------------------------------------------------------------------------------


def test_all_folders_are_made_once(root: Path, folders: Folders) -> None:
    """A fresh spool gets every folder of the contract; the daemon's own ones are nobody else's; twice is once."""
    made = everything(root)
    folders.prepare()

    public = {"outbox", "submitted", "delivered", "rejected", "rollbacks", "logs"}
    removing = {f".tfwatch/removing{stage}" for stage in ("", "/delivered", "/rejected")}
    private = {".tfwatch", ".tfwatch/claimed", ".tfwatch/requests", *removing}
    assert public | private == made == everything(root)
    for name in private:
        assert 0o700 == stat.S_IMODE((root / name).stat().st_mode)


def test_paths_are_those_of_the_contract(root: Path, folders: Folders) -> None:
    """Scripts rely on these places."""
    assert f"{root}/log.csv" == folders.log
    assert f"{root}/.tfwatch/lock" == folders.lock
    assert f"{root}/.tfwatch/index.sqlite" == folders.index
    assert f"{root}/logs/observability.json" == folders.observability
    assert f"{root}/.tfwatch/torn-X" == folders.torn("X")
    assert f"{root}/rollbacks/rollback_integrations_X.md" == folders.rollback_document("X")
    assert f"{root}/outbox/a.zip" == folders.path(Stage.OUTBOX, "a.zip")
    assert f"{root}/.tfwatch/claimed" == folders.folder(Stage.CLAIMED)


def test_what_the_dead_left_half_written_is_removed(folders: Folders) -> None:
    """Probes and half-written small files of daemons that were killed go at the start; nobody else's file does."""
    litter = [lay(folders, stage, ".probe-0123abcd") for stage in Stage]
    litter += [lay(folders, Stage.REJECTED, ".0123456789ab.tmp"), Path(folders.state).with_name(".ba9876543210.tmp")]
    litter.append(Path(folders.observability).with_name(".0a0a0a0a0a0a.tmp"))
    for path in litter[-2:]:
        path.touch()
    others = [lay(folders, Stage.OUTBOX, ".0123456789ab.tmp"), lay(folders, Stage.REJECTED, "p.zip.tmp")]
    others.append(Path(folders.requests) / ".0123456789ab.tmp")
    others[-1].touch()
    folders.tidy()
    assert [] == [path for path in litter if path.exists()]
    assert others == [path for path in others if path.exists()]


@pytest.mark.parametrize(("make", "problem"), [(False, "does not exist"), (True, "is not a directory")])
def test_a_root_that_is_no_folder_is_not_made_up(tmp_path: Path, make: bool, problem: str) -> None:
    """An unmounted disk must not be replaced by an empty spool on the system's own: say what to do instead."""
    path = tmp_path / "spool"
    if make:
        path.touch()

    with pytest.raises(SpoolUnusable, match=problem) as raised:
        Folders(str(path)).prepare()
    assert f"{path}: the spool folder {problem}; make it: sudo install -d" in str(raised.value)
    assert str(path) == raised.value.path


def test_something_in_a_folders_place_is_named(root: Path) -> None:
    """A file called `outbox` is neither removed nor worked around."""
    (root / "outbox").write_text("mine")

    with pytest.raises(SpoolUnusable, match="is in the way: not a directory; move it away: mv"):
        Folders(str(root)).prepare()
    assert "mine" == (root / "outbox").read_text()


def test_a_root_that_can_not_be_written_is_named(public: Path) -> None:
    """The message names the folder that can't be made, and the command that makes it."""
    public.chmod(0o555)
    said = unprivileged(Folders(str(public)).prepare)

    assert f"SpoolUnusable: {public}/.tfwatch: can't be made: Permission denied; make it: sudo install -d" in said


# --- one file system --------------------------------------------------------------------------------------------------


def test_a_sound_spool_is_proven_and_left_clean(root: Path, folders: Folders) -> None:
    """The probe goes through every folder and leaves nothing; the kernel's own no-clobber rename was used."""
    before = everything(root)
    folders.prove()

    assert before == everything(root)
    assert folders.atomic_renames


@pytest.mark.root
@pytest.mark.parametrize("where", ["outbox", ".tfwatch/claimed", "submitted", "delivered", "rejected"])
def test_a_second_file_system_is_found(root: Path, folders: Folders, mount: Callable[..., None], where: str) -> None:
    """A folder on another file system is named, with the way out, and no probe is left anywhere."""
    mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(root / where))

    with pytest.raises(SpoolUnusable, match="is on another file system or mount") as raised:
        folders.prove()
    assert str(root) in raised.value.path
    assert "umount" in raised.value.hint
    assert not [name for name in everything(root) if ".probe-" in name]


@pytest.mark.root
def test_two_mounts_of_one_file_system_are_found(
    root: Path, folders: Folders, tmp_path: Path, mount: Callable[..., None]
) -> None:
    """A bind mount has the same device number and still refuses every rename: only trying tells."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mount("--bind", str(elsewhere), str(root / "delivered"))
    assert (root / "outbox").stat().st_dev == (root / "delivered").stat().st_dev

    with pytest.raises(SpoolUnusable, match="is on another file system or mount") as raised:
        folders.prove()
    assert f"{root}/delivered" == raised.value.path
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("where", ["outbox", "rejected"])
def test_a_folder_that_can_not_be_written_is_named(public: Path, where: str) -> None:
    """Which folder, why, and the command that mends it; the probe is gone."""
    folders = Folders(str(public))
    folders.prepare()
    if not NOT_ROOT:
        for path in (public, *public.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    (public / where).chmod(0o555)
    said = unprivileged(folders.prove)

    assert f"SpoolUnusable: {public}/{where}: can't be written: Permission denied" in said
    assert not [name for name in everything(public) if ".probe-" in name]


@pytest.mark.root
def test_a_read_only_folder_is_named(root: Path, folders: Folders, mount: Callable[..., None]) -> None:
    """A disk that went read-only is no permission to look for: it is told as what it is."""
    mount("--bind", str(root), str(root))
    mount("-o", "remount,ro,bind", str(root))

    with pytest.raises(OSError, match="Read-only file system") as caught:
        folders.prove()

    assert "outbox/.probe-" in str(told(caught.value))
    assert "mount it writable" in str(told(caught.value))


# --- looking ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def zoo(folders: Folders, tmp_path: Path) -> Folders:
    """An outbox with one of everything."""
    outbox = Path(folders.folder(Stage.OUTBOX))
    secret = tmp_path / "secret"
    secret.write_bytes(b"not yours")
    for name in ("a.zip", "B.ZIP", "-rf.zip", os.fsdecode(b"\xff.zip"), ".hidden.zip", "c.zip.part", "d.txt"):
        (outbox / name).write_bytes(b"x")
    (outbox / "old.zip.reason.txt").touch()
    (outbox / module.CANARY).touch()
    (outbox / "link.zip").symlink_to(secret)
    (outbox / "dangling.zip").symlink_to("nowhere")
    (outbox / "folder.zip").mkdir()
    os.mkfifo(outbox / "fifo.zip")
    here = os.open(outbox, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{here}/socket.zip")
    finally:
        os.close(here)
    return folders


ODDITIES = {
    "link.zip": "symbolic link",
    "dangling.zip": "symbolic link",
    "folder.zip": "directory",
    "fifo.zip": "FIFO",
    "socket.zip": "socket",
}


def test_a_listing_tells_packages_from_oddities(zoo: Folders) -> None:
    """Regular files named `*.zip` are packages; links, FIFOs, sockets and folders of such a name are reported."""
    listing = zoo.list(Stage.OUTBOX)

    assert {"a.zip", "B.ZIP", "-rf.zip", os.fsdecode(b"\xff.zip")} == {entry.name for entry in listing.entries}
    assert ODDITIES == dict(listing.oddities)
    assert 3 == listing.ignored


def test_an_entry_is_what_the_disk_says(folders: Folders) -> None:
    """Size, times and inode are those of the file, so that a change can be told."""
    info = lay(folders, Stage.OUTBOX, "a.zip", b"12345").stat()
    (entry,) = folders.list(Stage.OUTBOX).entries

    expected = (info.st_dev, info.st_ino, 5, info.st_mtime_ns, info.st_ctime_ns)
    assert expected == (entry.device, entry.inode, entry.size, entry.mtime_ns, entry.ctime_ns)
    assert entry == folders.look(Stage.OUTBOX, "a.zip")


def test_a_file_that_vanishes_while_listed_is_not_there(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its name and its details a file may go; the others are still listed."""
    for name in "abc":
        lay(folders, Stage.OUTBOX, f"{name}.zip")
    scandir = os.scandir

    class Scan:
        def __init__(self, path: str) -> None:
            self._found = scandir(path)

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            items = sorted(self._found, key=lambda item: item.name)
            os.unlink(items[1].path)
            return iter(items)

        def __exit__(self, *error: object) -> None:
            self._found.close()

    monkeypatch.setattr(os, "scandir", Scan)
    assert ["a.zip", "c.zip"] == [entry.name for entry in folders.list(Stage.OUTBOX).entries]


def test_names_are_those_that_count(zoo: Folders) -> None:
    """The cheap listing knows oddities by name too, and nothing hidden."""
    expected = {"a.zip", "B.ZIP", "-rf.zip", os.fsdecode(b"\xff.zip"), *ODDITIES}
    assert expected == zoo.names(Stage.OUTBOX)


@pytest.mark.parametrize("name", ODDITIES)
def test_an_oddity_is_never_opened_nor_followed(zoo: Folders, name: str) -> None:
    """A link to a secret, a FIFO that would block, a folder, a socket: none is opened for its bytes."""
    began = time.monotonic()
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NotAPackage):
        zoo.open(Stage.OUTBOX, name)

    assert zoo.look(Stage.OUTBOX, name) is None
    assert time.monotonic() - began < 10  # a FIFO would be waited for for ever
    assert descriptors == len(os.listdir("/proc/self/fd"))


def test_a_package_is_opened_at_its_beginning(folders: Folders) -> None:
    """Each reader begins at byte 0, and the descriptor is not handed to child processes."""
    lay(folders, Stage.OUTBOX, "a.zip", b"12345")

    for _ in range(2):
        with folders.reader(Stage.OUTBOX, "a.zip") as reader:
            assert b"12345" == reader.read()
            assert not os.get_inheritable(reader.fileno())
    with pytest.raises(FileNotFoundError):
        folders.open(Stage.OUTBOX, "b.zip")


def test_where_a_name_lies(folders: Folders) -> None:
    """Of several stages the first in the order of work is given; a dangling link lies somewhere, too."""
    assert folders.find("a.zip") is None
    lay(folders, Stage.REJECTED, "a.zip")
    assert Stage.REJECTED is folders.find("a.zip")
    os.symlink("nowhere", folders.path(Stage.CLAIMED, "a.zip"))
    assert Stage.CLAIMED is folders.find("a.zip")
    assert folders.look(Stage.DELIVERED, "a.zip") is None


def test_access_is_described_for_people(folders: Folders) -> None:
    """Owner and mode, as `chmod` takes them."""
    path = lay(folders, Stage.OUTBOX, "a.zip")
    path.chmod(0o600)

    assert f"owner {os.getuid()}:{os.getgid()}, mode 0600" == folders.describe(Stage.OUTBOX, "a.zip")


def test_a_folder_shows_when_names_came_and_went(folders: Folders) -> None:
    """Its time stamp moves with every arrival and departure, and not with a file's growth."""
    lay(folders, Stage.OUTBOX, "a.zip")
    os.utime(folders.folder(Stage.OUTBOX), ns=(1, 1))
    lay(folders, Stage.OUTBOX, "a.zip", b"more")
    assert 1 == folders.changed_ns(Stage.OUTBOX)
    os.unlink(folders.path(Stage.OUTBOX, "a.zip"))
    assert 1 != folders.changed_ns(Stage.OUTBOX)


def test_room_is_what_this_process_may_use(folders: Folders, root: Path) -> None:
    """Reserved blocks don't count."""
    info = os.statvfs(root)
    assert folders.free_bytes() == pytest.approx(info.f_bavail * info.f_frsize, rel=0.2)


# --- moving -----------------------------------------------------------------------------------------------------------


def test_a_move_is_a_rename(folders: Folders) -> None:
    """The same inode with the same bytes, and nothing left behind."""
    inode = lay(folders, Stage.OUTBOX, "a.zip", b"12345").stat().st_ino
    folders.move(Stage.OUTBOX, "a.zip", Stage.CLAIMED, "a~2.zip")
    folders.sync(Stage.OUTBOX, Stage.CLAIMED)

    entry = folders.look(Stage.CLAIMED, "a~2.zip")
    assert entry is not None
    assert (inode, 5) == (entry.inode, entry.size)
    assert set() == folders.names(Stage.OUTBOX)


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_nothing_is_ever_overwritten(folders: Folders, make: Callable[[Path], None]) -> None:
    """Whatever lies at the target, a dangling link too, stays; and so does the package."""
    lay(folders, Stage.OUTBOX, "a.zip", b"new")
    target = Path(folders.path(Stage.DELIVERED, "a.zip"))
    make(target)
    before = target.lstat()

    with pytest.raises(FileExistsError):
        folders.move(Stage.OUTBOX, "a.zip", Stage.DELIVERED)
    assert before == target.lstat()
    assert b"new" == Path(folders.path(Stage.OUTBOX, "a.zip")).read_bytes()


def test_a_package_that_is_gone_can_not_be_moved(folders: Folders) -> None:
    """A person took it: the caller hears so."""
    with pytest.raises(FileNotFoundError):
        folders.move(Stage.OUTBOX, "a.zip", Stage.CLAIMED)


def test_a_folder_that_can_not_be_synced_is_an_error(folders: Folders) -> None:
    """Nobody is told that a move is on disk when it isn't."""
    os.rmdir(folders.folder(Stage.DELIVERED))
    Path(folders.folder(Stage.DELIVERED)).touch()
    with pytest.raises(NotADirectoryError):
        folders.sync(Stage.DELIVERED)


def test_a_folder_that_was_taken_away_holds_no_move_up(folders: Folders) -> None:
    """The target is made again and the package gets there; the source's names left with it, so a sync has no work."""
    data = lay(folders, Stage.CLAIMED, "a.zip").read_bytes()
    for stage in (Stage.OUTBOX, Stage.SUBMITTED):
        os.rmdir(folders.folder(stage))
    folders.move(Stage.CLAIMED, "a.zip", Stage.SUBMITTED)
    folders.sync(Stage.SUBMITTED, Stage.OUTBOX)

    assert data == Path(folders.path(Stage.SUBMITTED, "a.zip")).read_bytes()


def test_a_held_spool_is_worked_on_while_its_path_leads_elsewhere(root: Path, folders: Folders) -> None:
    """Renamed away, with another folder in its place: looks and moves stay in the one that was held."""
    folders.hold()
    lay(folders, Stage.CLAIMED, "a.zip")
    away = root.rename(root.with_name("away"))
    assert folders.is_away
    root.mkdir()
    assert folders.is_away
    assert folders.look(Stage.CLAIMED, "a.zip") is not None
    folders.move(Stage.CLAIMED, "a.zip", Stage.SUBMITTED)
    folders.sync(Stage.CLAIMED, Stage.SUBMITTED)
    folders.prepare()

    assert (away / "submitted" / "a.zip").exists()
    assert set() == everything(root)
    assert str(root / "submitted" / "a.zip") == folders.path(Stage.SUBMITTED, "a.zip")
    root.rmdir()
    away.rename(root)
    assert not folders.is_away
    assert {"a.zip"} == folders.names(Stage.SUBMITTED)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
@pytest.mark.parametrize(
    ("where", "stage"),
    [("outbox", Stage.OUTBOX), (".tfwatch/claimed", Stage.CLAIMED), (".tfwatch", Stage.CLAIMED)],
)
def test_a_mount_on_a_folder_is_named(
    folders: Folders, root: Path, tmp_path: Path, where: str, stage: Stage, kind: str
) -> None:
    """The stage that lies under it, and the very folder to unmount; also one of the same file system."""
    assert {} == folders.apart()
    (tmp_path / "beside").mkdir()
    folder = str(root / where)
    how = ["--bind", str(tmp_path / "beside"), folder] if kind == "bind" else ["-t", "tmpfs", "tmpfs", folder]
    if NOT_ROOT or subprocess.run(["mount", *how], capture_output=True).returncode != 0:
        pytest.skip("can't mount here: needs root")
    try:
        assert {stage: folder} == folders.apart()
        folders.prepare()
        assert {stage: folder} == folders.apart(), "also with the folders made anew that are missing there"
    finally:
        subprocess.run(["umount", folder], check=True)
    assert {} == folders.apart()


def test_a_name_is_free_when_no_other_stage_has_it(folders: Folders) -> None:
    """Its own place doesn't count; any other stage, a link and work in flight do."""

    def free(name: str = "a.zip", taken: tuple[str, ...] = ()) -> str:
        return folders.free_name(name, leaving=Stage.OUTBOX, taken=taken.__contains__)

    lay(folders, Stage.OUTBOX, "a.zip")
    assert "a.zip" == free()
    assert "a~2.zip" == free(taken=("a.zip",))
    lay(folders, Stage.REJECTED, "a.zip")
    assert "a~2.zip" == free()
    os.symlink("nowhere", folders.path(Stage.DELIVERED, "a~2.zip"))
    assert "a~3.zip" == free()
    lay(folders, Stage.OUTBOX, "a~3.zip")
    assert "a~4.zip" == free()


# --- reasons and other small files ------------------------------------------------------------------------------------


def test_a_reason_goes_when_its_package_does(folders: Folders) -> None:
    """It lies beside the package in rejected/, and follows it nowhere."""
    lay(folders, Stage.REJECTED, "a.zip")
    folders.write_reason("a.zip", "why\n")
    reason = Path(folders.path(Stage.REJECTED, reason_name("a.zip")))
    assert "why\n" == reason.read_text()
    folders.write_reason("a.zip", "why else\n")
    assert "why else\n" == reason.read_text()

    folders.move(Stage.REJECTED, "a.zip", Stage.OUTBOX)
    assert [] == os.listdir(folders.folder(Stage.REJECTED))


def test_another_packages_reason_stays(folders: Folders) -> None:
    """A package that comes to rejected/, or leaves another stage, takes no reason away."""
    folders.write_reason("a.zip", "why")
    lay(folders, Stage.OUTBOX, "a.zip")
    folders.move(Stage.OUTBOX, "a.zip", Stage.REJECTED)

    assert {"a.zip", "a.zip.reason.txt"} == set(os.listdir(folders.folder(Stage.REJECTED)))


def test_a_reason_that_can_not_be_removed_holds_nothing_up(folders: Folders) -> None:
    """A folder in the note's place is a person's doing: the package leaves all the same."""
    lay(folders, Stage.REJECTED, "a.zip")
    os.mkdir(folders.path(Stage.REJECTED, reason_name("a.zip")))
    folders.move(Stage.REJECTED, "a.zip", Stage.OUTBOX)

    assert {"a.zip"} == folders.names(Stage.OUTBOX)


def test_a_later_rollback_is_appended(folders: Folders) -> None:
    """One document a run: the head once, then a section each, whatever a person wrote into it meanwhile."""
    path = Path(folders.append_rollback("X", "head\n", "one\n"))
    path.write_bytes(path.read_bytes() + b"caf\xe9\n")
    folders.append_rollback("X", "head\n", "two \udcff\n")

    assert "head\none\ncaf\\xe9\ntwo \\udcff\n" == path.read_text()


def test_a_small_file_is_replaced_at_once(tmp_path: Path) -> None:
    """Readers see the old text or the new: their open file keeps the old one, and no half file is left."""
    path = tmp_path / "file"
    write_file(str(path), "old", mode=0o640)
    with path.open() as reader:
        write_file(str(path), "n\u00e9w \udcff", mode=0o640)
        assert "old" == reader.read()

    assert "n\u00e9w \\udcff" == path.read_text(encoding="utf-8")
    assert 0o640 & ~current_umask() == stat.S_IMODE(path.stat().st_mode)
    assert ["file"] == os.listdir(tmp_path)


def test_a_small_file_that_can_not_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk costs the new text, not the old, and leaves no rubbish."""
    path = tmp_path / "file"
    write_file(str(path), "old", mode=0o600)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_file(str(path), "new", mode=0o600)
    assert "old" == path.read_text()
    assert ["file"] == os.listdir(tmp_path)


@pytest.mark.parametrize(
    "write",
    [
        lambda folders: folders.write_reason("a.zip", "why"),
        lambda folders: folders.append_rollback("X", "head", "section"),
        lambda folders: folders.leave_request("1.json", "{}"),
    ],
    ids=["reason", "rollback", "request"],
)
def test_a_folder_whose_sync_failed_is_never_synced_again(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, write: Callable[[Folders], object]
) -> None:
    """Also when it failed beneath a small file: the kernel may call lost names clean, and a second sync would lie."""
    really, synced = os.fsync, []

    def fails_once(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            synced.append(fd)
            if len(synced) == 1:
                raise OSError(errno.EIO, "Input/output error")
        really(fd)

    monkeypatch.setattr(os, "fsync", fails_once)
    for act in (lambda: write(folders), lambda: folders.sync(Stage.REJECTED), lambda: write(folders)):
        with pytest.raises(NotSynced):
            act()
    assert 1 == len(synced)


def current_umask() -> int:
    code = "import os; mask = os.umask(0); print(mask)"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


def test_requests_are_taken_oldest_first(folders: Folders) -> None:
    """Only finished request files count: no temporary file, no folder, no link, no FIFO."""
    folders.leave_request("2.json", "two")
    folders.leave_request("1.json", "one")
    requests = Path(folders.requests)
    (requests / ".x.tmp").touch()
    (requests / "0.json").mkdir()
    (requests / "link.json").symlink_to("/etc/passwd")
    os.mkfifo(requests / "fifo.json")

    assert ["1.json", "2.json"] == list(folders.waiting_requests())
    assert (b"one", os.geteuid()) == folders.read_request("1.json")
    folders.drop_request("1.json")
    folders.drop_request("1.json")
    assert ["2.json"] == list(folders.waiting_requests())
    with pytest.raises(OSError, match=r"link\.json"):
        folders.read_request("link.json")


@pytest.mark.root
def test_what_root_asks_for_the_daemon_may_read(folders: Folders) -> None:
    """`sudo tfwatch enable` leaves a file that belongs to the daemon's user, whatever root's umask is."""
    if NOT_ROOT:
        pytest.skip("needs root to give files away")
    os.chown(folders.requests, NOBODY, NOBODY)
    before = os.umask(0o077)
    try:
        folders.leave_request("1.json", "{}")
    finally:
        os.umask(before)

    info = os.stat(os.path.join(folders.requests, "1.json"))
    assert (NOBODY, NOBODY, 0o600) == (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("../log.csv", path), lambda path: None])
def test_the_canary_harms_nothing(root: Path, folders: Folders, make: Callable[[str], None]) -> None:
    """Whatever somebody put in its place: a FIFO doesn't block it, a link isn't followed, and nothing is left."""
    (root / "log.csv").write_text("rows")
    make(os.path.join(folders.folder(Stage.OUTBOX), module.CANARY))
    folders.touch_canary()

    assert [] == os.listdir(folders.folder(Stage.OUTBOX))
    assert "rows" == (root / "log.csv").read_text()
