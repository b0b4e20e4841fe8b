"""One Chromium for all browser tests: a start costs seconds.

It ends with this folder's tests: Playwright's loop would be in the way of the notebooks' own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from mspeckv_study.cli import main

from .driver import FLAGS, chromium
from .site_pages import Opened, opened


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A headless Chromium; each test opens pages of its own with `driver.visit`."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as anybody builds it."""
    folder = tmp_path_factory.mktemp("site")
    assert main(["site", "build", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def shown(browser: Browser) -> Iterator[Opened]:
    """One window for the tests of the site's that need no other."""
    with opened(browser) as made:
        yield made
