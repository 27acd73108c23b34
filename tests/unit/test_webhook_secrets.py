"""The file with secrets: read in both forms, refused when others can read it, rotated whole and at once."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tfwatch.cli import app
from tfwatch.webhook_rotation import Rotation, rotate
from tfwatch.webhook_secrets import Kind, SecretsFile, SecretsUnusable, load, troubles

NOW = datetime(2025, 11, 13, 10, 35, 33, tzinfo=UTC)
DAY = timedelta(days=1)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "webhook_integrations.json"


def write(path: Path, document: object, mode: int = 0o600) -> None:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    path.chmod(mode)


def turn(path: Path, integration: str = "gotranscript", *, kind: Kind = "secret", now: datetime = NOW) -> Rotation:
    return rotate(str(path), integration, kind=kind, overlap=DAY, now=now, like=str(path.parent))


def valid(path: Path, now: datetime, integration: str = "gotranscript", kind: Kind = "secret") -> tuple[str, ...]:
    return load(str(path))[integration].valid(kind, now)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_the_flat_form_is_read_and_upgraded_by_the_first_rotation(path: Path) -> None:
    """`{"integration": "secret"}`: every secret stays valid, and is as old as the file was."""
    write(path, {"gotranscript": "old-one", "upstream": "other"})
    os.utime(path, (NOW.timestamp() - 864_000,) * 2)
    assert ("old-one",) == valid(path, NOW)
    done = turn(path)
    assert (done.value, "old-one") == valid(path, NOW)
    assert ("other",) == valid(path, NOW, "upstream")
    document = json.loads(path.read_text())
    assert ["created_at", "fingerprint", "value"] == sorted(document["upstream"]["secret"])
    assert NOW - 10 * DAY == load(str(path))["upstream"].secret[0].created_at
    assert NOW - 10 * DAY == load(str(path))["gotranscript"].secret[1].created_at


def test_no_file_is_no_trouble(path: Path) -> None:
    """Nobody is known, and nothing is wrong."""
    assert {} == load(str(path))
    assert () == troubles(str(path), now=NOW, max_age_days=90)


@pytest.mark.parametrize(
    ("mode", "is_fine"),
    [
        *((mode, True) for mode in (0o600, 0o640, 0o400, 0o440)),
        *((mode, False) for mode in (0o644, 0o604, 0o660, 0o641, 0o602, 0o777)),
    ],
)
def test_what_others_can_read_or_change_turns_webhooks_off(path: Path, mode: int, is_fine: bool) -> None:
    """0600 or 0640 and stricter; the words name the file, its mode and the way out."""
    write(path, {"gotranscript": "s" * 20}, mode)
    found = troubles(str(path), now=datetime.now(UTC), max_age_days=90)
    if is_fine:
        assert () == found
        return
    (trouble,) = found
    assert "exposed" == trouble.kind
    for word in (str(path), f"{mode:04o}", "chmod 640", "rotate-secret", "deliveries go on"):
        assert word in trouble.message
    with pytest.raises(SecretsUnusable):
        turn(path)
    assert {"gotranscript": "s" * 20} == json.loads(path.read_text())


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "null", '{"a": 5}', '{"a": ""}', '{"a": {"secret": {}}}', '{"a b": "x"}', '{"../x": "x"}', "{"),
        *("[" * 9999, '{"a": {"secret": {"value": "x", "created_at": 5}}}'),
        '{"a": {"secret": {"value": "x", "created_at": "then"}}}',
    ],
)
def test_a_file_that_makes_no_sense_turns_webhooks_off(path: Path, text: str) -> None:
    """An empty secret above all must never be one that fits; no value is quoted."""
    write(path, text)
    (trouble,) = troubles(str(path), now=NOW, max_age_days=90)
    assert "unusable" == trouble.kind
    assert str(path) in trouble.message


def test_what_is_no_regular_file_is_not_read(path: Path) -> None:
    """A FIFO would hang the reader."""
    os.mkfifo(path, 0o600)
    (trouble,) = troubles(str(path), now=NOW, max_age_days=90)
    assert "unusable" == trouble.kind


@given(st.binary(max_size=200))
def test_no_octets_crash_it(tmp_path_factory: pytest.TempPathFactory, octets: bytes) -> None:
    """Whatever stands in the file: it is read, or told."""
    path = tmp_path_factory.getbasetemp() / "octets.json"
    path.write_bytes(octets)
    path.chmod(0o600)
    troubles(str(path), now=NOW, max_age_days=90)


def test_it_is_read_again_when_it_changes(path: Path) -> None:
    """A rotation, an edit, a mode, its removal: each counts with the next look."""
    file = SecretsFile(str(path))
    assert {} == file.keys()
    done = turn(path)
    assert (done.value,) == file.keys()["gotranscript"].valid("secret", NOW)
    path.chmod(0o644)
    with pytest.raises(SecretsUnusable):
        file.keys()
    path.chmod(0o600)
    again = turn(path)
    assert (again.value, done.value) == file.keys()["gotranscript"].valid("secret", NOW)
    path.unlink()
    assert {} == file.keys()


def test_secrets_that_are_too_old_are_told_of(path: Path) -> None:
    """One line for each, with the command that mends it; the day of the limit itself is fine."""
    turn(path)
    turn(path, "upstream", kind="path_token")
    assert () == troubles(str(path), now=NOW + 90 * DAY, max_age_days=90)
    found = troubles(str(path), now=NOW + 91 * DAY, max_age_days=90)
    assert [("old", "gotranscript"), ("old", "upstream")] == [(t.kind, t.integration) for t in found]
    assert "91 days old" in found[0].message
    assert "tfwatch rotate-secret gotranscript" in found[0].message
    assert "tfwatch rotate-secret upstream --path-token" in found[1].message
    turn(path, now=NOW + 91 * DAY)
    assert 1 == len(troubles(str(path), now=NOW + 91 * DAY, max_age_days=90))


# --- rotating ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["secret", "path_token"])
def test_the_old_one_is_valid_for_the_overlap(path: Path, kind: Kind) -> None:
    """Then it is not; a third one within that time ends the first at once, and says so."""
    first, second = turn(path, kind=kind), turn(path, kind=kind, now=NOW + DAY / 2)
    assert None is first.previous
    assert (second.value, first.value) == valid(path, NOW + DAY, kind=kind)
    assert (second.value,) == valid(path, NOW + 3 * DAY / 2, kind=kind)
    third = turn(path, kind=kind, now=NOW + DAY)
    assert (third.value, second.value) == valid(path, NOW + DAY, kind=kind)
    assert ("", first.fingerprint) == (second.dropped, third.dropped)
    assert 3 == len({first.value, second.value, third.value})


def test_without_an_overlap_the_old_one_ends_at_once(path: Path) -> None:
    """For a secret that is known to others."""
    turn(path)
    done = rotate(str(path), "gotranscript", kind="secret", overlap=timedelta(0), now=NOW, like=str(path))
    assert (done.value,) == valid(path, NOW)


def test_a_secret_and_a_token_of_one_integration_don_t_touch_each_other(path: Path) -> None:
    """Nor what somebody wrote beside them."""
    write(path, {"gotranscript": {"note": "theirs"}})
    secret, token = turn(path), turn(path, kind="path_token")
    assert ((secret.value,), (token.value,)) == (valid(path, NOW), valid(path, NOW, kind="path_token"))
    assert "theirs" == json.loads(path.read_text())["gotranscript"]["note"]


def test_mode_and_owner_are_kept(path: Path) -> None:
    """What was 0640 stays so; a new file is as readable as config.yaml is to its group, and to nobody else."""
    config = path.with_name("config.yaml")
    for mode, meant in ((0o600, 0o600), (0o640, 0o640), (0o644, 0o640)):
        config.touch()
        config.chmod(mode)
        rotate(str(path), "a", kind="secret", overlap=DAY, now=NOW, like=str(config))
        assert meant == stat.S_IMODE(path.stat().st_mode)
        path.unlink()
    write(path, {}, 0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 23456)
    before = path.stat()
    turn(path)
    after = path.stat()
    assert (before.st_mode, before.st_uid, before.st_gid) == (after.st_mode, after.st_uid, after.st_gid)
    assert before.st_ino != after.st_ino
    assert [path.name] == [name for name in os.listdir(path.parent) if name != "config.yaml"]


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    """The file it leads to is replaced, in its own folder."""
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "secrets.json"
    write(target, {})
    path.symlink_to(target)
    done = turn(path)
    assert path.is_symlink()
    assert (done.value,) == valid(target, NOW)


def test_rotations_at_once_lose_nothing(path: Path) -> None:
    """Ten integrations on ten threads: each has its secret, and readers never saw half a file."""
    write(path, {})
    done: list[Rotation] = []
    threads = [threading.Thread(target=lambda n=n: done.append(turn(path, f"i{n}"))) for n in range(10)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        load(str(path))
    for thread in threads:
        thread.join()
    assert {each.integration: (each.value,) for each in done} == {
        name: keys.valid("secret", NOW) for name, keys in load(str(path)).items()
    }


@pytest.mark.parametrize("call", ["fchmod", "fsync", "rename"])
def test_what_goes_wrong_changes_nothing(path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fails at any step: the old file is there, whole, and no other."""
    turn(path)
    before = path.read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"tfwatch.webhook_rotation.os.{call}", fail)
    with pytest.raises(OSError, match="No space"):
        turn(path)
    monkeypatch.undo()
    assert before == path.read_bytes()
    assert [path.name] == os.listdir(path.parent)


