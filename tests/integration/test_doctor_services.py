"""`tfwatch doctor` on all that answers, each check made to fail for real: the daemon, ports, services, secrets."""

from __future__ import annotations

import json
import os
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Spool
from tests.support.examined import case_of, only
from tests.support.http import ScriptedServer, Step, refusing_address, reply
from tests.support.ports import reserve_port
from tests.support.receivers import FINE, json_url, mail_server, mail_url, words
from tests.support.s3_servers import ACCESS_KEY, SECRET_KEY
from tfwatch.doctor import (
    alert_check,
    daemon_check,
    service_check,
    settings_check,
    webhook_check,
)
from tfwatch.doctor.case import Case
from tfwatch.doctor.finding import Finding
from tfwatch.sandbox.server import Sandbox
from tfwatch.spool import lock
from tfwatch.webhook_rotation import rotate

EMPTY_LIST = {"items": []}


@pytest.fixture
def case(spool: Spool) -> Case:
    """A spool whose daemon was never started, with all its folders."""
    found = case_of(spool)
    found.folders.prepare()
    return found


# --- the daemon and its port ----------------------------------------------------------------------------------------


def test_no_daemon_is_a_warning(case: Case) -> None:
    """Packages wait; that is not this machine's fault."""
    assert "packages wait" in only(daemon_check.daemon(case), "warning").seen


def test_a_daemon_that_shows_nothing_is_told(case: Case) -> None:
    """It holds the lock: it starts, or it can't write."""
    with lock.hold(case.folders.lock):
        assert f"process {os.getpid()}" in only(daemon_check.daemon(case), "warning").seen


def test_a_daemon_whose_loop_stands_still_fails(case: Case) -> None:
    """What it shows of itself is minutes old."""
    state = Path(case.folders.state)
    with lock.hold(case.folders.lock):
        state.write_text('{"exec_id": "x", "problems": []}')
        only(daemon_check.daemon(case), "ok")
        then = time.time() - 600
        os.utime(state, (then, then))
        assert "finished no pass" in only(daemon_check.daemon(case), "failure").seen
        state.write_text('{"exec_id": "x", "problems": ["outbox/a.zip: it rains"]}')
        assert "it rains" in only(daemon_check.daemon(case), "warning").seen


def test_a_taken_port_is_found(spool: Spool) -> None:
    """Another program listens where the status page should be."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        spool.configure(web={"enabled": True, "port": other.getsockname()[1]})
        found = only(daemon_check.web(case_of(spool)), "failure")
    assert "taken by another program" in found.seen


def test_a_free_port_passes(spool: Spool) -> None:
    """Nobody listens there."""
    port = reserve_port()
    spool.configure(web={"enabled": True, "port": port})
    only(daemon_check.web(case_of(spool)), "ok")


def test_an_address_of_another_machine_is_found(spool: Spool) -> None:
    """Nobody can listen there, so the daemon couldn't either."""
    spool.configure(web={"enabled": True, "host": "192.0.2.1", "expose": True, "token": "t" * 32})
    assert "no address of ours" in only(daemon_check.web(case_of(spool)), "failure").what_to_do


@pytest.mark.parametrize(("code", "result"), [(200, "ok"), (503, "warning"), (404, "failure")])
def test_the_running_daemons_server_is_asked(spool: Spool, code: int, result: str) -> None:
    """Its health is an answer; somebody else's 404 is none."""
    case = case_of(spool)
    case.folders.prepare()
    with ScriptedServer(Step(send=reply(code))) as server, lock.hold(case.folders.lock):
        spool.configure(web={"enabled": True, "port": server.port})
        only(daemon_check.web(case_of(spool)), result)


# --- services -------------------------------------------------------------------------------------------------------


def asked(spool: Spool) -> dict[str, Finding]:
    """What was found of the services and the clock."""
    case = case_of(spool)
    services = service_check.connect(case)
    services.ask()
    return {found.check: found for found in (*service_check.answers(case, services), *service_check.clock(services))}


def told_by(spool: Spool, code: int = 200, **headers: str) -> dict[str, Finding]:
    """The same, with a service that gives this answer."""
    with ScriptedServer(Step(send=reply(code, EMPTY_LIST, **headers))) as server:
        spool.configure(integrations={"gotranscript": {"base_url": server.url}})
        return asked(spool)


def at(moment: datetime) -> dict[str, str]:
    return {"Date": format_datetime(moment, usegmt=True)}


def test_a_wrong_key_at_the_portal_is_found(spool: Spool) -> None:
    """The real portal's own words, and where the key is set."""
    spool.configure(integrations={"gotranscript": {"api_key": "not-the-key-CANARY"}})
    found = asked(spool)["gotranscript"]

    assert "failure" == found.result
    assert "integrations.gotranscript.api_key" in found.what_to_do
    assert "CANARY" not in repr(found)


