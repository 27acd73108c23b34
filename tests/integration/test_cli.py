"""The command line as people and scripts use it: real processes, a real spool, the real daemon and sandbox."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import PATIENCE, Spool, spool, wait_until
from tests.support.ports import reserve_port
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import PortalSettings, SandboxSettings

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
SCRIPT = Path(sys.executable).with_name("tfwatch")


@pytest.fixture(scope="module")
def portal() -> Iterator[Sandbox]:
    with Sandbox(SandboxSettings(portal=PortalSettings(verdict_delay=0.05))) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path, portal: Sandbox) -> Iterator[Spool]:
    """A spool whose daemon is not started yet."""
    with spool(tmp_path, portal.url, portal.api_key, timezone="America/Sao_Paulo") as made:
        yield made


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory, portal: Sandbox) -> Iterator[Spool]:
    """A spool with a stopped daemon that delivered `job_v1.zip` and saw `reject_v1.zip` refused."""
    with spool(tmp_path_factory.mktemp("delivered"), portal.url, portal.api_key, timezone="America/Sao_Paulo") as made:
        made.start()
        made.drop("job_v1.zip", seed=1)
        made.drop("reject_v1.zip", seed=2)
        made.wait_for("delivered", "job_v1.zip")
        made.wait_for("rejected", "reject_v1.zip")
        assert made.stop() == 0
        yield made


def tfwatch(*words: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("TFWATCH")}
    return subprocess.run(
        [sys.executable, "-m", "tfwatch", *words], capture_output=True, text=True, timeout=60,
        env=clean | (environ or {}),
    )  # fmt: skip


def said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def as_json(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


def everything_in(root: Path) -> dict[str, tuple[int, int]]:
    """Each file's size and time: what must not change by looking."""
    return {str(p): (p.lstat().st_size, p.lstat().st_mtime_ns) for p in sorted(root.rglob("*"))}


# --- usage ----------------------------------------------------------------------------------------------------------


def test_version_names_itself_and_python() -> None:
    """`--version` is one line; the installed script and `python -m tfwatch` are the same program."""
    assert tfwatch("--version").stdout == subprocess.check_output([SCRIPT, "--version"], text=True)
    assert re.fullmatch(r"tfwatch \d\S* \((build [^()]+, )?Python 3\.\d+\.\d+\)\n", tfwatch("--version").stdout)


@pytest.mark.parametrize(
    "command", ["run", "check-config", "status", "why", "requeue", "enable", "disable", "log", "sandbox"]
)
def test_each_command_shows_help_with_an_example(command: str) -> None:
    """Every command explains itself, and its help holds a line that can be typed."""
    done = tfwatch(command, "--help")
    assert 0 == done.returncode
    assert f"  tfwatch {command}" in done.stdout


@pytest.mark.parametrize("words", [("nonsense",), ("why",), ("enable", "fax"), ("log", "-n", "-1"), ("status", "x")])
def test_wrong_usage_is_2(words: tuple[str, ...]) -> None:
    """A command line that can't be understood ends with 2, and nothing was done."""
    assert 2 == tfwatch(*words).returncode


