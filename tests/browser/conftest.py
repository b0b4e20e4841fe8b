"""One Chromium for all browser tests: a start costs seconds.

It ends with this folder's tests: Playwright's loop would be in the way of the notebooks' own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from .driver import FLAGS, chromium


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A headless Chromium; each test opens pages of its own with `driver.visit`."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield started
        started.close()
