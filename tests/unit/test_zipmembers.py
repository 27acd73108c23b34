"""The ZIP reader, member by member: what must agree, and what unpacking must give."""

from __future__ import annotations

import io
import lzma
import os
import random
import struct
import subprocess
import time
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.require import need
from tests.unit.zips import (
    BZIP2,
    DEFLATED,
    LZMA,
    SAMPLE,
    STORED,
    Member,
    contents,
    flaw,
    handmade,
    megabytes_of_zeros,
    opened,
    peak_bytes,
    python_zip,
    structure,
    with_zip64_end,
    zip64_extra,
)
from tfwatch.spool.zipflaws import Unfinished, Unsound
from tfwatch.spool.zipformat import check_structure, walk
from tfwatch.spool.zipmembers import lay_out, unpack

# --- read back --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("zip64", [False, True])
@pytest.mark.parametrize("method", [STORED, DEFLATED, BZIP2, LZMA])
def test_python_zips_are_read_back(method: int, zip64: bool, stream: bool) -> None:
    """What zipfile writes, by any method, with ZIP64 sizes or data descriptors, comes out byte for byte."""
    data = python_zip(method, zip64=zip64, stream=stream, comment=b"by hand")

    assert {name.encode(): text for name, text in SAMPLE.items()} == contents(data)


@pytest.mark.parametrize(
    "command",
    [
        ["zip", "-q", "-r", "out.zip", "job"],
        ["zip", "-q", "-r", "-0", "out.zip", "job"],
        ["zip", "-q", "-r", "-Z", "bzip2", "out.zip", "job"],
        ["zip", "-q", "-r", "-fz", "out.zip", "job"],
        ["zip", "-q", "-r", "-fd", "out.zip", "job"],
        ["sh", "-c", "zip -q -r - job | cat > out.zip"],
        ["sh", "-c", "cat job/a.txt | zip -q out.zip -"],
        ["7z", "a", "-tzip", "-mm=Copy", "out.zip", "job"],
        ["7z", "a", "-tzip", "-mm=Deflate", "-mx=9", "out.zip", "job"],
        ["7z", "a", "-tzip", "-mm=BZip2", "out.zip", "job"],
        ["7z", "a", "-tzip", "-mm=LZMA", "-mx=9", "out.zip", "job"],
        ["7z", "a", "-tzip", "-mm=LZMA", "-mx=1", "-meos=on", "out.zip", "job"],
    ],
    ids=" ".join,
)
def test_zips_of_other_tools_are_read_back(tmp_path: Path, command: list[str]) -> None:
    """Info-ZIP's and 7-Zip's archives pass, with every method they share with us."""
    data = made_by(tmp_path, command)

    found = contents(data)

    expected = {b"-": SAMPLE["job/a.txt"]} if b"-" in found else {n.encode(): text for n, text in SAMPLE.items()}
    assert expected == found


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["zip", "-q", "-r", "-P", "secret", "out.zip", "job"], "encrypted"),
        (["7z", "a", "-tzip", "-psecret", "-mem=AES256", "out.zip", "job"], "encrypted"),
        (["7z", "a", "-tzip", "-mm=Deflate64", "out.zip", "job"], "unsupported"),
        (["7z", "a", "-tzip", "-mm=PPMd", "out.zip", "job"], "unsupported"),
    ],
    ids=" ".join,
)
def test_zips_of_other_tools_that_are_refused(tmp_path: Path, command: list[str], code: str) -> None:
    """Encryption of any kind, and methods that can't be checked, are named as such."""
    assert code == flaw(made_by(tmp_path, command)).code


def made_by(folder: Path, command: list[str]) -> bytes:
    need("zip", "7z")
    for name, data in SAMPLE.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(data)
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return (folder / "out.zip").read_bytes()


def test_gaps_between_members_are_fine() -> None:
    """Tools that align members leave gaps, and padding that makes no extra field."""
    data = handmade(Member(name=b"a", local_extra=b"\0\0\0"), Member(name=b"b"), gap=b"\0" * 7)

    assert contents(data) == {b"a": b"hello", b"b": b"hello"}


