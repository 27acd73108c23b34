"""A real browser without a screen: headless Chromium, driven as a person would."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.support.require import need

_QUIET = (
    *("--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--disable-quic", "--disable-dev-shm-usage", "--disable-default-apps"),
)


@contextmanager
def browser(profile: Path) -> Iterator[Chrome]:
    """A browser with an empty profile, which is thrown away; it speaks to nobody but whom it is sent to."""
    chromium, driver = need("chromium", "chromedriver"), need("chromedriver")
    options = ChromeOptions()
    options.binary_location = chromium
    for argument in (*_QUIET, f"--user-data-dir={profile}", *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    try:
        chrome.set_page_load_timeout(60)
        yield chrome
    finally:
        chrome.quit()