def test_nothing_shows_a_secret(path: Path) -> None:
    """Neither a repr nor a trouble's words."""
    write(path, {"gotranscript": {"secret": {"value": "CANARY-1", "created_at": "2020-01-01T00:00:00.000Z"}}})
    keys = load(str(path))
    said = repr(keys) + repr(turn(path)) + repr(troubles(str(path), now=NOW, max_age_days=1))
    write(path, '{"gotranscript": {"secret": {"value": "CANARY-2", "created_at": "CANARY-3"}}, "b": "CANARY-4"')
    said += repr(troubles(str(path), now=NOW, max_age_days=1))
    assert "CANARY" not in said


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    found = tmp_path / "config.yaml"
    found.write_text("integrations: {gotranscript: {base_url: 'http://127.0.0.1:1', api_key: k}}\n")
    found.chmod(0o600)
    return found


def run(config: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["rotate-secret", "-c", str(config), *words])
    return done.exit_code, done.output


def test_the_new_secret_is_shown_once_with_what_to_do(config: Path, path: Path) -> None:
    """In words: the secret, where to enter it, and until when the old one is valid."""
    code, said = run(config, "gotranscript")
    assert 0 == code, said
    (first,) = valid(path, datetime.now(UTC))
    assert 1 == said.count(first)
    code, said = run(config, "gotranscript", "--overlap", "7d")
    assert 0 == code
    new, old = valid(path, datetime.now(UTC))
    assert (1, 0, first) == (said.count(new), said.count(old), old)
    assert "What to do: enter it at gotranscript" in said
    assert "is valid too" in said