def test_no_key_at_all_is_found(spool: Spool) -> None:
    """Nothing can be sent: where a key may be put is said."""
    spool.configure(integrations={"gotranscript": {"api_key": None}})
    found = asked(spool)["gotranscript"]

    assert "failure" == found.result
    assert "GOTRANSCRIPT_API_KEY" in found.what_to_do


def test_services_that_are_off_are_skipped(spool: Spool) -> None:
    """What nobody uses is no fault."""
    assert {"s3": "skipped", "sheets": "skipped"} == {
        name: asked(spool)[name].result for name in ("s3", "sheets")
    }  # fmt: skip


def test_stopped_servers_fail_together_and_in_time(spool: Spool, sandbox: Sandbox) -> None:
    """All are asked at once; each says that it can't be reached, and the clock has nobody to ask."""
    nowhere = refusing_address()
    account = json.dumps({**sandbox.service_account(), "token_uri": f"{nowhere}/token"})
    spool.configure(
        integrations={
            "gotranscript": {"base_url": nowhere},
            "s3": {
                "enabled": True, "endpoint_url": nowhere, "bucket": "any-bucket", "access_key": ACCESS_KEY,
                "secret_key": SECRET_KEY,
            },
            "sheets": {
                "enabled": True, "spreadsheet_id": sandbox.spreadsheet_id, "service_account_json": account,
                "api_base_url": nowhere,
            },
        }
    )  # fmt: skip
    found = asked(spool)

    assert {"gotranscript", "s3", "sheets"} == {name for name, each in found.items() if each.result == "failure"}
    assert "skipped" == found["clock"].result


def test_a_silent_server_is_not_waited_for(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the request and says nothing: after its time that is what is told."""
    monkeypatch.setattr(service_check, "PATIENCE_SECONDS", 0.5)
    with ScriptedServer(Step(then="hang")) as server:
        spool.configure(integrations={"gotranscript": {"base_url": server.url}})
        found = asked(spool)["gotranscript"]

    assert ("failure", "no answer within 0.5 s") == (found.result, found.seen)


@pytest.mark.parametrize(("on_unknown", "result"), [("retry", "warning"), ("lookup", "failure")])
def test_a_service_without_a_lookup(spool: Spool, on_unknown: str, result: str) -> None:
    """404 may be a service that has no lookup: only who needs one is stopped by that."""
    spool.configure(integrations={"gotranscript": {"on_unknown_outcome": on_unknown}})

    assert result == told_by(spool, 404)["gotranscript"].result


@pytest.mark.parametrize(
    ("off", "result", "words"),
    [(0, "ok", "agrees"), (-30, "warning", "ahead of"), (3600, "failure", "behind"), (-3600, "failure", "ahead of")],
)
def test_the_clock_is_held_against_the_servers(spool: Spool, off: int, result: str, words: str) -> None:
    """More than a minute between this clock and a server's breaks signatures."""
    found = told_by(spool, **at(datetime.now(UTC) + timedelta(seconds=off)))["clock"]

    assert result == found.result, found
    assert words in found.seen


def test_a_refusal_tells_the_time_as_well(spool: Spool) -> None:
    """A clock that is off is found although, or because, the key is refused."""
    found = told_by(spool, 401, **at(datetime.now(UTC) + timedelta(days=1)))

    assert ("failure", "failure") == (found["gotranscript"].result, found["clock"].result)


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "result"), [(0o640, "ok"), (0o644, "failure"), (0o602, "failure")])
def test_modes_of_files_with_secrets(spool: Spool, mode: int, result: str) -> None:
    """config.yaml with a key in it is nobody else's to read or change."""
    spool.config.chmod(mode)
    found = only(settings_check.secrets(case_of(spool).settings), result)

    assert result == "ok" or f"chmod o-rwx {spool.config}" in found.what_to_do


def test_every_kind_of_secret_file_is_looked_at(spool: Spool) -> None:
    """A `_file` key's file and `.env`; config.yaml itself, once no secret is left in it, may be read by everybody."""
    key, dotenv = spool.home / "key", spool.home / ".env"
    key.write_text("sandbox-key")
    key.chmod(0o604)
    spool.configure(integrations={"gotranscript": {"api_key": None, "api_key_file": str(key)}})
    spool.config.chmod(0o644)
    (found,) = settings_check.secrets(case_of(spool).settings)
    assert str(key) in found.seen

    dotenv.write_text("GOTRANSCRIPT_API_KEY=sandbox-key\n")
    dotenv.chmod(0o644)
    (found,) = settings_check.secrets(case_of(spool).settings)
    assert str(dotenv) in found.seen


