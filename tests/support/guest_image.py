"""What a virtual machine boots: Debian's cloud kernel, a small initramfs, and a disk with this Python and tfwatch.

Only the kernel's package is kept between runs, in `$XDG_CACHE_HOME/tfwatch-tests`. The image is made anew for each run
of pytest, in seconds, from the Python and the tree that run the tests: it can't be out of date.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import lzma
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tests.support.host import unmet
from tests.support.require import need

PACKAGE: Final = "linux-image-cloud-amd64"
MODULES: Final = ("virtio_pci", "virtio_blk", "virtio_net")
FILE_SYSTEMS: Final = {
    "ext4": (),
    "xfs": ("xfs",),
    "btrfs": ("blake2b_generic", "xxhash_generic", "sha256_generic", "btrfs"),
}
"""File system → the modules it takes, each with what it depends on; one that the kernel has built in is passed over."""

HERE: Final = Path(__file__).parents[2]
# Not for the daemon; or large, and of no use to it.
_LEFT_OUT: Final = shutil.ignore_patterns(
    "test", "tests", "idlelib", "lib2to3", "tkinter", "ensurepip", "config-*", "site-packages", "dist-packages",
    "*.a", "*.opt-?.pyc",
)  # fmt: skip
_SITE_LEFT_OUT: Final = (
    "_pytest",
    "hypothesis",
    "moto",
    "mypy",
    "pip",
    "pkg_resources",
    "pyfakefs",
    "ruff",
    "setuptools",
)
_INIT: Final = """#!/bin/busybox sh
/bin/busybox mkdir -p /dev /proc /sys /root
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
/bin/busybox ip link set lo up
/bin/busybox ip addr add 10.0.2.15/24 dev eth0
/bin/busybox ip link set eth0 up
/bin/busybox ip route add default via 10.0.2.2
/bin/busybox mount -o ro /dev/vda /root
for folder in dev proc sys; do /bin/busybox mount -o bind /$folder /root/$folder; done
/bin/busybox mount -t tmpfs tmp /root/tmp
exec /bin/busybox chroot /root /bin/busybox sh /start
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """Files for qemu: a kernel, an initramfs, and a disk to be mounted read-only as root."""

    kernel: Path
    initramfs: Path
    disk: Path


