"""Who calls is proven or refused: by each scheme, and whatever octets come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from tests.support.callers import SECRET, legacy, standard
from tfwatch.web.signatures import Proof, prove
from tfwatch.webhook_secrets import Keys, Secret

NOW = datetime(2025, 11, 13, 10, 35, 33, tzinfo=UTC)
AT = NOW.timestamp()
OTHER = "whsec_" + "B" * 43 + "="
TOKEN = "a-token-nobody-guesses"
BODY = b'{"id": "4711", "status": "completed"}'


def secret(value: str, valid_until: datetime | None = None) -> Secret:
    return Secret(value=value, created_at=NOW - timedelta(days=1), valid_until=valid_until)


KEYS = Keys(secret=(secret(SECRET),), path_token=(secret(TOKEN),))


def proven(headers: dict[str, str], body: bytes = BODY, *, keys: Keys | None = KEYS, **other: Any) -> Proof | None:
    how: dict[str, Any] = {"integration": "gotranscript", "token": None, "now": NOW, "tolerance": timedelta(minutes=5)}
    return prove(keys, headers=headers, body=body, **(how | other))


def test_standard_webhooks_as_the_specification_and_its_library_sign() -> None:
    """Signed by hand or by the library, alone or among other signatures: proven, and the id is known."""
    by_hand = standard(BODY, message_id="msg_1", at=AT)
    assert Proof(via="standard", message_id="msg_1") == proven(by_hand)
    assert by_hand["webhook-signature"] == Webhook(SECRET).sign("msg_1", NOW, BODY.decode())
    several = by_hand | {"webhook-signature": f"v1a,xx v1,AAAA {by_hand['webhook-signature']}"}
    assert Proof(via="standard", message_id="msg_1") == proven(several)


def test_the_older_headers() -> None:
    """Hex in any case; the integration named must be the one called."""
    headers = legacy(BODY, at=AT)
    assert Proof(via="legacy") == proven(headers)
    assert Proof(via="legacy") == proven(headers | {"x-signature": headers["x-signature"].upper()})
    assert None is proven(headers | {"x-integration-id": "another"})
    assert None is proven({name: value for name, value in headers.items() if name != "x-integration-id"})


def test_a_token_in_the_address() -> None:
    """It needs no header, and no signature makes up for a wrong one."""
    assert Proof(via="token") == proven({}, token=TOKEN)
    assert None is proven(standard(BODY, at=AT), token="another")
    assert None is proven({}, token="")


@pytest.mark.parametrize("sign", [standard, legacy])
@pytest.mark.parametrize(("off", "is_in_time"), [(-299, True), (299, True), (-302, False), (302, False)])
def test_a_call_bears_a_time_near_now(sign: Any, off: float, is_in_time: bool) -> None:
    """Five minutes early or late are taken, more is refused."""
    assert is_in_time == (proven(sign(BODY, at=AT + off)) is not None)


def test_the_tolerance_is_a_setting() -> None:
    """What config.yaml allows holds, wider or narrower than the library's own."""
    assert None is not proven(standard(BODY, at=AT - 900), tolerance=timedelta(minutes=20))
    assert None is proven(standard(BODY, at=AT - 20), tolerance=timedelta(seconds=10))


@pytest.mark.parametrize("sign", [standard, legacy])
def test_during_a_rotation_two_secrets_are_valid(sign: Any) -> None:
    """The old one until its end, and not a moment longer."""
    rotated = Keys(secret=(secret(OTHER), secret(SECRET, NOW + timedelta(hours=1))))
    over = Keys(secret=(secret(OTHER), secret(SECRET, NOW)))
    for value in (OTHER, SECRET):
        assert None is not proven(sign(BODY, at=AT, secret=value), keys=rotated)
    assert None is not proven(sign(BODY, at=AT, secret=OTHER), keys=over)
    assert None is proven(sign(BODY, at=AT, secret=SECRET), keys=over)


@pytest.mark.parametrize("sign", [standard, legacy])
def test_nobody_is_known_without_keys(sign: Any) -> None:
    """An integration that nobody knows, or that has no secret, proves nothing."""
    assert None is proven(sign(BODY, at=AT), keys=None)
    assert None is proven(sign(BODY, at=AT), keys=Keys())
    assert None is proven({}, keys=None, token=TOKEN)


def test_a_secret_that_is_hardly_any_key_signs_no_standard_webhook() -> None:
    """Of `!!!!ab` base64 makes one octet: 256 guesses. It serves the older headers only, which take all of it."""
    weak = Keys(secret=(secret("!!!!!!!!!!!!!!!!!!!!!!!!ab"),))
    for octet in range(256):
        guess = Webhook(bytes([octet])).sign("m", NOW, BODY.decode())
        headers = {"webhook-id": "m", "webhook-timestamp": str(int(AT)), "webhook-signature": guess}
        assert None is proven(headers, keys=weak)
    assert None is not proven(legacy(BODY, at=AT, secret="!!!!!!!!!!!!!!!!!!!!!!!!ab"), keys=weak)


@given(data=st.data(), body=st.binary(max_size=200))
def test_one_changed_octet_is_refused(data: st.DataObject, body: bytes) -> None:
    """Whatever the body: signed it is proven if it is text, and with anything changed it is not."""
    sign = data.draw(st.sampled_from([standard, legacy]))
    headers = sign(body, at=AT)
    is_text = body.decode(errors="replace").encode() == body
    assert (sign is legacy or is_text) == (proven(headers, body) is not None)
    at = data.draw(st.integers(0, len(body)))
    other = body[:at] + bytes([data.draw(st.integers(0, 255))]) + body[at + (data.draw(st.booleans()) and 1) :]
    assert other == body or proven(headers, other) is None


_NAMES = (
    *("webhook-id", "webhook-timestamp", "webhook-signature"),
    *("x-integration-id", "x-signature", "x-signature-timestamp"),
)
_VALUES = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=60),
    st.sampled_from(["gotranscript", str(int(AT)), "v1,", "v1,====", "v1", "v1,é", "9" * 400, "-1", "1e9", "١٢٣"]),
)
_HEADERS = st.dictionaries(st.sampled_from(_NAMES), _VALUES)


@given(headers=_HEADERS, body=st.binary(max_size=100), token=st.none() | st.text(max_size=40))
def test_no_octets_crash_it_and_none_come_in(headers: dict[str, str], body: bytes, token: str | None) -> None:
    """Headers, bodies and tokens of any kind are refused, and nothing is raised."""
    assert None is proven(headers, body, token=token)
    assert None is proven(headers, body, token=token, keys=Keys(secret=(secret("é\ud800"), secret("short"))))