def test_members_beyond_4_gib() -> None:
    """Offsets and sizes past 32 bits are read from ZIP64 fields, without reading the data."""
    big = 5 << 30
    first = Member(
        name=b"big",
        data=b"",
        crc=0,
        compressed=0xFFFFFFFF,
        uncompressed=0xFFFFFFFF,
        local_size=0xFFFFFFFF,
        local_extra=zip64_extra(big, big),
        extra=zip64_extra(big, big),
    )
    second_at = 30 + 3 + 20 + big
    front = handmade(first)[: 30 + 3 + 20]
    second = handmade(Member(name=b"b"))[: 30 + 1 + 5]
    far = Member(name=b"b", offset=0xFFFFFFFF, extra=zip64_extra(second_at))
    whole = handmade(first, far)
    directory = whole[len(front) : -22]
    tail = with_zip64_end(directory + whole[-22:], offset=second_at + len(second), record_off=second_at + len(second))
    with opened(front) as fd:
        os.pwrite(fd, second + tail, second_at)
        found = check_structure(fd, second_at + len(second) + len(tail))

        assert [53, second_at + 31] == list(lay_out(fd, found, lambda _: None))
        assert [big, 5] == [entry.uncompressed for entry in walk(fd, found)]


# --- unsound ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *(b"../x", b"..", b"a/../b", b"a/..", b"/x", b"/", b"\\x", b"\\\\host\\x", b"a\\..\\b", b"..\\b", b"a/..\\b"),
        *(b"C:\\x", b"c:x", b"Z:/x", b"a\0b", b"a.txt\0"),
    ],
)
def test_unsafe_names_are_refused(name: bytes) -> None:
    """No absolute name, step up, drive letter or NUL passes: in the directory, or as Unicode name in either header."""
    unicode_path = struct.pack("<HHBL", 0x7075, 5 + len(name), 1, zlib.crc32(b"a.txt")) + name

    assert [
        flaw(handmade(Member(name=b"ok"), member)).code
        for member in (Member(name=name), Member(extra=unicode_path), Member(local_extra=unicode_path))
    ] == ["unsafe_name"] * 3


@pytest.mark.parametrize(
    "name", [b"a..b", b"..a", b"a..", b"...", b"a/.../b", b"./a", b"ab:c", b"\xff\xfe", "é/ü".encode()]
)
def test_harmless_names_pass(name: bytes) -> None:
    """Names that only look a little like those pass, whatever their bytes."""
    assert {name: b"hello"} == contents(handmade(Member(name=name)))


@pytest.mark.parametrize("bit", [0, 6, 13])
def test_encryption_flags_are_refused(bit: int) -> None:
    """Encrypted, strongly encrypted or masked: refused, whichever of the two headers says so."""
    assert "encrypted" == flaw(handmade(Member(flags=1 << bit))).code
    assert "encrypted" == flaw(handmade(Member(local_flags=1 << bit))).code


@pytest.mark.parametrize(
    "member",
    [
        Member(local_name=b"b.txt"),
        Member(local_name=b"a.txt/"),
        Member(local_method=DEFLATED),
        Member(local_crc=1),
        Member(local_size=4),
        Member(crc=1),
        Member(uncompressed=4),
        Member(uncompressed=6),
        Member(compressed=4),
        Member(flags=8, crc=1),
        Member(method=DEFLATED),
        Member(method=BZIP2),
        Member(method=LZMA),
        Member(method=LZMA, data=b"x" * 50),
        Member(method=DEFLATED, packed=zlib.compress(b"hello", wbits=-15) + b"x"),
        Member(method=DEFLATED, packed=zlib.compress(b"hello", wbits=-15)[:-1]),
        Member(compressed=0xFFFFFFFF),
        Member(compressed=0xFFFFFFFF, extra=zip64_extra()),
        Member(uncompressed=0xFFFFFFFF, extra=zip64_extra(1 << 63)),
        Member(uncompressed=0xFFFFFFFF, local_size=0xFFFFFFFF, local_extra=zip64_extra(6, 5), extra=zip64_extra(6)),
        Member(extra=b"", local_size=0xFFFFFFFF),
    ],
    ids=lambda member: " ".join(f"{k}={v!r}" for k, v in vars(member).items() if v != getattr(Member, k))[:60],
)
def test_headers_and_data_that_disagree_are_corrupt(member: Member) -> None:
    """Local header, central header and data must tell the same story."""
    assert "corrupt" == flaw(handmade(member)).code


@pytest.mark.parametrize("offset", [1, 5, 0xFFFFFFFE])
def test_headers_that_point_elsewhere_are_corrupt(offset: int) -> None:
    """A central header must point at a local one."""
    assert "corrupt" == flaw(handmade(Member(), Member(name=b"b", offset=offset))).code


