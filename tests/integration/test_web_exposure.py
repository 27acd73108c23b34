"""Who may look: tokens, names, and addresses that others reach."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import httpx
import pytest

from tests.support.daemon import Spool, wait_until
from tests.support.daemon import spool as make_spool
from tests.support.web import serve, wait_until_served
from tfwatch.sandbox.server import Sandbox

TOKEN = "tok:en-of-16-or-more"
GUARDED = ("/", "/metrics", "/metrics/webhooks", "/nothing", "/healthz/", "/healthz%2f", "//healthz", "/webhooks")
OPEN = ("/healthz", "/webhooks/gotranscript")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a daemon that listens everywhere and asks for a token."""
    with Sandbox() as sandbox, make_spool(tmp_path_factory.mktemp("web"), sandbox.url, sandbox.api_key) as spool:
        address = serve(spool, host="0.0.0.0", expose=True, token=TOKEN, requests_per_second=10_000)
        spool.start()
        wait_until_served(address)
        yield address
        assert 0 == spool.stop()
        assert TOKEN not in spool.output.read_text()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN.upper()}",
        TOKEN,
        f"Token {TOKEN}",
        f"Digest {TOKEN}",
        "Basic",
        "Basic not base64",
        "Basic " + base64.b64encode(TOKEN.encode()).decode(),
        basic(TOKEN, ""),
        basic("", f"{TOKEN}x"),
        "Bearer \xff\xfe",
    ],
)
def test_without_the_token_nothing_is_shown(url: str, authorization: str | None) -> None:
    """Every path but the open ones answers 401, whether there is such a thing or not, and asks for the token."""
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    with httpx.Client(base_url=url, headers=headers) as client:
        for path in GUARDED:
            for method in ("GET", "HEAD", "POST", "OPTIONS"):
                answer = client.request(method, path)
                assert 401 == answer.status_code, (method, path)
                assert 'Basic realm="tfwatch"' in answer.headers["www-authenticate"]
                assert 'Bearer realm="tfwatch"' in answer.headers["www-authenticate"]
        for path in OPEN:
            assert 401 != client.get(path).status_code


@pytest.mark.parametrize("authorization", [f"Bearer {TOKEN}", f"bearer {TOKEN}", basic("", TOKEN), basic("ana", TOKEN)])
def test_with_the_token_everything_is(url: str, authorization: str) -> None:
    """As programs bring it, and as browsers do: any name, the token for its password."""
    with httpx.Client(base_url=url, headers={"Authorization": authorization}) as client:
        assert {404} == {client.get(path).status_code for path in ("/nothing", "/healthz/")}
        assert {200} == {client.get(path).status_code for path in ("/healthz", "/", "/metrics")}


def test_a_token_of_a_file_is_changed_by_saving(spool: Spool) -> None:
    """The new one counts and the old one doesn't, without a restart; neither is ever said."""
    secret = spool.home / "token"
    secret.write_text(f"{TOKEN}\n")
    secret.chmod(0o600)
    url = serve(spool, token_file=str(secret))
    spool.start()
    wait_until_served(url)

    def status(token: str) -> int:
        return httpx.get(f"{url}/nothing", headers={"Authorization": f"Bearer {token}"}).status_code

    assert (404, 401) == (status(TOKEN), status("another-token-of-16"))
    secret.write_text("another-token-of-16\n")
    wait_until_known(url, "another-token-of-16")
    assert (401, 404) == (status(TOKEN), status("another-token-of-16"))
    assert TOKEN not in spool.output.read_text()


def wait_until_known(url: str, token: str) -> None:
    """Wait until this is the token; the server may begin anew in between."""

    def is_known() -> bool:
        try:
            return httpx.get(f"{url}/nothing", headers={"Authorization": f"Bearer {token}"}).status_code == 404
        except httpx.TransportError:
            return False

    wait_until(is_known, "the token is known")


def test_only_our_own_names_are_answered_on_loopback(spool: Spool) -> None:
    """A stranger's page that leads its own name to 127.0.0.1 gets nothing: addresses, localhost and `web.hosts` do."""
    url = serve(spool, hosts=["Tfwatch.example.com"])
    spool.start()
    wait_until_served(url)

    def status(host: str, path: str = "/healthz") -> int:
        return httpx.get(f"{url}{path}", headers={"Host": host}).status_code

    ours = ["127.0.0.1", "127.0.0.1:8787", "localhost", "LOCALHOST:1", "[::1]:8787", "[::1]", "192.168.1.2:80"]
    ours += ["tfwatch.example.com", "TFWATCH.example.com:443", "tfwatch.example.com."]
    assert {200} == {status(host) for host in ours}
    strangers = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "tfwatch.example.com.evil.example"]
    strangers += ["", ":8787", "[evil.example]", "127.0.0.1@evil.example", "2130706433", "0x7f.1"]
    assert {421} == {status(host) for host in strangers}
    assert {421} == {status("evil.example", path) for path in ("/", "/nothing", "/webhooks/gotranscript")}


def test_an_address_for_others_is_not_opened_by_a_slip(spool: Spool) -> None:
    """Without both settings the daemon doesn't start, and a reload leaves it as it was; both name the line."""
    spool.configure(web={"enabled": True, "host": "0.0.0.0", "expose": True})
    spool.start(ready=False)
    assert spool.process is not None
    assert 78 == spool.process.wait(30)
    assert "web.host: other machines could read the page, so it needs both web.expose: true and web.token" in (
        spool.output.read_text()
    )
    url = serve(spool, host="127.0.0.1", expose=False)
    spool.start()
    wait_until_served(url)
    spool.configure(web={"host": "0.0.0.0"})
    spool.wait_for_state(lambda state: "needs both web.expose" in str(state["problems"]), "it is refused")
    assert 200 == httpx.get(f"{url}/healthz").status_code
