"""The demo from start to end: services up, packages dropped, watched, accounted for, everything down again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import yaml
from rich.console import Console

from tfwatch.demo import audit, ending, sight
from tfwatch.demo.audit import Evidence, Finding
from tfwatch.demo.drops import dropping
from tfwatch.demo.patience import Interrupted, Patience
from tfwatch.demo.samples import Sample, samples
from tfwatch.demo.servers import Bucket, DemoFailed, free_ports, process, seaweedfs, wait_for_bucket
from tfwatch.demo.table import LiveTable
from tfwatch.model import Stage
from tfwatch.sandbox.server import Sandbox
from tfwatch.sandbox.settings import PortalSettings, SandboxSettings
from tfwatch.spool.folders import Folders

LIMIT_SECONDS: Final = 120.0
"""From the first drop: every package must have ended where it should by then."""

_READY_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.1
_LOG_LINES: Final = 25
_WIDTH_WITHOUT_TERMINAL: Final = 140
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True, kw_only=True)
class _House:
    """Everything that runs, and where it is."""

    home: str
    folders: Folders
    config: str
    page: str
    sandbox: Sandbox
    bucket: Bucket
    daemon: subprocess.Popen[bytes]
    output: str


def run(*, keep: bool = False, as_json: bool = False) -> int:
    """Run the demo; returns the exit code: 0 only if each package ended where it should.

    `keep`: leave everything running until Ctrl-C, and the folders for ever. `as_json`: the outcome as one JSON
    document on stdout, and what happens meanwhile on stderr.
    """
    console = Console(stderr=as_json, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(stderr=as_json, highlight=False, width=_WIDTH_WITHOUT_TERMINAL)
    try:
        with Patience() as patience:
            return _run(console, patience, keep=keep, as_json=as_json)
    except DemoFailed as failure:
        console.print(f"The demo failed: {failure}", style="red", markup=False, soft_wrap=True)
        return 1
    except Interrupted:
        console.print("Stopped; nothing is left running.")
        return 130


def _run(console: Console, patience: Patience, *, keep: bool, as_json: bool) -> int:
    began = time.monotonic()
    with ExitStack() as stack:
        house = _open_house(stack, console, patience, keep=keep)
        console.print(f"All up after {time.monotonic() - began:.0f} s. Now packages are dropped into the outbox.\n")
        dropped = samples()
        seen, findings, strays = _watch(house, console, patience, dropped)
        document = ending.as_json(findings, strays, seen) | {"seconds": round(time.monotonic() - began, 1)}
        _tell(house, console, seen, findings, strays)
        if as_json:
            print(json.dumps(document, ensure_ascii=False, indent=1), flush=True)
        if keep:
            _stay(house, console, patience)
        code = _stop_daemon(house, console)
    if not document["ok"] or code != 0:
        return 1
    console.print(
        f"\nAll {len(dropped)} packages ended where they should, {document['seconds']:.0f} s after the start.",
        style="bold green",
    )
    return 0


# --- services -------------------------------------------------------------------------------------------------------


def _open_house(stack: ExitStack, console: Console, patience: Patience, *, keep: bool) -> _House:
    """Start the slow S3 server first and the rest meanwhile; the daemon last, when there is someone to talk to."""
    home = stack.enter_context(_home(console, keep=keep))
    console.print("Starting a local S3 (SeaweedFS), a transcription portal, a Sheets service and the daemon …")
    bucket, weed = stack.enter_context(seaweedfs(os.path.join(home, "s3")))
    portal = PortalSettings(verdict_delay=2.5, work_seconds=0.3)
    sandbox = stack.enter_context(Sandbox(SandboxSettings(portal=portal)))
    account = os.path.join(home, "service-account.json")
    _write_private(account, json.dumps(sandbox.service_account()))
    folders = Folders(os.path.join(home, "spool"))
    os.mkdir(folders.root)
    web_port = free_ports(1)[0]
    config = os.path.join(home, "config.yaml")
    _write_private(config, yaml.safe_dump(_settings(folders, sandbox, bucket, account, web_port), sort_keys=False))
    wait_for_bucket(bucket, weed, patience)
    output = os.path.join(home, "daemon.log")
    command = [sys.executable, "-m", "tfwatch", "run", "-c", config]
    daemon = stack.enter_context(process(command, output, _environment()))
    house = _House(
        home=home,
        folders=folders,
        config=config,
        page=f"http://127.0.0.1:{web_port}/",
        sandbox=sandbox,
        bucket=bucket,
        daemon=daemon,
        output=output,
    )
    _wait_until_it_watches(house, patience)
    return house


def _settings(folders: Folders, sandbox: Sandbox, bucket: Bucket, account: str, web_port: int) -> dict[str, Any]:
    """config.yaml, with everything on and quick enough to look at."""
    return {
        "spool": {"root": folders.root, "rescan_seconds": 5, "min_free_bytes": 0},
        "integrations": {
            "gotranscript": {"base_url": sandbox.url, "api_key": sandbox.api_key, "poll_seconds": 0.5},
            "s3": {
                "enabled": True,
                "endpoint_url": bucket.url,
                "bucket": bucket.name,
                "access_key": bucket.access_key,
                "secret_key": bucket.secret_key,
            },
            "sheets": {
                "enabled": True,
                "spreadsheet_id": sandbox.spreadsheet_id,
                "service_account_json": account,
                "api_base_url": sandbox.url,
                "batch_seconds": 1,
            },
        },
        "web": {"enabled": True, "port": web_port},
    }


def _environment() -> Mapping[str, str]:
    """Nothing in this terminal's environment (GOTRANSCRIPT_API_KEY, AWS_…) may turn the demo to a real service."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"PYTHONUTF8": "1"}


