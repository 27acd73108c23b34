"""What `AlertPort` promises, held against real receivers: an SMTP server and an HTTP server."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.support.http import ScriptedServer, Step, refusing_address, reply
from tests.support.receivers import FINE, json_url, mail_server, mail_url, told
from tfwatch.adapters import alerts
from tfwatch.errors import TransientError
from tfwatch.model import AlertMessage
from tfwatch.ports import AlertPort

SECRET: Final = "c4n4ry"
MESSAGE: Final = AlertMessage(
    title="tfwatch on box: 1 alert", body="disk full: ação <b> & more\n\nHost box", is_over=False
)


def port_to(url: str) -> AlertPort:
    (port,), problems = alerts.connect((url,))
    assert () == problems
    return port


@pytest.fixture(params=["mail", "http"])
def receiver(request: pytest.FixtureRequest) -> Iterator[tuple[AlertPort, Callable[[], list[str]]]]:
    """A port to each kind of receiver, and what that has received."""
    if request.param == "mail":
        with mail_server() as (mailbox, number):
            yield port_to(mail_url(number)), mailbox.texts
    else:
        with ScriptedServer(FINE) as server:
            yield port_to(json_url(server)), lambda: [f"{each['title']} {each['message']}" for each in told(server)]


def test_title_and_text_arrive(receiver: tuple[AlertPort, Callable[[], list[str]]]) -> None:
    """Both, in full, as they were given."""
    port, received = receiver
    port.send(MESSAGE)
    (text,) = received()
    assert "tfwatch on box: 1 alert" in text
    assert "disk full: ação" in text
    assert "Host box" in text


def test_telling_twice_tells_twice() -> None:
    """Nothing is remembered here: who is told what is the caller's."""
    with ScriptedServer(FINE) as server:
        port = port_to(json_url(server))
        port.send(MESSAGE)
        port.send(MESSAGE)
        assert 2 == len(told(server))


def test_good_news_is_marked_as_such() -> None:
    """Receivers colour by it."""
    with ScriptedServer(FINE) as server:
        port = port_to(json_url(server))
        port.send(MESSAGE)
        port.send(AlertMessage(title="over", body="over", is_over=True))
        assert ["warning", "success"] == [each["type"] for each in told(server)]


FAULTS: Final = {
    "error": Step(send=reply(500, {"secret": SECRET})),
    "forbidden": Step(send=reply(403)),
    "reset": Step(then="reset"),
    "silence": Step(then="hang"),
    "not HTTP": Step(send=b"c4n4ry what?\r\n\r\n", then="close"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_arrive_is_raised_without_a_secret(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """In bounded time, as `TransientError`; nothing of the address is in its words, nor in any log."""
    caplog.set_level(logging.WARNING)
    with ScriptedServer(FAULTS[fault]) as server:
        port = port_to(json_url(server, SECRET))
        began = time.monotonic()
        with pytest.raises(TransientError) as raised:
            port.send(MESSAGE)
    assert 30 > time.monotonic() - began
    said = f"{raised.value} {raised.value.hint} {port.shown_as} {caplog.text}"
    assert SECRET not in said
    assert "127.0.0.1" not in said
    assert raised.value.message


def test_a_code_is_told() -> None:
    """It says more than anything else."""
    with ScriptedServer(FAULTS["error"]) as server, pytest.raises(TransientError, match="HTTP 500"):
        port_to(json_url(server)).send(MESSAGE)


@pytest.mark.parametrize("scheme", ["json", "mailto"])
def test_nobody_there(scheme: str) -> None:
    """A refused connection is a failure like any other."""
    address = refusing_address().removeprefix("http://")
    with pytest.raises(TransientError):
        port_to(f"{scheme}://{address}?from=a@example.org&to=ops@example.org&mode=insecure").send(MESSAGE)


def test_an_address_nobody_understands_is_named_by_its_place() -> None:
    """The others are used; what is wrong is said without the address, which is secret."""
    ports, (problem,) = alerts.connect((f"nosuch://{SECRET}", "json://127.0.0.1", f"slack://{SECRET}")[:2])
    assert ["alerts.urls[1] (json)"] == [port.shown_as for port in ports]
    assert problem.startswith("alerts.urls[0] (nosuch): ")
    assert SECRET not in problem
