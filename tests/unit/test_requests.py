"""What commands ask of the daemon: it arrives as it was asked, and nothing else is believed."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfwatch.model import Integration
from tfwatch.requests import BadRequest, Request, leave, read
from tfwatch.spool.folders import Folders

SHA = "0123456789abcdef" * 4

NAMES = st.binary(min_size=1, max_size=255).filter(lambda raw: b"/" not in raw and b"\0" not in raw).map(os.fsdecode)
REQUESTS = st.builds(
    Request,
    command=st.sampled_from(["requeue", "cancel", "backup", "enable", "disable"]),
    user=st.text(st.characters(exclude_categories=())),
    names=st.lists(NAMES, max_size=3).map(tuple),
    sha256s=st.lists(st.from_regex("[0-9a-f]{64}", fullmatch=True), max_size=3).map(tuple),
    integration=st.none() | st.sampled_from(Integration),
    forced=st.booleans(),
    reason=st.text(st.characters(exclude_categories=())),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    made = Folders(str(tmp_path_factory.mktemp("spool")))
    made.prepare()
    return made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(request=REQUESTS)
def test_a_request_arrives_as_it_was_left(folders: Folders, request: Request) -> None:
    """Names of any bytes, reasons of any text: read back exactly, and gone once dropped."""
    name = leave(folders, request)
    assert [name] == list(folders.waiting_requests())
    assert request == read(folders, name)
    folders.drop_request(name)
    assert [] == list(folders.waiting_requests())


def test_requests_are_taken_in_the_order_they_were_left(folders: Folders) -> None:
    """`disable` after `enable` is disabled."""
    left = [leave(folders, Request(command=command, user="me")) for command in ("enable", "disable", "enable")]

    assert left == list(folders.waiting_requests())
    for name in left:
        folders.drop_request(name)


GOOD: dict[str, Any] = {"command": "requeue", "user": "me", "names": ["a.zip"], "sha256s": [SHA]}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"{",
        b"[]",
        b"null",
        b'"requeue"',
        b"[" * 100_000,
        json.dumps(GOOD | {"command": "format"}).encode(),
        json.dumps(GOOD | {"command": ["requeue"]}).encode(),
        json.dumps({key: value for key, value in GOOD.items() if key != "command"}).encode(),
        json.dumps({key: value for key, value in GOOD.items() if key != "user"}).encode(),
        json.dumps(GOOD | {"integration": "mail"}).encode(),
        json.dumps(GOOD | {"names": 5}).encode(),
        json.dumps(GOOD | {"names": [5]}).encode(),
        json.dumps(GOOD | {"names": ["../../etc/passwd"]}).encode(),
        json.dumps(GOOD | {"names": ["a\0b"]}).encode(),
        json.dumps(GOOD | {"names": ["\ud800.zip"]}).encode(),
        json.dumps(GOOD | {"names": [""]}).encode(),
        json.dumps(GOOD | {"sha256s": ["0" * 63]}).encode(),
        json.dumps(GOOD | {"sha256s": [SHA.upper()]}).encode(),
        json.dumps(GOOD | {"sha256s": [SHA + "\n"]}).encode(),
        json.dumps(GOOD | {"sha256s": ["\ud800"]}).encode(),
    ],
)
def test_what_no_command_wrote_is_refused(folders: Folders, raw: bytes) -> None:
    """A broken or foreign file is one error with its name in it; it never brings the daemon down."""
    name = os.fsdecode(b"\xff\n.json")
    Path(folders.requests, name).write_bytes(raw)
    try:
        with pytest.raises(BadRequest, match=r"^\\xff\\n.json: not a request of tfwatch's: "):
            read(folders, name)
    finally:
        folders.drop_request(name)


def test_what_a_newer_command_adds_is_passed_over(folders: Folders) -> None:
    """Further keys don't matter, missing ones have their usual meaning."""
    Path(folders.requests, "1.json").write_text(json.dumps({"command": "enable", "user": "me", "colour": "red"}))

    assert Request(command="enable", user="me") == read(folders, "1.json")
    folders.drop_request("1.json")


def test_a_request_that_is_gone_is_said(folders: Folders) -> None:
    """Taken meanwhile: the caller goes on with the next."""
    with pytest.raises(FileNotFoundError):
        read(folders, "gone.json")


@pytest.mark.root
def test_whose_file_it_is_asked_for_it(folders: Folders) -> None:
    """What another user's request file says of its user is not believed; the daemon's own and root's are."""
    for owner, told in ((65534, pwd.getpwuid(65534).pw_name), (54321, "user 54321"), (0, "me")):
        name = leave(folders, Request(command="cancel", user="me", names=("a.zip",)))
        os.chown(os.path.join(folders.requests, name), owner, -1)
        assert told == read(folders, name).user
        folders.drop_request(name)
