"""What labs look at a pair with, on a hybrid and on a windowed model in JupyterLab in Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.labs import of_cells, save

from .driver import open_notebook, picture, run_all, settle, visit
from .keyboard import drive_all
from .lab_server import serve
from .live_cells import EXPLORED, EXPLORERS, MODELS

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME = "explored.ipynb"
EACH = 9
"""Panels of a model."""


def test_every_panel_is_drawn_and_answers(browser: Browser, tmp_path: Path) -> None:
    cells = of_cells(MODELS, EXPLORERS, *EXPLORED)
    with serve(tmp_path, lambda folder: save(cells, folder / NAME)) as address:
        visited = visit(browser, width=1366, height=1600)
        page = visited.page
        open_notebook(page, address.format(name=NAME))
        outputs = [output for cell in run_all(page, 180) for output in cell["outputs"]]
        assert not [one for one in outputs if one["output_type"] == "error"]
        panels = page.locator(".mskv-panel[aria-label]:visible")
        settle(page, lambda: panels.count() == EACH * len(EXPLORED), 60, "the panels are drawn")
        assert drive_all(page) >= 5 * len(EXPLORED)
        picture(page, "kinds_explored")
        assert visited.problems == []
        page.context.close()