def test_problems_and_warnings_are_told_line_by_line(spool: Spool) -> None:
    """Each as check-config has it."""
    settings: dict[str, Any] = {"integrations": {"s3": {"enabled": True}}, "spool": {"rescan_seconds": "often"}}
    spool.configure(**settings)
    found = list(settings_check.settings(case_of(spool).settings))

    assert {"failure"} == {each.result for each in found}
    assert any("integrations.s3.bucket" in each.seen for each in found)
    assert all(each.what_to_do for each in found)
    spool.configure(integrations={"s3": {"enabled": False}}, spool={"rescan_seconds": 2})
    spool.configure(integrations={"gotranscript": {"base_url": "http://portal.invalid"}})
    assert "unencrypted" in only(settings_check.settings(case_of(spool).settings), "warning").seen


# --- who may call in ------------------------------------------------------------------------------------------------


def with_secret(spool: Spool, *, days: int) -> Path:
    """A file with one secret, made so many days ago, as `tfwatch rotate-secret` writes it."""
    path = spool.home / "webhook_integrations.json"
    made = datetime.now(UTC) - timedelta(days=days)
    rotate(str(path), "portal", kind="secret", overlap=timedelta(0), now=made, like=str(spool.config))
    spool.configure(web={"enabled": True, "port": reserve_port()})
    return path


def test_young_secrets_of_callers_pass(spool: Spool) -> None:
    """One integration, a secret of 89 days."""
    with_secret(spool, days=89)

    assert only(webhook_check.webhooks(case_of(spool)), "ok").seen.startswith("1 integration(s)")


def test_a_secret_that_is_too_old_fails(spool: Spool) -> None:
    """91 days: which one, and the command that makes a new one; the secret itself isn't shown."""
    path = with_secret(spool, days=91)
    found = only(webhook_check.webhooks(case_of(spool)), "failure")

    assert "91 days old" in found.seen
    assert "tfwatch rotate-secret portal" == found.what_to_do
    assert json.loads(path.read_text())["portal"]["secret"]["value"] not in repr(found)


@pytest.mark.parametrize("content", [None, "no JSON"])
def test_a_file_of_secrets_that_turns_webhooks_off_fails(spool: Spool, content: str | None) -> None:
    """Open to everybody, or no file of secrets at all."""
    path = with_secret(spool, days=1)
    if content is None:
        path.chmod(0o644)
    else:
        path.write_text(content)
    found = only(webhook_check.webhooks(case_of(spool)), "failure")

    assert str(path) in found.seen
    assert str(path) in found.what_to_do


def test_nobody_who_calls_is_no_fault(spool: Spool) -> None:
    """Without a file, and without a web server, there is nothing to look at."""
    only(webhook_check.webhooks(case_of(spool)), "skipped")
    spool.configure(web={"enabled": True, "port": reserve_port()})
    only(webhook_check.webhooks(case_of(spool)), "skipped")


# --- who is told ----------------------------------------------------------------------------------------------------


def alerts(spool: Spool, *urls: str, send: bool) -> list[Finding]:
    """What is found of these addresses."""
    spool.configure(alerts={"urls": list(urls)})
    addresses = alert_check.Addresses(case_of(spool))
    if send:
        addresses.tell("tests", str(spool.root))
    return list(addresses.findings())


def test_a_test_alert_goes_where_alerts_go(spool: Spool) -> None:
    """Sent only when asked for: to a real mailbox and a real HTTP server, and it says what it is."""
    with mail_server() as (mailbox, port), ScriptedServer(FINE) as server:
        urls = (mail_url(port), json_url(server))
        assert ["ok", "ok"] == [found.result for found in alerts(spool, *urls, send=False)]
        assert [] == mailbox.mails
        found = alerts(spool, *urls, send=True)

    assert ["ok", "ok"] == [each.result for each in found], found
    assert "tfwatch: test alert" in mailbox.texts()[0]
    assert "Nothing is wrong." in words(server)


def test_an_address_that_takes_no_alert_fails(spool: Spool) -> None:
    """Refused there, or nobody there: which one of the list is said, and nothing of its secrets."""
    with ScriptedServer(Step(send=reply(403))) as server:
        gone = f"json://s3cretuser:s3cretpass@{refusing_address().removeprefix('http://')}/?rto=1&cto=1"
        found = alerts(spool, json_url(server), gone, send=True)

    assert ["failure", "failure"] == [each.result for each in found]
    assert "alerts.urls[0] (json)" in found[0].seen
    assert "s3cret" not in repr(found)


def test_an_address_nobody_understands_fails(spool: Spool) -> None:
    """A kind of address that doesn't exist; and no address at all is no fault."""
    found = only(iter(alerts(spool, "nosuchkind://s3cret@host/", send=False)), "failure")
    assert "alerts.urls[0]" in found.seen
    assert "s3cret" not in repr(found)
    only(iter(alerts(spool, send=False)), "skipped")