def _wait_until_it_watches(house: _House, patience: Patience) -> None:
    def watches() -> bool:
        if house.daemon.poll() is not None:
            raise DemoFailed(f"the daemon ended at once with code {house.daemon.returncode}.{_daemon_log(house)}")
        return any(" watching " in line for line in sight.last_lines(house.output, _LOG_LINES))

    if not patience.until(watches, _READY_SECONDS):
        raise DemoFailed(f"the daemon did not start within {_READY_SECONDS:.0f} s.{_daemon_log(house)}")


def _stop_daemon(house: _House, console: Console) -> int:
    """A clean stop is part of the demo; returns the daemon's exit code, never 0 if it ended before."""
    if house.daemon.poll() is not None:
        return 1
    house.daemon.send_signal(signal.SIGTERM)
    try:
        code = house.daemon.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        console.print(f"The daemon did not stop within {_STOP_SECONDS:.0f} s.{_daemon_log(house)}", markup=False)
        return 1
    if code != 0:
        console.print(f"The daemon ended with code {code}.{_daemon_log(house)}", markup=False)
    return code


def _daemon_log(house: _House) -> str:
    lines = "\n".join(sight.last_lines(house.output, _LOG_LINES))
    return f" The daemon's last log lines:\n{lines}"


@contextmanager
def _home(console: Console, *, keep: bool) -> Iterator[str]:
    home = tempfile.mkdtemp(prefix="tfwatch-demo-")
    try:
        yield home
    finally:
        if keep:
            console.print(f"Everything is stopped. The folders are kept: {home}", soft_wrap=True)
        else:
            shutil.rmtree(home)


def _write_private(path: str, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


# --- the packages ---------------------------------------------------------------------------------------------------


def _watch(
    house: _House, console: Console, patience: Patience, dropped: Sequence[Sample]
) -> tuple[Evidence, list[Finding], list[str]]:
    """Drop the samples and watch them, until all is as it should be, the time is up, or the daemon ends."""
    s3 = house.bucket.client()
    notes = {sample.name: sample.note for sample in dropped}
    deadline = time.monotonic() + LIMIT_SECONDS
    with LiveTable(console) as table, dropping(dropped, house.folders, house.home):
        while True:
            rows = sight.read_rows(house.folders)
            sights = sight.look(house.folders, rows, notes)
            table.show(sights, f"log.csv has {len(rows)} rows")
            over = time.monotonic() > deadline or house.daemon.poll() is not None
            if over or all(one.done == one.steps for one in sights):
                seen = audit.gather(house.folders, dropped, s3, house.bucket, house.sandbox)
                findings, strays = audit.judge(dropped, seen), audit.strays(dropped, seen)
                if over or not (strays or any(finding.problems for finding in findings)):
                    return seen, findings, strays
            patience.sleep(_LOOK_SECONDS)


# --- telling --------------------------------------------------------------------------------------------------------


def _tell(house: _House, console: Console, seen: Evidence, findings: Sequence[Finding], strays: Sequence[str]) -> None:
    ending.show(console, house.folders, seen, house.bucket.name)
    name = next(finding.sample.name for finding in findings if finding.sample.delivered and not finding.sample.slowly)
    ending.show_why(console, name, _why(house, name))
    ending.show_verdict(console, findings, strays)
    code = house.daemon.poll()
    if code is not None or strays or any(finding.problems for finding in findings):
        why = f"Not within {LIMIT_SECONDS:.0f} s." if code is None else f"The daemon ended with code {code}."
        words = f"\n{why}{_daemon_log(house)}"
        console.print(words, style="red", markup=False, soft_wrap=True)


def _why(house: _House, name: str) -> str:
    command = [sys.executable, "-m", "tfwatch", "why", "-c", house.config, name]
    told = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)  # noqa: S603
    return told.stdout + told.stderr


def _stay(house: _House, console: Console, patience: Patience) -> None:
    """Say what there is to play with, and wait for Ctrl-C."""
    tfwatch = os.path.join(os.path.dirname(sys.executable), "tfwatch")
    words = f"""
Everything goes on running until Ctrl-C.

  status page     {house.page}
  spool           {house.folders.root}
  configuration   {house.config}   (edit it: it is taken over while running)
  daemon's log    {house.output}
  portal, sheets  {house.sandbox.url}   (look inside: {house.sandbox.url}/_sandbox/orders, …/sheets, …/requests)
  S3              {house.bucket.url}   bucket {house.bucket.name}

Try, in another terminal:

  export TFWATCH_CONFIG={house.config}
  cp some.zip {house.folders.folder(Stage.OUTBOX)}/
  {tfwatch} status
  {tfwatch} why some.zip
  {tfwatch} log --follow
  curl -X PUT {house.sandbox.url}/_sandbox/faults -d '[{{"kind": "status", "status": 503, "times": 5}}]'
"""
    console.print(words, markup=False, soft_wrap=True)
    try:
        while house.daemon.poll() is None:
            patience.sleep(_LOOK_SECONDS)
    except Interrupted:
        return
    raise DemoFailed(f"the daemon ended by itself with code {house.daemon.returncode}.{_daemon_log(house)}")
