"""`tfwatch doctor` as an operator types it: a green run, a sick machine, another user, an interrupted one."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import require, s3_servers
from tests.support.daemon import Spool, wait_until
from tests.support.examined import examined, failed, theirs, told
from tests.support.host import unmet
from tests.support.http import ScriptedServer, Step, refusing_address
from tests.support.s3_servers import ACCESS_KEY, SECRET_KEY
from tests.support.stranger import NOBODY
from tests.support.web import serve, wait_until_served
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import PortalSettings, SandboxSettings

BUCKET = "doctor"
LINE = re.compile(r"(ok|warning|failure|skipped) +(\w[\w ]*?)  +(\S.*)")


@pytest.fixture(scope="module")
def portal() -> Iterator[Sandbox]:
    with Sandbox(SandboxSettings(portal=PortalSettings(verdict_delay=0.05))) as running:
        yield running


def services(portal: Sandbox, bucket: str = BUCKET) -> dict[str, Any]:
    """S3 on SeaweedFS, and the sandbox's sheet."""
    server = s3_servers.seaweed("http")
    client = server.client()
    if BUCKET not in [each["Name"] for each in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    return {
        "s3": {
            "enabled": True, "endpoint_url": server.url, "bucket": bucket, "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
        },
        "sheets": {
            "enabled": True, "spreadsheet_id": portal.spreadsheet_id, "api_base_url": portal.url,
            "service_account_json": json.dumps(portal.service_account()),
        },
    }  # fmt: skip


@pytest.fixture
def place(portal: Sandbox) -> Iterator[Spool]:
    """A spool of a user without power, whose daemon is not started."""
    # Root's files are not that user's to lease, so they must be still for a while.
    with theirs(portal.url, portal.api_key, spool={"min_free_bytes": 0, "settle_seconds": 0.1}) as made:
        yield made


def files(place: Spool) -> set[str]:
    return {str(path) for path in place.root.rglob("*")}


def test_a_healthy_machine_before_and_while_the_daemon_runs(place: Spool, portal: Sandbox) -> None:
    """Nothing fails, every check says something, and neither a file nor an order is left behind."""
    place.configure(integrations=services(portal))
    before, orders = files(place), len(portal.orders())
    found = examined(place, code=0)
    assert {"ok"} == {each["result"] for name in ("gotranscript", "s3", "sheets", "clock") for each in found[name]}
    assert before == files(place)

    address = serve(place)
    assert "is free for the daemon" in told(examined(place, code=0), "web")
    run_as_owner(place)
    wait_until_served(address)
    place.drop("job_v1.zip")
    place.wait_for("delivered", "job_v1.zip")
    found = examined(place, code=0)
    fine = (
        "folders",
        "rename",
        "lease",
        "events",
        "log",
        "index",
        "switches",
        "daemon",
        "web",
        "gotranscript",
        "s3",
        "sheets",
    )
    assert {"ok"} == {each["result"] for name in fine for each in found[name]}, found
    assert orders + 1 == len(portal.orders())
    assert [] == [name for name in files(place) if re.search(r"/\.(probe|tfwatch-canary)", name)]
    place.drop("job_v2.zip", seed=2)
    place.wait_for("delivered", "job_v2.zip")
    place.assert_sound()


def run_as_owner(place: Spool) -> None:
    """Start the daemon as the user whose spool it is."""
    wrap = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups") if os.geteuid() == 0 else ()
    if wrap:
        require.need("setpriv")
        can = subprocess.run([*wrap, sys.executable, "-c", "import tfwatch.cli"], capture_output=True)
        if can.returncode != 0:
            unmet("needs a checkout that other users may read")
    place.start(wrap=wrap)


def test_a_sick_machine(place: Spool, portal: Sandbox) -> None:
    """Everything wrong at once: each is found, named and told with what to do; secrets are not."""
    place.configure(
        integrations={"gotranscript": {"api_key": "wrong-key-CANARY"}, **services(portal, "no-such-bucket")}
    )
    place.configure(integrations={"sheets": {"spreadsheet_id": "another-sheet-CANARY-id"}})
    place.config.chmod(0o644)
    (place.root / "delivered").chmod(0o500)
    found = examined(place, code=1)

    assert {"secrets", "folders", "rename", "gotranscript", "s3", "sheets"} <= failed(found)
    assert f"{place.root}/delivered" in told(found, "folders")
    assert f"chmod u+rwx {place.root}/delivered" in told(found, "folders")
    assert "401" in told(found, "gotranscript") or "api_key" in told(found, "gotranscript")
    assert "no bucket no-such-bucket" in told(found, "s3")
    assert "share the sheet with" in told(found, "sheets")
    assert "wrong-key" not in json.dumps(found)
    assert SECRET_KEY not in json.dumps(found)
    bad = [each for findings in found.values() for each in findings if each["result"] in ("failure", "warning")]
    assert [] == [each for each in bad if not each["what_to_do"]]


def test_what_people_read(place: Spool) -> None:
    """One line a check: result, name, what was seen; plain in a pipe, and the last line sums it up."""
    place.configure(integrations={"gotranscript": {"base_url": refusing_address()}})
    done = place.cli("doctor")

    assert 1 == done.returncode
    head, *lines, empty, last = done.stdout.splitlines()
    assert str(place.root) in head
    assert "" == empty
    assert [] == [line for line in lines if not LINE.fullmatch(line)]
    assert last.startswith("1 failure(s)")
    assert "\x1b" not in done.stdout
    (failing,) = [line for line in lines if line.startswith("failure")]
    assert "can't be reached" in failing
    assert "What to do: " in failing


@pytest.mark.root
def test_root_tries_it_as_the_daemons_user(place: Spool) -> None:
    """What root may do proves nothing: the spool's owner is tried, and named."""
    if os.geteuid() != 0:
        unmet("needs root to be somebody else")
    found = examined(place, code=0)

    assert f"tried as {pwd.getpwuid(NOBODY).pw_name}" in told(found, "user")
    (place.root / "submitted").chmod(0o700)
    os.chown(place.root / "submitted", 0, 0)
    found = examined(place, code=1)
    assert {"folders", "rename"} == failed(found)
    assert f"chown {pwd.getpwuid(NOBODY).pw_name}" in told(found, "folders")


@pytest.mark.root
def test_a_stranger_is_told_to_use_sudo(place: Spool) -> None:
    """Who isn't the daemon's user sees what he may, is told so, and meets no traceback."""
    if os.geteuid() != 0:
        unmet("needs root to act as another user")
    (place.root / ".tfwatch").mkdir(mode=0o700)
    os.chown(place.root, 0, 0)
    os.chown(place.root / ".tfwatch", 0, 0)
    place.config.chmod(0o644)
    wrap = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    command = [*wrap, sys.executable, "-m", "tfwatch", "doctor", "-c", str(place.config), "--json"]
    if subprocess.run([*wrap, sys.executable, "-c", "import tfwatch.cli"], capture_output=True).returncode != 0:
        unmet("needs a checkout that other users may read")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert (1, "") == (done.returncode, done.stderr)
    checks = json.loads(done.stdout)["checks"]
    (user,) = [each for each in checks if each["check"] == "user"]
    assert ("warning", "sudo tfwatch doctor tries it as that user") == (user["result"], user["what_to_do"])


def test_settings_that_cannot_be_read_are_a_document_too(tmp_path: Path) -> None:
    """No spool is known then: that is said, in JSON as well, exit code 1."""
    bad = tmp_path / "config.yaml"
    bad.write_text("spool: [")
    done = subprocess.run(
        [sys.executable, "-m", "tfwatch", "doctor", "-c", str(bad), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert 1 == done.returncode, done.stderr
    document = json.loads(done.stdout)
    assert ["failure", "skipped"] == [each["result"] for each in document["checks"]]
    assert not document["fine"]


def test_interrupted_it_ends_at_once(place: Spool) -> None:
    """Ctrl-C while a service keeps it waiting: no traceback, and no file of its stays."""
    with ScriptedServer(Step(then="hang")) as server:
        place.configure(integrations={"gotranscript": {"base_url": server.url}})
        command = [sys.executable, "-m", "tfwatch", "doctor", "-c", str(place.config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: server.seen, "the service is asked")
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)

    assert 0 != process.returncode
    assert "Traceback" not in said
    assert [] == [name for name in files(place) if re.search(r"/\.(probe|tfwatch-canary)", name)]
