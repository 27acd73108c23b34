"""A spool on a file system that other machines write to: their files raise no event here, and leases don't see them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.daemon import Spool, wait_until, zip_bytes
from tests.support.daemon import spool as make_spool
from tests.support.extent import Extent
from tests.support.portal import digest, ordered, orders_of
from tests.support.weed_mount import Filer, filer
from tfwatch.sandbox.server import Sandbox
from tfwatch.spool.places import CANARY
from tfwatch.spool.watcher import Bell, Watcher

SETTLE_SECONDS = 4
PATIENCE = 120.0

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Shared:
    """One store; `here` is our mount of it, `there` another client's."""

    filer: Filer
    here: Path
    there: Path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with ExitStack() as stack:
        store = stack.enter_context(filer(tmp_path_factory.mktemp("weed") / "store"))
        yield Shared(store, stack.enter_context(store.mounted()), stack.enter_context(store.mounted()))


@pytest.fixture
def spool(shared: Shared, sandbox: Sandbox, request: pytest.FixtureRequest) -> Iterator[Spool]:
    """A spool on our mount. It is looked through by the clock once an hour: what is found sooner was polled for."""
    home = shared.here / request.node.name.partition("[")[0]
    home.mkdir()
    settings = {"rescan_seconds": 3600, "settle_seconds": SETTLE_SECONDS}
    with make_spool(home, sandbox.url, sandbox.api_key, spool=settings) as made:
        yield made


def seen_there(shared: Shared, spool: Spool) -> Path:
    """The other client's view of the outbox."""
    outbox = shared.there / spool.home.name / "spool" / "outbox"
    wait_until(outbox.is_dir, "the other client sees the outbox")
    return outbox


def test_the_canary_is_heard_and_another_client_is_not(shared: Shared, tmp_path: Path) -> None:
    """Why a canary alone proves too little: its event comes, and none for a file that another client writes."""
    folder = shared.here / "canary" / "outbox"
    folder.mkdir(parents=True)
    wait_until((shared.there / "canary" / "outbox").is_dir, "the other client sees the folder")
    bell = Bell()
    watcher = Watcher(bell, {"outbox": str(folder)}, ours=lambda place, name: False)
    watcher.start()
    try:
        (shared.there / "canary" / "outbox" / "theirs.zip").write_bytes(zip_bytes())
        shared.filer.put("/canary/outbox/by-http.zip", zip_bytes())
        wait_until(lambda: {"theirs.zip", "by-http.zip"} <= set(os.listdir(folder)), "their files are seen here")
        watcher.canary_sent()
        (folder / CANARY).touch()

        assert watcher.canary_heard(PATIENCE)
        assert set() == bell.wait(0.0)
    finally:
        watcher.stop()


def test_what_other_clients_drop_is_delivered(shared: Shared, sandbox: Sandbox, spool: Spool, extent: Extent) -> None:
    """Renamed in, written in place or put by HTTP: all delivered once, without events, and status says polling."""
    count = max(15, min(300, extent.packages // 20))
    expected = {}
    spool.start()
    outbox = seen_there(shared, spool)
    began = time.monotonic()
    for number in range(count):
        name, content = f"p{number:04}.zip", zip_bytes(seed=number)
        expected[digest(content)] = 1
        if number % 3 == 0:
            (outbox / f"{name}.part").write_bytes(content)
            (outbox / f"{name}.part").rename(outbox / name)
        elif number % 3 == 1:
            (outbox / name).write_bytes(content)
        else:
            shared.filer.put(f"/{spool.home.name}/spool/outbox/{name}", content)
    dropped = time.monotonic() - began
    spool.wait_for("delivered", *(f"p{number:04}.zip" for number in range(count)), seconds=PATIENCE + count)

    assert expected == ordered(sandbox)
    shown = spool.wait_for_state(lambda state: state, "the state is shown")
    assert "polling" == shown["watch"]["mode"]
    assert "may be shared" in shown["watch"]["why"]
    assert 0 < shown["watch_latency_seconds"] < PATIENCE
    wait_until(
        lambda: 1 == spool.output.read_text().count("the folders are polled instead"), "the journal says it once"
    )
    spool.assert_sound()
    print(f"\nshared mount: {count} ZIPs by 3 ways in {dropped:.1f} s, all delivered after "
          f"{time.monotonic() - began:.1f} s; canary {1000 * shown['watch_latency_seconds']:.1f} ms")  # fmt: skip


def test_a_file_that_another_client_writes_slowly_is_sent_whole(shared: Shared, sandbox: Sandbox, spool: Spool) -> None:
    """It grows piece by piece, each on disk and seen here; only `settle_seconds` after the last one it is sent."""
    content = zip_bytes(seed=1, size=400_000)
    spool.start()
    outbox = seen_there(shared, spool)
    seen = set()
    with (outbox / "slow.zip").open("wb") as file:
        for at in range(0, len(content), 50_000):
            file.write(content[at : at + 50_000])
            file.flush()
            os.fsync(file.fileno())
            size = at + len(content[at : at + 50_000])
            wait_until(lambda size=size: _size(spool, "slow.zip") >= size, "the piece is seen here", PATIENCE)
            seen.add(_size(spool, "slow.zip"))
    spool.wait_for("delivered", "slow.zip", seconds=PATIENCE)

    assert {digest(content): 1} == ordered(sandbox)
    assert len(seen) > 3


def test_a_zip_that_another_client_writes_again_is_sent_in_its_last_version(
    shared: Shared, sandbox: Sandbox, spool: Spool
) -> None:
    """Each version is a whole ZIP and no lease tells of its writer: only stillness keeps the early ones back."""
    spool.start()
    outbox = seen_there(shared, spool)
    for go in range(5):
        name, gap, last = f"again{go}.zip", 0.0, b""
        written = time.monotonic()
        for version in range(2 * SETTLE_SECONDS + 2):
            last = zip_bytes(seed=100 * go + version, size=2000 + version)
            (outbox / name).write_bytes(last)
            wait_until(lambda: (outbox / name).stat().st_size == len(last), "it is written", PATIENCE)  # noqa: B023
            gap = max(gap, time.monotonic() - written)
            written = time.monotonic()
            wait_until(lambda: time.monotonic() > written + SETTLE_SECONDS / 8, "the writer's pause")  # noqa: B023
        if gap < SETTLE_SECONDS / 2:
            break
    else:
        pytest.fail("this machine was too slow five times: the writer paused for longer than settle_seconds / 2")
    spool.wait_for("delivered", name, seconds=PATIENCE)

    assert [digest(last)] == [order["sha256"] for order in orders_of(sandbox, name)]
    print(
        f"\n{version + 1} versions, at most {gap:.1f} s apart, settle_seconds {SETTLE_SECONDS}: the last one was sent"
    )


def _size(spool: Spool, name: str) -> int:
    """As it is seen here; a large number once it was claimed."""
    try:
        return (spool.root / "outbox" / name).stat().st_size
    except FileNotFoundError:
        return 1 << 60
