"""No secret shows anywhere: each has a canary in it, all that can go wrong goes wrong, and all there is is searched.

The settings say which secrets there are; a new one is in here by itself.
"""

from __future__ import annotations

import json
import re
import secrets
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.canary import Canaries, everything_in, plant, secret_keys
from tests.support.daemon import Spool, make_zip, merge, wait_until
from tests.support.daemon import spool as make_spool
from tests.support.echo import Echo, echo
from tests.support.s3_servers import moto
from tests.support.systemd import NotifySocket, notify_socket
from tests.support.web import serve, wait_until_served
from tfwatch.model import Integration
from tfwatch.settings_file import load
from tfwatch.settings_problems import ConfigError
from tfwatch.settings_sources import SECRETS

BUG = """
import sys
from tfwatch.delivery import submit
def bug(package, dropped_as):
    secret = open(sys.argv[-1]).read()
    raise RuntimeError("a bug")
submit.tell_claimed = bug
from tfwatch.cli import main
main()
"""
"""The daemon with a bug in a lane that has a secret at hand."""


class Given:
    """A spool whose every secret is a canary, and whose services repeat all they are sent."""

    def __init__(self, spool: Spool, services: Echo, canaries: Canaries, systemd: NotifySocket) -> None:
        self.spool, self.services, self.canaries, self.systemd = spool, services, canaries, systemd
        self.said: dict[str, bytes] = {}
        self._seed = 0

    def drop(self, name: str) -> None:
        self._seed += 1
        self.spool.drop(name, seed=self._seed)

    def wait_for_words(self, words: str, count: int = 1) -> None:
        """Wait until the journal has them so often."""
        wait_until(lambda: self.spool.output.read_text().count(words) >= count, f"{count} times: {words}")

    def say(self, where: str, data: bytes) -> None:
        """Remember what was said somewhere."""
        self.said[f"{len(self.said)} {where}"] = data

    def ask(self, *words: str) -> None:
        """Run a command, whatever comes of it."""
        done = self.spool.cli(*words)
        self.say(" ".join(words), (done.stdout + done.stderr).encode())

    def assert_silent(self) -> None:
        """Nothing that anybody may look at holds a canary."""
        places = everything_in(self.spool.root) | self.said
        places["the journal"] = self.spool.output.read_bytes()
        places["systemd's ear"] = repr([message.fields for message in self.systemd.messages]).encode()
        leaks = {place: found for place, data in places.items() if (found := self.canaries.found_in(data))}
        assert {} == leaks, {place: _lines(self.canaries, places[place]) for place in leaks}


def _lines(canaries: Canaries, data: bytes) -> list[bytes]:
    return [line[:500] for line in data.splitlines() if canaries.found_in(line)][:3]


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Given]:
    with echo() as services, notify_socket(tmp_path) as systemd:
        canaries = plant(f"{services.url}/token")
        with make_spool(tmp_path, services.url, "replaced") as spool:
            merge(spool.settings, canaries.settings)
            spool.configure(
                logging={"level": "TRACE"},
                integrations={
                    "gotranscript": {"workers": 1, "rollback_after": 1000, "retry": {"attempts": 1}},
                    "s3": {"enabled": True, "endpoint_url": services.url, "bucket": "some-bucket"},
                    "sheets": {
                        "enabled": True, "spreadsheet_id": "sheet1", "api_base_url": services.url, "batch_seconds": 0.2,
                    },
                },
            )  # fmt: skip
            yield Given(spool, services, canaries, systemd)


def test_every_secret_of_the_settings_has_a_canary() -> None:
    """The list that loads secrets and the types that hide them name the same keys."""
    keys = {key for key, _ in secret_keys()}
    assert {secret.key for secret in SECRETS} <= keys
    canaries = plant("http://127.0.0.1:9/token")
    assert keys == set(canaries.needles.values())
    for key, is_list in secret_keys():
        value = canaries.value(key)
        assert {key} == canaries.found_in((value[0] if is_list else value).encode())


def plant_webhooks(given: Given) -> str:
    """Secrets for those who call in; gives the token of an address."""
    signing, token = (given.canaries.watch(f"{word}-{secrets.token_hex(16)}", word) for word in ("signing", "address"))
    file = given.spool.home / "webhook_integrations.json"
    file.write_text(json.dumps({"gotranscript": {"secret": signing, "path_token": token}, "old": signing}))
    file.chmod(0o600)
    return token