def test_an_offset_past_64_bits_of_sense_is_corrupt() -> None:
    """ZIP64 offsets far outside the file are refused, not followed."""
    lost = Member(name=b"b", offset=0xFFFFFFFF, extra=zip64_extra((1 << 64) - 1))

    assert "corrupt" == flaw(handmade(Member(), lost)).code


@pytest.mark.parametrize("size", [1 << 20, 0xFFFFFFFE])
def test_members_that_run_into_the_directory_overlap_it(size: int) -> None:
    """A member may not reach past the beginning of the central directory."""
    assert "overlapping" == flaw(handmade(Member(compressed=size, local_size=size))).code


def test_entries_that_share_data_are_refused() -> None:
    """The bomb of entries that all name one member is refused before anything is unpacked."""
    assert "overlapping" == flaw(handmade(Member(), Member(offset=0))).code


def test_nested_members_are_refused() -> None:
    """The bomb of members whose data holds the next member's header is refused: each quotes the rest."""
    inner = Member(name=b"b")
    quoted = handmade(inner)[: 30 + 1 + 5]
    outer = Member(name=b"a", data=quoted)

    assert "overlapping" == flaw(handmade(outer, Member(name=b"b", offset=30 + 1))).code


def test_members_out_of_order_are_fine() -> None:
    """The directory may list members in any order."""
    data = handmade(Member(name=b"a"), Member(name=b"b"), Member(name=b"c"))
    found = structure(data)
    size = found.size // 3
    headers = [data[found.offset + n * size : found.offset + (n + 1) * size] for n in (2, 0, 1)]

    assert list(contents(data[: found.offset] + b"".join(headers) + data[found.end :])) == [b"c", b"a", b"b"]


def test_an_unlisted_first_entry_is_corrupt() -> None:
    """A reader that goes from the front must not find an entry that the directory doesn't know."""
    data = handmade(Member(name=b"a"), Member(name=b"b"))
    found = structure(data)
    half = found.size // 2
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, half, found.offset, 0)

    assert "corrupt" == flaw(data[: found.offset] + data[found.offset + half : found.end] + end).code


