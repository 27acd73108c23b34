"""The status page in headless Chromium: readable, alive, and deaf to what file names would like it to do."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.support.browser import browser
from tests.support.daemon import Spool, wait_until
from tests.support.web import serve, wait_until_served
from tfwatch.sandbox.server import Sandbox

HOSTILE = (
    "<img src=x onerror=document.title='taken'>.zip",
    "<svg onload=document.title='taken'>.zip",
    "<script>document.title='taken'.zip",
    "&lt;b&gt;{{7*7}}{% raw %}${7*7}.zip",
    "' onmouseover='document.title=1' x='.zip",
    "\u202efdp.exe \u2066.zip",
    os.fsdecode(b"\xff\xfe bytes.zip"),
    "a" * 200 + ".zip",
)
"""Names as an attacker would choose them; what they hold is refused, so that each is shown."""


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with browser(tmp_path_factory.mktemp("profile")) as chrome:
        yield chrome


@pytest.fixture
def page(spool: Spool) -> str:
    """The page's address, at a daemon that serves it."""
    url = serve(spool)
    spool.start()
    wait_until_served(url)
    return url


def _refused(seed: int) -> dict[str, bytes]:
    """What no package may hold."""
    return {"../outside": b"%d" % seed}


def text_of(chrome: Chrome, selector: str) -> str:
    return str(chrome.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector))


def complaints(chrome: Chrome) -> list[str]:
    """What the browser said of errors, refused content included, since it was last asked."""
    return [entry["message"] for entry in chrome.get_log("browser") if entry["level"] == "SEVERE"]


def test_hostile_names_are_only_text(chrome: Chrome, spool: Spool, page: str) -> None:
    """Whatever a file is called, its name is shown as text, does nothing, and leads to its story."""
    for seed, name in enumerate(HOSTILE):
        spool.drop(name, members=_refused(seed))
    wait_until(lambda: len(spool.names("rejected")) >= len(HOSTILE), "all are refused")
    chrome.get("about:blank")
    complaints(chrome)
    chrome.get(page)
    wait_until(lambda: len(chrome.find_elements(By.CSS_SELECTOR, ".rejected li")) == len(HOSTILE), "all are shown")
    assert "tfwatch" == chrome.title
    assert [] == chrome.find_elements(By.CSS_SELECTOR, "main img, main svg, main script, [onmouseover]")
    shown = text_of(chrome, ".rejected")
    for name in HOSTILE[:5]:
        assert name in shown
    assert "49" not in shown
    assert "\u202e" not in shown
    for n in range(len(HOSTILE)):
        chrome.get(page)
        link = chrome.find_elements(By.CSS_SELECTOR, ".rejected a")[n]
        name = link.text.removeprefix("rejected/")
        chrome.get(link.get_attribute("href") or "")
        assert name in text_of(chrome, "main")
        assert "taken" != chrome.title
    assert [] == complaints(chrome)


def test_a_package_is_found_by_its_order(chrome: Chrome, sandbox: Sandbox, spool: Spool, page: str) -> None:
    """A person types an order, a name or a piece of a SHA-256, and reads the package's story."""
    spool.drop("interview_v2.zip")
    spool.wait_for("delivered", "interview_v2.zip")
    order, sha256 = (spool.row("ACCEPTED")[column] for column in ("order_id", "sha256"))
    for word in (order, "interview_v2.zip", sha256[:10]):
        chrome.get(page)
        chrome.find_element(By.ID, "q").send_keys(word, Keys.ENTER)
        wait_until(lambda: "/why" in chrome.current_url, "the answer is there")
        story = text_of(chrome, "main")
        assert order in story
        assert sha256 in story
    chrome.get(f"{page}/why?q=interview_v3.zip")
    assert "interview_v2.zip" in text_of(chrome, "main")


def test_the_chart_shows_the_table(chrome: Chrome, spool: Spool, page: str) -> None:
    """The chart is drawn, from a table of 24 hours that says the same without a script."""
    spool.drop("one.zip")
    spool.wait_for("delivered", "one.zip")
    chrome.get(page)
    size = "const c = document.querySelector('#chart canvas'); return c ? [c.width, c.height] : [0, 0]"
    wait_until(lambda: min(chrome.execute_script(size)) > 100, "the chart is drawn")
    rows = chrome.find_elements(By.CSS_SELECTOR, "#hours tbody tr")
    assert 24 == len(rows)
    accepted = chrome.execute_script(
        "return [...document.querySelectorAll('#hours tbody tr')].map(row => Number(row.cells[1].textContent))"
    )
    assert 1 == sum(accepted)


def test_it_stays_fresh_and_says_when_it_is_not(chrome: Chrome, spool: Spool, page: str) -> None:
    """What happens is shown without a reload; once nobody answers any more, the page says that it is old."""
    chrome.get(page)
    assert not chrome.find_element(By.ID, "stale").is_displayed()
    spool.drop("later.zip", members=_refused(1))
    wait_until(lambda: "later.zip" in text_of(chrome, "main"), "the package appears by itself", 60)
    spool.stop()
    wait_until(lambda: chrome.find_element(By.ID, "stale").is_displayed(), "the page says that it is old", 60)


def test_it_fits_a_phone(chrome: Chrome, spool: Spool, page: str) -> None:
    """On a narrow screen nothing has to be moved sideways, however long a name is."""
    spool.drop("x" * 200 + ".zip", members=_refused(1))
    wait_until(lambda: spool.names("rejected"), "it is refused")
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        chrome.get(page)
        wait_until(lambda: "xxx" in text_of(chrome, "main"), "the package is shown")
        assert 360 >= chrome.execute_script("return document.scrollingElement.scrollWidth")
    finally:
        chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_light_and_dark(chrome: Chrome, page: str) -> None:
    """The page follows the reader's own setting, and its words stand out from the ground in both."""
    lightness = """
        const number = (name) => getComputedStyle(document.body)[name].match(/[0-9.]+/g).slice(0, 3).map(Number);
        return ['backgroundColor', 'color'].map((name) => number(name).reduce((sum, part) => sum + part) / 3);
    """
    seen = {}
    for scheme in ("light", "dark"):
        features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
        chrome.get(page)
        seen[scheme] = chrome.execute_script(lightness)
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert seen["light"][0] > 200 > 80 > seen["light"][1]
    assert seen["dark"][0] < 80 < 200 < seen["dark"][1]


def test_it_needs_nobody_else(chrome: Chrome, page: str) -> None:
    """Everything the page loads comes from the daemon itself, and nothing of it is refused by its own policy."""
    chrome.get("about:blank")  # the page of an earlier test goes on asking for a daemon that is gone
    complaints(chrome)
    chrome.get(page)
    wait_until(lambda: chrome.execute_script("return document.readyState") == "complete", "it is loaded")
    loaded = chrome.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert {"page.css", "page.js", "uplot.css", "uplot.js"} <= {name.rpartition("/")[2] for name in loaded}
    assert all(name.startswith(page) for name in loaded)
    assert [] == complaints(chrome)