def test_services_that_repeat_what_they_are_sent(given: Given) -> None:
    """Whatever a service does with what it knows of us, it shows nowhere here; and none learns another's secrets."""
    url, address = serve(given.spool), plant_webhooks(given)
    given.spool.start(env=given.systemd.env())
    wait_until_served(url)
    given.services.code = 422
    given.drop("p0.zip")
    given.spool.wait_for_event("REFUSED", "p0.zip")
    given.services.code = 503
    given.drop("p1.zip")
    given.spool.wait_for_event("DEFERRED", "p1.zip")
    given.services.code = 401
    given.drop("p2.zip")
    given.spool.wait_for_event("DISABLED")
    given.services.code = 307
    given.spool.ask("enable", integration=Integration.GOTRANSCRIPT)
    given.spool.wait_for_event("DISABLED", count=2)
    given.services.code = 200
    given.spool.ask("enable", integration=Integration.GOTRANSCRIPT)
    given.spool.wait_for_event("UNKNOWN")
    given.services.order_id = "o-1"
    given.drop("ok.zip")
    given.spool.wait_for_event("ACCEPTED", "ok.zip")
    wait_until(lambda: b"GET /deliveries/o-1" in given.services.requests("gotranscript"), "it is asked about")
    given.services.code = 503
    (given.spool.root / "rejected" / "p0.zip").rename(given.spool.root / "delivered" / "p0.zip")
    given.spool.wait_for_event("BACKUP_FAILED")
    given.wait_for_words("Google login")
    (login,) = set(re.findall(rb"assertion=([\w.-]+)", given.services.requests("google"))[:1])
    given.canaries.watch(login.decode(), "a login to Google")
    given.services.token = given.canaries.watch("canary+access/token==", "Google's access token")
    given.spool.configure(integrations={"sheets": {"worksheet": "another"}})
    given.wait_for_words("Google Sheets: 403")
    for path in ("/healthz", "/", "/metrics", "/metrics/webhooks", "/nothing", "/webhooks/gotranscript/guess"):
        answer = httpx.get(f"{url}{path}", headers={"Authorization": "Bearer guess"})
        given.say(path, str(answer.headers).encode() + answer.content)
    calls = ((f"gotranscript/{address}", "{}"), (f"old/{address}", "{}"), (f"gotranscript/{address}", "no JSON"))
    for path, body in calls:
        answer = httpx.post(f"{url}/webhooks/{path}", content=body, headers={"X-Signature": address})
        given.say("a call", str(answer.headers).encode() + answer.content)
    (given.spool.home / "webhook_integrations.json").chmod(0o644)
    httpx.post(f"{url}/webhooks/gotranscript/{address}", content="{}")
    given.wait_for_words("so all webhooks are off")
    for words in (("status",), ("fsck", "--json")):
        given.ask(*words)
    assert given.spool.process is not None
    given.say("its command line", Path(f"/proc/{given.spool.process.pid}/cmdline").read_bytes())
    given.spool.stop()
    given.assert_silent()
    own = {
        "gotranscript": ("integrations.gotranscript.api_key",),
        "s3": ("integrations.s3.access_key",),
        # A login names the key it was signed with.
        "google": ("a login to Google", "Google's access token", "integrations.sheets.service_account_json"),
    }
    for service in ("gotranscript", "s3", "google"):
        sent = given.services.requests(service)
        assert sent, f"{service} was never asked"
        assert set() == given.canaries.found_in(sent, allowed=own[service])


def test_the_public_api_that_repeats_what_it_is_sent(given: Given) -> None:
    """Its form holds the key, the callback's address and a URL that opens the package: none of them is shown."""
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    moto("http").client().create_bucket(Bucket=bucket)
    given.spool.configure(
        integrations={
            "gotranscript": {"profile": "gotranscript-v4", "language": "pt"},
            "s3": {"endpoint_url": moto("http").url, "bucket": bucket},
            "sheets": {"enabled": False},
        }
    )
    given.spool.start(env=given.systemd.env())
    for code, event in ((422, "REFUSED"), (200, "UNKNOWN"), (400, "DISABLED")):
        given.services.code = code
        given.drop(f"p{code}.zip")
        given.spool.wait_for_event(event)
    given.ask("status")
    given.spool.stop()
    given.assert_silent()
    sent = given.services.requests("gotranscript")
    keys = ("gotranscript.api_key", "gotranscript.callback_url", "s3.access_key")
    assert {f"integrations.{key}" for key in keys} == given.canaries.found_in(sent), "the test would find them"