@pytest.mark.parametrize("method", [STORED, DEFLATED, BZIP2, LZMA])
def test_every_flipped_bit_of_data_is_found(method: int) -> None:
    """Whatever bit of a member's data flips, it is refused as corrupt, or was padding and changed nothing."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        archive.writestr("a", random.Random(2).randbytes(60) * 3)
    data = target.getvalue()
    codes, harmless = set(), 0

    for at in range(31, structure(data).offset):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            try:
                assert contents(data) == contents(bytes(flipped))
                harmless += 1
            except Unsound as refused:
                codes.add(refused.code)

    assert {"corrupt"} == codes
    # deflate fills up its last byte, bzip2 has tables for absent symbols, LZMA a dictionary larger than needed
    assert harmless <= {STORED: 0, DEFLATED: 7, BZIP2: 48, LZMA: 48}[method]


def test_lzma_without_an_end_marker() -> None:
    """LZMA data may end where the declared size says, with no marker."""
    text = b"hello, hello " * 999
    alone = lzma.compress(text, lzma.FORMAT_ALONE)  # writes a marker; its last bytes can be cut when the size is known
    packed = b"\x09\x04\x05\x00" + alone[:5] + alone[13:]

    assert {b"a.txt": text} == contents(handmade(Member(method=LZMA, data=text, packed=packed)))
    assert {b"a.txt": text} == contents(handmade(Member(method=LZMA, flags=2, data=text, packed=packed)))
    assert "corrupt" == flaw(handmade(Member(method=LZMA, data=text, packed=packed[:50]))).code


def test_lzma_can_not_ask_for_gigabytes() -> None:
    """A member that declares a dictionary of gigabytes, and a size to match, is refused; a small one just passes."""
    text = b"hello"
    alone = lzma.compress(text, lzma.FORMAT_ALONE)
    packed = b"\x09\x04\x05\x00" + alone[:1] + b"\xff\xff\xff\xff" + alone[13:]

    assert {b"a.txt": text} == contents(handmade(Member(method=LZMA, flags=2, data=text, packed=packed)))
    asks = Member(method=LZMA, flags=2, data=text, packed=packed, uncompressed=0xFFFFFFFE)
    asks.local_size = None
    assert "unsupported" == flaw(handmade(asks)).code


def test_folders_marked_as_compressed_without_data_pass() -> None:
    """Some writers mark empty members as deflated and store nothing."""
    assert contents(handmade(Member(name=b"a/", data=b"", method=DEFLATED))) == {b"a/": b""}


@pytest.mark.parametrize("method", [1, 9, 93, 95, 98, 99])
def test_methods_that_can_not_be_checked_are_named(method: int) -> None:
    """An unknown compression method is refused by its number, and only once its data is wanted."""
    found = flaw(handmade(Member(method=method)))

    assert "unsupported" == found.code
    assert f"method {method} " in found.message
    assert found.entry == '"a.txt"'


# --- bounded ----------------------------------------------------------------------------------------------------------


def test_a_member_that_unpacks_to_more_than_it_declares_is_stopped() -> None:
    """10 MB that would become 10 GB, but declares 1,000 bytes, is stopped at its first piece."""
    packed = megabytes_of_zeros(10_000)
    data = handmade(Member(method=DEFLATED, packed=packed, data=bytes(1000)))
    began = time.monotonic()

    with opened(data) as fd:
        directory = check_structure(fd, len(data))
        data_at = lay_out(fd, directory, lambda _: None)
        (entry,) = walk(fd, directory)

        def unpack_it() -> None:
            with pytest.raises(Unsound, match="more than the 1,000 bytes"):
                next(unpack(fd, entry, data_at[0]))

        assert peak_bytes(unpack_it) < 8 << 20
    assert time.monotonic() - began < 5


def test_unpacking_takes_little_memory() -> None:
    """A piece is at most 1 MiB, whatever the ratio."""
    data = handmade(Member(method=DEFLATED, packed=megabytes_of_zeros(64), data=bytes(64 << 20)))
    with opened(data) as fd:
        directory = check_structure(fd, len(data))
        data_at = lay_out(fd, directory, lambda _: None)
        (entry,) = walk(fd, directory)
        largest = 0

        def unpack_it() -> None:
            nonlocal largest
            largest = max(len(piece) for piece in unpack(fd, entry, data_at[0]))

        assert peak_bytes(unpack_it) < 8 << 20
        assert 1 << 20 == largest


# --- anything at all --------------------------------------------------------------------------------------------------

SEEDS = [
    python_zip(),
    python_zip(BZIP2),
    python_zip(LZMA, comment=b"comment"),
    python_zip(STORED, zip64=True, stream=True),
    with_zip64_end(handmade(Member(), Member(name=b"b", extra=zip64_extra(5, 5)))),
]


@settings(max_examples=600, deadline=2000)
@given(seed=st.sampled_from(SEEDS), data=st.data())
def test_damage_is_refused_or_harmless(seed: bytes, data: st.DataObject) -> None:
    """Whatever bytes change, the reader ends in time with the content, `Unsound` or `Unfinished`, and nothing else."""
    at = st.integers(0, len(seed) - 1) | st.integers(max(0, len(seed) - 400), len(seed) - 1)
    mutated = bytearray(seed)
    for where, value in data.draw(st.lists(st.tuples(at, st.integers(0, 255)), min_size=1, max_size=8)):
        mutated[where] = value
    if data.draw(st.booleans()):
        start, length = data.draw(at), data.draw(st.integers(0, 40))
        mutated[start : start + length] = data.draw(st.binary(max_size=40))
    try:
        contents(bytes(mutated))
    except (Unsound, Unfinished):
        pass


def _harmless(name: str) -> bool:
    return not name.startswith("/") and not name.endswith("/")


@settings(max_examples=100, deadline=2000)
@given(
    files=st.dictionaries(
        st.text("abc/é ", min_size=1, max_size=9).filter(_harmless), st.binary(max_size=2000), min_size=1
    ),
    method=st.sampled_from([STORED, DEFLATED, BZIP2, LZMA]),
    comment=st.binary(max_size=60),
)
def test_any_zip_is_read_back(files: dict[str, bytes], method: int, comment: bytes) -> None:
    """Whatever zipfile packs comes out the same, and no shorter part of it is whole."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.comment = comment
    data = target.getvalue()

    assert {name.encode(): text for name, text in files.items()} == contents(data)
    with pytest.raises(Unfinished):
        structure(data[: len(data) // 2])
