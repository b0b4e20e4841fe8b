"""Every lab runs from top to bottom in JupyterLab, its widgets answer the keyboard, all look right.

This is the labs' one execution where there is a browser; each leaves a picture in `tests/output`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.labs import NOTEBOOKS, judge, load, minutes, named, save, solved_lab

from .axe import examine, grave
from .driver import (
    Visit,
    close_notebook,
    picture,
    run_all,
    settle,
    show_notebook,
    visit,
    whole_notebook,
)
from .keyboard import drive_all
from .lab_server import serve

pytestmark = [pytest.mark.browser, pytest.mark.labs, pytest.mark.slow]

# A reading pause between the end of the cells and the last drawing.
DRAWN_MS = 1200


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's."""
    return tmp_path_factory.mktemp("labs")


@pytest.fixture(scope="module")
def lab(browser: Browser, home: Path) -> Iterator[Visit]:
    """JupyterLab on a copy of the labs, no notebook open."""
    with serve(home) as address:
        seen = visit(browser, width=1280, height=1400)
        # under /tree an address without a file brings up a dialog
        seen.page.goto(address.replace("/tree/{name}", ""), wait_until="domcontentloaded")
        yield seen
        seen.page.context.close()


# What a lab measures, and a page that is driven for minutes, depend on what else this machine does:
# one that fails is run once more, which pytest says.
@pytest.mark.flaky(reruns=1)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_lab_in_jupyterlab(path: Path, lab: Visit, home: Path) -> None:
    page, notebook = lab.page, load(path)
    save(solved_lab(path), home / "labs" / path.name)
    show_notebook(page, path.name)
    start = time.monotonic()
    try:
        cells = run_all(page, 120 + 60 * minutes(notebook))
        judge(notebook, cells, time.monotonic() - start)
        page.wait_for_timeout(DRAWN_MS)
        with whole_notebook(page):
            picture(page, path.stem)
            faults = grave(examine(page))
        drive_all(page)
        problems = list(lab.problems)
    finally:
        # whatever failed here is not the next lab's
        close_notebook(page)
        closed = page.locator(".jp-Notebook")
        settle(page, lambda: closed.count() == 0, 30, "the notebook is closed")
        # A panel may have had something to say to the kernel that was just ended.
        lab.problems.clear()
    assert problems == []
    assert faults == []
