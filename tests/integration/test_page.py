"""The status page as bytes over HTTP: what it holds without any script, and what it refuses."""

from __future__ import annotations

import httpx
import pytest

from tests.support.daemon import Spool, wait_until
from tests.support.web import serve, wait_until_served
from tfwatch.sandbox.faults import Fault, FaultKind, Target
from tfwatch.sandbox.server import Sandbox


@pytest.fixture
def page(spool: Spool) -> str:
    """The page's address, at a daemon that serves it."""
    url = serve(spool)
    spool.start()
    wait_until_served(url)
    return url


def test_it_says_what_status_says(sandbox: Sandbox, spool: Spool, page: str) -> None:
    """Stages, what needs a person, what is rejected and why: all of it is in the page itself."""
    spool.drop("good_v1.zip")
    spool.wait_for("delivered", "good_v1.zip")
    sandbox.set_faults(_refusal(422, "Track 7 has no sound.", times=1))
    spool.drop("bad_v1.zip", seed=2)
    spool.wait_for("rejected", "bad_v1.zip")
    shown = wait_until(lambda: _with(page, "Track 7 has no sound."), "the page tells of the refusal")
    assert "bad_v1.zip" in shown
    for stage in ("outbox", "claimed", "submitted", "delivered", "rejected"):
        assert f"<b>{stage}</b>" in shown
    sandbox.set_faults(_refusal(401, "Who are you?", times=None))
    spool.drop("third_v1.zip", seed=3)
    spool.wait_for_event("DISABLED")
    paused = wait_until(lambda: _with(page, "Who are you?"), "the page tells of the pause")
    assert "tfwatch enable gotranscript" in paused


def test_a_story_by_trace(spool: Spool, page: str) -> None:
    """A trace id leads to the package's story; a word nobody knows leads to names like it."""
    spool.drop("interview_v2.zip")
    spool.wait_for("delivered", "interview_v2.zip")
    trace = spool.row("ACCEPTED")["trace_id"]
    told = httpx.get(f"{page}/why", params={"q": trace}).text
    assert "interview_v2.zip" in told
    assert spool.row("ACCEPTED")["order_id"] in told
    assert "interview_v2.zip" in httpx.get(f"{page}/why", params={"q": "interview_v9.zip"}).text
    for word in ("", "../../etc/passwd", "%00", "\x00", "a" * 5000, "<b>"):
        answer = httpx.get(f"{page}/why", params={"q": word})
        assert answer.status_code in (200, 414)
        assert "<b>" not in answer.text.replace("<b>outbox", "")
        assert "root:" not in answer.text


def test_it_only_reads(page: str) -> None:
    """Nothing can be changed through the page: it takes no other method, and no file but its own."""
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert 405 == httpx.request(method, page).status_code
    for path in (
        "/static/",
        "/static/../page.py",
        "/static/%2e%2e/page.py",
        "/static/nothing.js",
        "/templates/page.html",
    ):
        assert 404 == httpx.get(page + path).status_code
    policy = httpx.get(page).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def _refusal(code: int, message: str, *, times: int | None) -> Fault:
    return Fault(target=Target.SUBMIT, kind=FaultKind.STATUS, status=code, message=message, times=times)


def _with(url: str, words: str) -> str:
    text = httpx.get(url).text
    return text if words in text else ""
