"""Panels on a hybrid and on a windowed model, in JupyterLab in Chromium.

One page for all tests of this file: a start of JupyterLab costs seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page

from tests.labs import of_cells, save

from .driver import Visit, open_notebook, picture, run_all, settle, visit
from .lab_server import serve
from .live_cells import HYBRID, MODELS, WINDOWED
from .live_page import CAN_BE_CUT, CUT, DRAWN, PANEL, WIDE, press_run
from .logs import Logs, clean_log

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME = "kinds.ipynb"
KINDS = ("hybrid", "windowed")
"""In the order of the notebook."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's folder."""
    return tmp_path_factory.mktemp("kinds")


@pytest.fixture(scope="module")
def seen(browser: Browser, home: Path) -> Iterator[tuple[Visit, Logs]]:
    """Both panels, drawn; and both logs."""
    cells = of_cells(MODELS, HYBRID, WINDOWED)
    with serve(home, lambda folder: save(cells, folder / NAME)) as address:
        visited = visit(browser, width=1366, height=1600)
        page = visited.page
        logs = Logs(page, home / "server.log")
        open_notebook(page, address.format(name=NAME))
        with clean_log(page, logs):
            run_all(page, 120)
            drawn = page.locator(f"{PANEL} .js-plotly-plot .main-svg")
            settle(page, lambda: drawn.count() >= len(KINDS), 60, "the panels are drawn")
        yield visited, logs
        page.context.close()


@pytest.fixture
def page(seen: tuple[Visit, Logs]) -> Page:
    """The page."""
    return seen[0].page


@pytest.fixture
def logs(seen: tuple[Visit, Logs]) -> Logs:
    """Both sides' logs."""
    return seen[1]


def panel_of(page: Page, kind: str) -> Locator:
    """The panel on a kind of model, in sight."""
    panel = page.locator(PANEL).nth(KINDS.index(kind))
    panel.scroll_into_view_if_needed()
    return panel


@pytest.mark.parametrize("kind", KINDS)
def test_placement_is_of_the_layers_that_grow(page: Page, kind: str) -> None:
    panel = panel_of(page, kind)
    assert "of 2 layers that grow, of 4" in panel.locator(".mskv-placement").inner_text()
    for name in ("On-chip", "Resident"):
        handle = panel.get_by_role("slider", name=name, exact=True).first
        assert handle.get_attribute("aria-valuemax") in ("2", "2.0")
    assert panel.evaluate(WIDE) <= 1
    assert panel.locator(f"{CAN_BE_CUT}:visible").evaluate_all(CUT) == []


@pytest.mark.parametrize("kind", KINDS)
def test_runs_draw_text_and_charts_and_log_nothing(page: Page, logs: Logs, kind: str) -> None:
    panel = panel_of(page, kind)
    with clean_log(page, logs):
        press_run(panel)
        assert "Done: 16 of 16 tokens" in panel.locator(".mskv-status").first.inner_text()
        # bytes that are no whole character are shown together
        assert 0 < panel.locator(".mskv-token").count() <= 16
        lines = panel.locator(".js-plotly-plot").first.evaluate(DRAWN)
        assert sum(count for count, _, _ in lines) > 0
        # all growing layers on the device: nothing is left to cross the link
        set_slider_of(panel, 2)
        press_run(panel)
    assert "0 offloaded" in panel.locator(".mskv-placement").inner_text()
    assert panel.locator("tbody tr:has-text('#')").count() == 2
    picture(page, f"kinds_{kind}", f"{PANEL} >> nth={KINDS.index(kind)}")


def set_slider_of(panel: Locator, value: int) -> None:
    """Move a panel's on-chip slider by its keys."""
    handle = panel.get_by_role("slider", name="On-chip", exact=True).first
    handle.focus()
    for _ in range(value):
        panel.page.keyboard.press("ArrowRight")
    text = panel.locator(".mskv-placement")
    settle(panel.page, lambda: f"{value} on-chip" in text.inner_text(), 20, "layers are placed")
