"""Shift+Tab on a name shows its docstring in JupyterLab."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.labs import of_cells, save

from .driver import open_notebook, picture, run_all, settle, visit
from .lab_server import serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def put_cells(folder: Path) -> None:
    """A notebook that has imported what is asked about."""
    cells = of_cells("from mspeckv import KVPolicy, generate", "generate")
    save(cells, folder / "help.ipynb")


def test_docstring_in_the_inspector(browser: Browser, tmp_path: Path) -> None:
    with serve(tmp_path, put_cells) as address:
        seen = visit(browser, height=900)
        page = seen.page
        open_notebook(page, address.format(name="help.ipynb"))
        run_all(page, 120)
        page.locator(".jp-CodeCell .cm-content").nth(1).click()
        page.keyboard.press("End")
        page.keyboard.press("Shift+Tab")
        tip = page.locator(".jp-Tooltip")
        settle(page, lambda: tip.count() == 1 and "Args:" in tip.inner_text(), 30, "help comes")
        text = tip.inner_text()
        assert all(part in text for part in ("pair", "prompt", "method", "Raises:", "ValueError"))
        picture(page, "help", "#main")
        assert seen.problems == []
        page.context.close()