@cache
def image() -> Image:
    """The image for this run of pytest; it goes with it. Skips where its parts can't be had."""
    if platform.machine() != "x86_64":
        unmet("the virtual machine runs this machine's own Python, on an emulated x86_64")
    busybox = need("busybox", "mkfs.ext4")
    kernel = _kernel()
    folder = Path(tempfile.mkdtemp(prefix="tfwatch-guest-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    initramfs = folder / "initramfs"
    initramfs.write_bytes(_initramfs(kernel, Path(busybox)))
    (vmlinuz,) = (kernel / "boot").glob("vmlinuz-*")
    return Image(kernel=vmlinuz, initramfs=initramfs, disk=_root_disk(folder, Path(busybox)))


# --- the kernel -----------------------------------------------------------------------------------------------------


def _kernel() -> Path:
    """Debian's package, unpacked; fetched once."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfwatch-tests"
    caches.mkdir(parents=True, exist_ok=True)
    if kept := sorted(caches.glob("linux-image-*")):
        return kept[-1]
    with tempfile.TemporaryDirectory(dir=caches) as folder:
        # As root, apt would hand over to a user who may not write here, and only warn about it.
        _run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", _kernels_name(), cwd=folder)
        (package,) = Path(folder).glob("*.deb")
        _run("dpkg-deb", "-x", str(package), f"{folder}/unpacked")
        target = caches / package.stem
        with contextlib.suppress(OSError):  # another run was faster
            os.rename(f"{folder}/unpacked", target)
    return target


def _kernels_name() -> str:
    """The package that `PACKAGE` stands for today."""
    if not _known(PACKAGE) and os.geteuid() == 0:
        _run("apt-get", "-q", "update")
    found = re.search(r"^ +Depends: (linux-image-\S+)", _run("apt-cache", "depends", PACKAGE), re.MULTILINE)
    return found[1] if found else unmet(f"apt knows no {PACKAGE}")


def _known(package: str) -> bool:
    """Whether apt has its lists."""
    return "Depends:" in _run("sh", "-c", f"apt-cache depends {package} 2>/dev/null || true")


def _initramfs(kernel: Path, busybox: Path) -> bytes:
    """busybox, and the modules that disk, network and all the file systems take, in the order in which they load."""
    files = {"init": _INIT.encode(), "bin/busybox": busybox.read_bytes()}
    found = {path.name.partition(".")[0]: path for path in (kernel / "lib" / "modules").rglob("*.ko*")}
    order: dict[str, None] = {}
    for name in (*MODULES, *(name for names in FILE_SYSTEMS.values() for name in names)):
        order |= dict.fromkeys(_with_what_it_needs(name, found))
    for name in order:
        files[f"modules/{name}.ko"] = _module(found[name])
    files["modules/order"] = "\n".join(f"{name}.ko" for name in order).encode()
    return _archive(files)


def _with_what_it_needs(name: str, found: dict[str, Path]) -> Iterator[str]:
    if name not in found:
        return
    needs = re.search(rb"\0depends=([^\0]*)\0", _module(found[name]))
    for other in needs[1].decode().split(",") if needs else ():
        yield from _with_what_it_needs(other, found)
    yield name


def _module(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def _archive(files: dict[str, bytes]) -> bytes:
    """A cpio archive of format `newc`, as the kernel unpacks it."""
    folders = sorted({str(parent) for name in files for parent in Path(name).parents} - {"."})
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in folders]
    entries += [(name, stat.S_IFREG | 0o755, content) for name, content in files.items()]
    out = io.BytesIO()
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out.write(b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0")
        out.write(b"\0" * (-out.tell() % 4) + content)
        out.write(b"\0" * (-out.tell() % 4))
    return out.getvalue()


# --- the root disk --------------------------------------------------------------------------------------------------


def _root_disk(folder: Path, busybox: Path) -> Path:
    root, disk = folder / "root", folder / "root.ext4"
    for name in ("bin", "dev", "proc", "sys", "tmp", "spool", "etc"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin" / "busybox")
    (root / "bin" / "sh").symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/tmp:/bin/sh\n")
    _copy_python(root)
    shutil.copy(Path(__file__).with_name("guest_agent.py"), root / "agent.py")
    python = os.path.realpath(sys.executable)
    (root / "start").write_text(f"export PATH=/bin HOME=/tmp PYTHONPATH=/site\nexec {python} /agent.py\n")
    # Each file takes whole blocks and an inode; half as much again is room enough.
    mib = sum(path.lstat().st_size + 8192 for path in root.rglob("*")) * 3 // 2 >> 20
    _run(need("mkfs.ext4"), "-q", "-O", "^has_journal", "-m", "0", "-d", str(root), str(disk), f"{mib}M")
    shutil.rmtree(root)
    return disk


def _copy_python(root: Path) -> None:
    """This interpreter, its library at its own path, what is installed beside it, and the libraries all that loads."""
    executable, library = Path(os.path.realpath(sys.executable)), Path(sysconfig.get_path("stdlib"))
    (root / executable.relative_to("/")).parent.mkdir(parents=True)
    shutil.copy(executable, root / executable.relative_to("/"))
    shutil.copytree(library, root / library.relative_to("/"), ignore=_LEFT_OUT, symlinks=True, copy_function=_link)
    site = Path(sysconfig.get_path("purelib"))
    shutil.copytree(site, root / "site", ignore=_site_left_out, copy_function=_link)
    shutil.copytree(HERE / "tfwatch", root / "site" / "tfwatch", dirs_exist_ok=True)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(root / "site" / "tfwatch")], check=True)
    for loaded in _shared_libraries([executable, *library.rglob("*.so"), *site.rglob("*.so")]):
        target = root / loaded.relative_to("/")
        if not target.is_relative_to(root / "site") and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(loaded, target)


def _link(source: str, target: str) -> None:
    """The same file where that can be, for nothing here is written to; else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _site_left_out(folder: str, names: list[str]) -> set[str]:
    if Path(folder).name == "data" and Path(folder).parent.name == "botocore":
        return {name for name in names if name != "s3" and os.path.isdir(os.path.join(folder, name))}
    if Path(folder) != Path(sysconfig.get_path("purelib")):
        return set()
    return {name for name in names if name.startswith(_SITE_LEFT_OUT) or "__mypyc" in name}


def _shared_libraries(files: Sequence[Path]) -> set[Path]:
    """What the dynamic linker loads for them, itself included; what lies beside the files is theirs already."""
    told = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True).stdout
    found = {Path(path) for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", told, re.MULTILINE)}
    return {path for path in found if not path.is_relative_to(sysconfig.get_path("purelib"))}


def _run(*command: str, cwd: str | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    except FileNotFoundError:
        unmet(f"needs {command[0]}: the kernel is Debian's")
    if done.returncode != 0:
        unmet(f"{' '.join(command)}: {done.stderr.strip()[-300:]}")
    return done.stdout