def test_looking_does_not_import_the_clients(delivered: Spool) -> None:
    """`status` stays quick: no client, server or watcher library is imported for it."""
    code = (
        "import sys\n"
        "from tfwatch.cli import app\n"
        f"app(['status', '-c', {str(delivered.config)!r}], standalone_mode=False)\n"
        "heavy = {'boto3', 'gspread', 'httpx', 'uvicorn', 'starlette', 'watchdog', 'loguru', 'rich'}\n"
        "print(sorted(heavy & sys.modules.keys()), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "[]\n" == done.stderr


# --- settings -------------------------------------------------------------------------------------------------------


def test_every_command_refuses_bad_settings_with_78(tmp_path: Path) -> None:
    """All problems are listed with file and line, whichever command is asked."""
    config = tmp_path / "config.yaml"
    config.write_text("spool: {root: /nowhere}\nintake: {verify: maybe}\nlanguage: tlh\n")
    for words in (["check-config"], ["status"], ["requeue", "x"], ["run"]):
        done = tfwatch(words[0], "-c", str(config), *words[1:])
        assert 78 == done.returncode, said(done)
        assert re.search(r":2: intake\.verify.*:3: language", said(done), re.DOTALL)


def test_check_config_as_json_lists_problems(tmp_path: Path) -> None:
    """Programs get file, line, key, message and hint of each problem."""
    config = tmp_path / "config.yaml"
    config.write_text("languag: en\n")
    done = tfwatch("check-config", "--json", "-c", str(config))
    assert 78 == done.returncode
    found = next(problem for problem in as_json(done)["problems"] if problem["key"] == "languag")
    assert (1, "did you mean language?") == (found["line"], found["hint"])


def test_check_config_shows_sources_and_no_secret(place: Spool) -> None:
    """Each value that isn't the default is shown with where it came from; secrets only as set or not set."""
    place.configure(integrations={"gotranscript": {"api_key": "hush-hush-hush"}})
    environ = {"S3_SECRET_KEY": "whisper-whisper", "S3_ACCESS_KEY": "mumble-mumble", "S3_REGION": "sa-east-1"}
    done = tfwatch("check-config", environ=environ | {"TFWATCH_CONFIG": str(place.config)})
    assert 0 == done.returncode
    assert re.search(r"gotranscript\.api_key +set +\(", done.stdout)
    assert re.search(r"s3\.region +sa-east-1 +\(environment S3_REGION\)", done.stdout)
    assert re.search(r"alerts\.urls +not set", done.stdout)
    assert not re.search("hush|whisper|mumble", said(done))


def test_check_config_says_that_the_spool_is_missing_and_makes_nothing(place: Spool) -> None:
    """A spool that isn't there is a warning with the command that makes it."""
    shutil.rmtree(place.root)
    done = place.cli("check-config")
    assert 0 == done.returncode
    assert "does not exist yet; make it: sudo install -d" in done.stdout
    assert not place.root.exists()


# --- status ---------------------------------------------------------------------------------------------------------


def test_status_of_a_stopped_spool(delivered: Spool) -> None:
    """With the daemon stopped, counts and ages come from folders and log, and nothing in the spool changes."""
    before = everything_in(delivered.root)
    done = delivered.cli("status", "--json")
    document = as_json(done)
    assert 0 == done.returncode
    assert not document["daemon"]["running"]
    assert {"outbox", "claimed", "submitted", "delivered", "rejected"} == document["stages"].keys()
    assert 1 == document["stages"]["delivered"]["count"]
    assert document["stages"]["delivered"]["oldest_seconds"] > 0
    assert {"enabled": True, "state": "enabled"}.items() <= document["integrations"]["gotranscript"].items()
    assert "reject_v1.zip" == document["last_problems"][0]["package"]
    assert before == everything_in(delivered.root)


@pytest.mark.parametrize("wound", ["gone", "garbage", "behind"])
def test_status_without_a_good_index(delivered: Spool, tmp_path: Path, wound: str) -> None:
    """Without a usable projection the log itself is read, and again nothing is written."""
    root = tmp_path / "spool"
    shutil.copytree(delivered.root, root)
    index = root / ".tfwatch" / "index.sqlite"
    if wound == "behind":
        from tfwatch.ledger.index import Index
        from tfwatch.ledger.log import read_log

        index.unlink()
        record, position = next(read_log(str(root / "log.csv")))
        behind = Index(str(index))
        behind.apply([record], position)
        behind.close()
    else:
        index.unlink()
        if wound == "garbage":
            index.write_bytes(b"not a database" * 1000)
    config = tmp_path / "config.yaml"
    config.write_text(delivered.config.read_text().replace(str(delivered.root), str(root)))
    before = everything_in(root)
    document = as_json(tfwatch("status", "--json", "-c", str(config)))
    assert "reject_v1.zip" == document["last_problems"][0]["package"]
    assert "was completed" in tfwatch("why", "job_v1.zip", "-c", str(config)).stdout
    assert before == everything_in(root)


def test_status_of_a_fresh_spool_and_of_none(place: Spool) -> None:
    """Before the first start there is nothing to see, and that is fine; without a folder there is a problem."""
    assert 0 == place.cli("status").returncode
    shutil.rmtree(place.root)
    done = place.cli("status")
    assert 1 == done.returncode
    assert "sudo install -d" in done.stderr


def test_status_of_a_running_daemon_with_trouble(place: Spool) -> None:
    """Process, run and oddities are shown; something that needs a person makes it exit 1."""
    place.start()
    os.symlink("/etc/passwd", place.root / "outbox" / "link.zip")
    (place.root / "outbox" / "notes.txt").write_text("x")
    document = wait_until(
        lambda: (seen := as_json(place.cli("status", "--json")))["daemon"]["pid"] and seen, "the daemon shows itself"
    )
    assert place.process is not None
    assert document["daemon"]["running"]
    assert place.process.pid == document["daemon"]["pid"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", document["daemon"]["since"])
    assert 1 == document["ignored"]
    done = place.cli("status")
    assert 1 == done.returncode
    assert "outbox/link.zip: is a symbolic link" in done.stdout


def test_status_survives_settings_that_broke_while_running(place: Spool) -> None:
    """A bad config.yaml is shown with its line, and so is the daemon that goes on with the old one."""
    place.start()
    place.configure(language="tlh")
    done = place.cli("status", "--json")
    assert 78 == done.returncode
    assert as_json(done)["daemon"]["running"]
    assert any("language" in problem for problem in as_json(done)["config_problems"])


# --- why ------------------------------------------------------------------------------------------------------------


def test_why_tells_the_story_by_name_path_digits_trace_and_order(delivered: Spool) -> None:
    """One package, found by whatever a person has at hand."""
    row = next(row for row in delivered.rows("job_v1.zip") if row["event"] == "COMPLETED")
    words = ("job_v1.zip", "./delivered/job_v1.zip", row["sha256"][:8].upper(), row["trace_id"], row["order_id"])
    stories = [as_json(delivered.cli("why", "--json", word))["packages"] for word in words]
    assert [stories[0]] * len(words) == stories
    assert ["ATTEMPTED", "ATTEMPTED", "ACCEPTED", "COMPLETED"] == [line["event"] for line in stories[0][0]["story"]]
    done = delivered.cli("why", "job_v1.zip")
    assert 0 == done.returncode
    assert "Now: in delivered/" in done.stdout


def test_why_of_an_unknown_word_offers_names_like_it(delivered: Spool) -> None:
    """Nothing known: exit 1, with the names that may have been meant."""
    done = delivered.cli("why", "jobb_v1.zip")
    assert 1 == done.returncode
    assert "job_v1.zip" in done.stderr
    assert "job_v1.zip" in as_json(delivered.cli("why", "--json", "jobb_v1.zip"))["near"]


def test_why_explains_files_the_log_has_never_seen(place: Spool) -> None:
    """A file still in outbox/ is explained: ignored, odd, unfinished, or waiting for a daemon."""
    outbox = place.root / "outbox"
    whole = place.drop("whole.zip").read_bytes()
    (outbox / "half.zip").write_bytes(whole[:100])
    (outbox / "later.part").write_bytes(b"x")
    os.mkfifo(outbox / "pipe.zip")
    for name, words in {
        "whole.zip": "no daemon is running",
        "half.zip": "it is not finished",
        "later.part": "it is ignored",
        "outbox/pipe.zip": "it is a FIFO",
    }.items():
        done = place.cli("why", name)
        assert 0 == done.returncode
        assert words in done.stdout


def test_hostile_names_send_nothing_to_the_terminal(place: Spool) -> None:
    """Control characters and undecodable bytes of a name are spelled out wherever it is shown."""
    name = os.fsdecode(b"evil\x1b]0;owned\x07\xff[red].zip")
    place.start()
    (place.root / "outbox" / name).write_bytes(b"")
    place.drop(name.replace("evil", "reject"))
    wait_until(lambda: place.names("rejected"), "the package was refused")
    for words in (["status"], ["why", name], ["why", name.replace("evil", "reject")], ["why", name + "x"],
                  ["requeue", name], ["log"], ["log", "--json"]):  # fmt: skip
        shown = said(place.cli(*words))
        assert not CONTROL.search(shown), (words, shown)
        assert words[0] == "log" or "\\x1b]0;owned\\x07\\xff[red].zip" in shown


# --- asking the daemon ----------------------------------------------------------------------------------------------


def test_requeue_guards_against_second_orders(place: Spool) -> None:
    """Delivered needs --force; refused is put back at once; a duplicate says what it would be refused for."""
    place.start()
    place.drop("job_v1.zip", seed=1)
    place.drop("reject_v1.zip", seed=2)
    place.wait_for("delivered", "job_v1.zip")
    place.wait_for("rejected", "reject_v1.zip")
    done = place.cli("requeue", "reject_v1.zip", "job_v1.zip")
    assert 1 == done.returncode
    assert "for a second order of it: tfwatch requeue --force job_v1.zip" in done.stderr
    assert "REQUEUED" not in place.events()
    done = place.cli("requeue", "--json", "reject_v1.zip")
    assert (0, True) == (done.returncode, as_json(done)["taken"])
    wait_until(lambda: place.events("reject_v1.zip").count("REFUSED") == 2, "it was refused once more")
    place.drop("twin_v1.zip", seed=1)
    place.wait_for("rejected", "twin_v1.zip")
    assert "duplicate" in place.cli("requeue", "twin_v1.zip").stderr
    assert 0 == place.cli("requeue", "--force", "twin_v1.zip").returncode
    place.wait_for("delivered", "twin_v1.zip")


def test_requeue_of_the_unknown_and_the_vanished(delivered: Spool) -> None:
    """What isn't known is answered with names like it, and leaves no request."""
    done = delivered.cli("requeue", "rejekt_v1.zip")
    assert 1 == done.returncode
    assert "reject_v1.zip" in done.stderr
    assert [] == os.listdir(delivered.root / ".tfwatch" / "requests")


def test_requests_wait_for_the_next_start(place: Spool) -> None:
    """With the daemon stopped, `disable` is noted and taken at the start; the reason is in the log."""
    place.start()
    place.stop()
    done = place.cli("disable", "gotranscript", "--reason", "the portal moves")
    assert 0 == done.returncode
    assert "next start" in done.stdout
    place.start()
    wait_until(lambda: "DISABLED" in place.events(), "the request was taken")
    assert any("the portal moves" in row["detail"] for row in place.rows())


def test_disable_and_enable_show_where_it_stands(place: Spool) -> None:
    """The state after the command and the source that wins are told, also when config.yaml has it off."""
    place.start()
    done = place.cli("disable", "gotranscript", "--json", "--reason", "holiday")
    assert {"taken": True, "state": "disabled", "enabled": False, "reason": "holiday"}.items() <= as_json(done).items()
    place.drop("waits.zip", seed=7)
    assert "gotranscript is disabled: holiday" in place.cli("why", "waits.zip").stdout
    done = place.cli("enable", "gotranscript")
    assert 0 == done.returncode
    assert re.search(r"gotranscript: enabled \(", done.stdout)
    place.wait_for("delivered", "waits.zip")
    done = place.cli("enable", "s3")
    assert 1 == done.returncode
    assert "enabled, but default has it off" in done.stdout


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the spool belongs to somebody else")
def test_root_leaves_requests_the_daemons_user_can_read(delivered: Spool) -> None:
    """Asked with sudo, a request belongs to the spool's owner, and looking leaves nothing of root's behind."""
    # Not below pytest's folder, which every run of pytest on this machine shuts again for others.
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        root = Path(home) / "spool"
        shutil.copytree(delivered.root, root)
        for path in (root, *root.rglob("*")):
            os.chown(path, 12_345, 12_345)
        config = Path(home) / "config.yaml"
        config.write_text(delivered.config.read_text().replace(str(delivered.root), str(root)))
        assert 0 == tfwatch("status", "-c", str(config)).returncode
        assert 0 == tfwatch("disable", "gotranscript", "-c", str(config)).returncode
        assert 1 == len(os.listdir(root / ".tfwatch" / "requests"))
        assert {12_345} == {path.lstat().st_uid for path in root.rglob("*")}


# --- log ------------------------------------------------------------------------------------------------------------


def test_log_is_the_file_itself(delivered: Spool) -> None:
    """Without options the very bytes of log.csv come out; -n gives the header and the last rows."""
    raw = (delivered.root / "log.csv").read_bytes()
    command = [sys.executable, "-m", "tfwatch", "log", "-c", str(delivered.config)]
    assert raw == subprocess.check_output(command)
    lines = raw.splitlines(keepends=True)
    assert lines[0] + b"".join(lines[-2:]) == subprocess.check_output([*command, "-n", "2"])


def test_log_for_brazilian_excel(delivered: Spool) -> None:
    """BOM, semicolons, CRLF, day first in the configured time zone; all cells but the date as in log.csv."""
    command = [sys.executable, "-m", "tfwatch", "log", "--excel", "-c", str(delivered.config)]
    text = subprocess.check_output(command).decode("utf-8")
    assert text.startswith("\ufeffseq;at;")
    shown = list(csv.DictReader(io.StringIO(text[1:]), delimiter=";"))
    rows = delivered.rows()
    assert [row | {"at": ""} for row in rows] == [row | {"at": ""} for row in shown]
    hour = (int(rows[0]["at"][11:13]) - 3) % 24
    assert re.fullmatch(rf"\d\d/\d\d/\d{{4}} {hour:02d}:\d\d:\d\d", shown[0]["at"])


def test_log_as_json_lines(delivered: Spool) -> None:
    """One object a line, numbers as numbers, empty cells null."""
    shown = [json.loads(line) for line in delivered.cli("log", "--json").stdout.splitlines()]
    assert list(range(1, len(shown) + 1)) == [row["seq"] for row in shown]
    accepted = next(row for row in shown if row["event"] == "ACCEPTED")
    assert (201, None) == (accepted["code"], shown[0]["code"])


def test_log_follow_shows_new_rows_as_they_come(place: Spool) -> None:
    """`--follow` goes on until it is interrupted, and then ends well."""
    place.start()
    command = [sys.executable, "-m", "tfwatch", "log", "--json", "--follow", "-c", str(place.config)]
    # Tests that run in a shell's background would hand on a SIGINT that is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        signal.signal(signal.SIGINT, before)
        try:
            assert follower.stdout is not None
            place.drop("job_v1.zip")
            assert "ATTEMPTED" == json.loads(follower.stdout.readline())["event"]
            follower.send_signal(signal.SIGINT)
            assert 0 == follower.wait(PATIENCE)
        finally:
            follower.kill()


def test_log_before_the_first_row(place: Spool) -> None:
    """No log yet: said, with exit 1."""
    done = place.cli("log")
    assert 1 == done.returncode
    assert "there is no log yet" in done.stderr


# --- run and sandbox ------------------------------------------------------------------------------------------------


def test_a_second_daemon_is_refused_with_75(place: Spool) -> None:
    """One spool, one daemon."""
    place.start()
    assert 75 == place.cli("run").returncode


def test_sandbox_prints_settings_that_work(tmp_path: Path) -> None:
    """The printed snippet is a valid config.yaml, and faults given on the command line are in force."""
    account = tmp_path / "account.json"
    port = reserve_port()
    command = [sys.executable, "-m", "tfwatch", "sandbox", "--port", str(port), "--sheets", "--service-account",
               str(account), "--fault", "status:status=503,times=1", "--verdict-delay", "0.1"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            snippet = "".join(server.stdout.readline() for _ in range(3))
            assert 0o600 == account.stat().st_mode & 0o777
            config = tmp_path / "config.yaml"
            config.write_text(f"spool: {{root: {tmp_path}}}\n{snippet}")
            assert 0 == tfwatch("check-config", "-c", str(config)).returncode
            import httpx

            answer = httpx.post(f"http://127.0.0.1:{port}/deliveries", headers={"Authorization": "Bearer sandbox-key"})
            assert 503 == answer.status_code
            server.terminate()
            assert 0 == server.wait(PATIENCE)
        finally:
            server.kill()


def test_sandbox_refuses_faults_it_does_not_know() -> None:
    """A misspelt fault is wrong usage, and names what was meant."""
    done = tfwatch("sandbox", "--port", "0", "--fault", "stattus:status=503")
    assert 2 == done.returncode
    assert "stattus" in done.stderr