def test_the_script_is_the_same_code(config: Path, path: Path) -> None:
    """Its document for programs, with stable keys; a path token says so."""
    script = ROOT / "packaging" / "scripts" / "rotate_webhook_secret.py"
    ran = subprocess.run(
        [sys.executable, str(script), "-c", str(config), "upstream", "--path-token", "--json"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, check=True,
    )  # fmt: skip
    document = json.loads(ran.stdout)
    assert valid(path, datetime.now(UTC), "upstream", "path_token") == (document["secret"],)
    assert ("upstream", "path_token", None, str(path)) == (
        document["integration"], document["kind"], document["previous_valid_until"], document["file"],
    )  # fmt: skip
    assert {"fingerprint", "created_at", "previous_fingerprint"} <= document.keys()
    assert run(config, "upstream", "--json")[0] == 0


@pytest.mark.parametrize("words", [["../x"], ["a b"], [""], ["a", "--overlap", "soon"], ["a", "--overlap", "999d"]])
def test_wrong_usage_changes_nothing(config: Path, path: Path, words: list[str]) -> None:
    """Exit 2, and no file."""
    assert 2 == run(config, *words)[0]
    assert not path.exists()


def test_a_file_that_can_t_be_used_is_told(config: Path, path: Path) -> None:
    """Exit 1, with what to do."""
    write(path, {"gotranscript": "CANARY"}, 0o644)
    code, said = run(config, "gotranscript")
    assert 1 == code
    assert "chmod 640" in said
    assert "nothing was changed" in said
    assert "CANARY" not in said