def test_services_that_can_not_be_reached(given: Given) -> None:
    """No such name, no TLS: errors of every library on the way, and no secret in any of them."""
    dead = ("http://no-such-host.invalid", given.services.url.replace("http://", "https://"))
    given.services.token = "let in"
    given.spool.start(env=given.systemd.env())
    for number, url in enumerate(dead):
        given.spool.configure(
            integrations={
                "gotranscript": {"base_url": url},
                "s3": {"endpoint_url": url},
                "sheets": {"api_base_url": url, "worksheet": f"sheet {number}"},
            }
        )
        given.wait_for_words("configuration taken over", number + 1)
        given.drop(f"p{number}.zip")
        given.spool.wait_for_event("DEFERRED", f"p{number}.zip")
        by_hand = make_zip(given.spool.home / "by-hand", seed=100 + number)
        by_hand.rename(given.spool.root / "delivered" / f"d{number}.zip")
        given.spool.wait_for_event("BACKUP_FAILED", f"d{number}.zip")
        given.wait_for_words("Google Sheets: ", number + 1)
    given.spool.stop()
    given.assert_silent()


def test_settings_that_are_wrong(given: Given) -> None:
    """Secrets in the wrong place, beside mistakes, in a broken file: at a start and at a reload, none is quoted."""
    sound = given.spool.config.read_text()
    token = given.canaries.value("integrations.gotranscript.api_key")
    account = given.canaries.value("integrations.sheets.service_account_json")
    broken = {
        "no YAML": sound + f"\n  oops: '{token}\n\t{token}: [",
        "an unknown key": _with(sound, "integrations.gotranscript.token", token),
        "a secret for a number": _with(sound, "integrations.gotranscript.workers", token),
        "a secret for a path": _with(_without(sound, "integrations.gotranscript.api_key"),
                                     "integrations.gotranscript.api_key_file", token),
        "a secret for an address": _with(sound, "integrations.gotranscript.base_url", token),
        "an address with a password": _with(sound, "integrations.s3.endpoint_url", f"https://me:{token}@s3.example"),
        "two lines": _with(sound, "integrations.gotranscript.api_key", f"{token}\n{token}"),
        "a key that is none": _with(sound, "integrations.sheets.service_account_json",
                                    json.dumps(json.loads(account) | {"private_key": token})),
        "half an account": _with(sound, "integrations.sheets.service_account_json", account[:-40]),
        "a secret for a level": _with(sound, "logging.level", token),
    }  # fmt: skip
    given.spool.start(env=given.systemd.env())
    for number, text in enumerate(broken.values(), start=1):
        replace(given.spool, text)
        given.systemd.wait_for("READY", count=number + 1)
    given.wait_for_words("not taken over; the settings from before stay in force")
    given.ask("status")
    given.spool.stop()
    for text in broken.values():
        replace(given.spool, text)
        try:
            load(str(given.spool.config), environ={})
        except ConfigError as error:
            words = [*traceback.format_exception(error), *map(str, error.problems)]
            given.say("its problems", "\n".join(words).encode())
    given.ask("check-config")
    replace(given.spool, broken["no YAML"])
    given.spool.start(env=given.systemd.env(), ready=False)
    assert given.spool.process is not None
    assert 78 == given.spool.process.wait(60)
    given.assert_silent()


@pytest.mark.parametrize("program", ["a bug", "a log that was edited"])
def test_an_end_that_nobody_expected(given: Given, program: str) -> None:
    """A traceback, or a stop for a good reason: with all its secrets in memory, the daemon's last words hold none."""
    given.services.code = 503
    plain = ("-m", "tfwatch")
    given.spool.start(env=given.systemd.env(), program=("-c", BUG) if program == "a bug" else plain)
    given.drop("a.zip")
    if program != "a bug":
        given.spool.wait_for_event("DEFERRED")
        with (given.spool.root / "log.csv").open("a") as log:
            log.write("not a row\r\n")
    assert given.spool.process is not None
    assert 1 == given.spool.process.wait(60)
    assert (
        "RuntimeError: a bug" if program == "a bug" else "somebody else wrote to it"
    ) in given.spool.output.read_text()
    given.assert_silent()


def replace(spool: Spool, text: str) -> None:
    """As an editor saves a file."""
    temporary = spool.config.with_suffix(".new")
    temporary.write_text(text)
    temporary.chmod(0o600)
    temporary.rename(spool.config)


def _with(text: str, key: str, value: str) -> str:
    document: Any = yaml.safe_load(text)
    section = document
    *sections, last = key.split(".")
    for part in sections:
        section = section.setdefault(part, {})
    section[last] = value
    return yaml.safe_dump(document)


def _without(text: str, key: str) -> str:
    document: Any = yaml.safe_load(text)
    *sections, last = key.split(".")
    section = document
    for part in sections:
        section = section[part]
    del section[last]
    return yaml.safe_dump(document)
