"""Panels whose kernel is gone show their last picture and what to do, in JupyterLab in Chromium."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from tests.labs import load, of_cells, save

from .driver import Visit, open_notebook, picture, run_all, settle, show_notebook, visit
from .lab_server import serve
from .messages import Message, overhear
from .restart_cells import (
    BUSY,
    LAST,
    LINE,
    PANEL,
    PREDICTIONS,
    open_again,
    restart,
)

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME, COPY = "gone.ipynb", "copy.ipynb"
LIVE = ".mskv-panel"
PARTS = 3
"""Panels in the notebook."""
SIGNS = """() => [...document.querySelectorAll('.mskv-panel, .mskv-panel *')]
  .filter(one => one.matches('.jupyter-widgets-disconnected'))
  .map(one => getComputedStyle(one, '::before'))
  .map(sign => sign.display !== 'none' && !['none', 'normal', '""'].includes(sign.content))"""
KILL = """() => { const context = window.jupyterapp.shell.currentWidget.context;
  context.sessionContext.session.kernel.requestExecute(
    { code: "import os; os.kill(os.getpid(), 9)" }).done.catch(() => {}); }"""
REACHED = """() => { const one = document.activeElement;
  return one.closest('.mskv-panel') && !one.matches('.mskv-story, .mskv-scroll')
    ? one.outerHTML.slice(0, 120) : ''; }"""
HIT = """button => { const box = button.getBoundingClientRect();
  const hit = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return Boolean(hit && hit.closest('button')); }"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's folder."""
    return tmp_path_factory.mktemp("restart")


@pytest.fixture(scope="module")
def sent() -> list[Message]:
    """What the page has told the kernel, as it comes."""
    return []


@pytest.fixture(scope="module")
def seen(browser: Browser, home: Path, sent: list[Message]) -> Iterator[Visit]:
    """The notebook, all cells run, its panels drawn, a button pressed."""
    cells = of_cells(PANEL, PREDICTIONS, BUSY)
    with serve(home, lambda folder: save(cells, folder / NAME)) as address:
        visited = visit(browser, width=1280, height=1500)
        page = visited.page
        overhear(page, sent.append, sent=True)
        open_notebook(page, address.format(name=NAME))
        run_all(page, 120)
        page.locator(f"{LIVE} .js-plotly-plot .main-svg").first.wait_for(timeout=60_000)
        page.locator(f"{LIVE} .mskv-run").click()
        page.locator(LIVE).get_by_text("pressed 1 times").wait_for()
        yield visited
        page.context.close()


@pytest.fixture
def page(seen: Visit) -> Page:
    """The page."""
    return seen.page


def pictures(sent: list[Message]) -> list[Message]:
    """Of the messages, those with a picture."""
    return [one for one in sent if '"kind": "picture"' in json.dumps(one.content)]


def test_pictures_come_at_rest_only(page: Page, sent: list[Message]) -> None:
    settle(page, lambda: len(pictures(sent)) >= PARTS, 30, "each panel has sent a picture")
    page.wait_for_timeout(3000)
    before = len(pictures(sent))
    page.wait_for_timeout(3000)
    assert len(pictures(sent)) == before, "nothing changed, nothing is sent"
    # the last cell's function draws ten times a second, for four seconds
    page.locator(f"{LIVE} .mskv-busy").click()
    page.locator(LIVE).get_by_text("drawing 40").wait_for(timeout=30_000)
    assert len(pictures(sent)) == before, "none while it is drawing"
    settle(page, lambda: len(pictures(sent)) > before, 10, "the end's picture")
    page.wait_for_timeout(3000)
    assert len(pictures(sent)) == before + 1
    assert max(len(json.dumps(one.content)) for one in pictures(sent)) < 150_000


def test_live_panels_hide_their_pictures(page: Page) -> None:
    assert page.locator(LAST).count() == PARTS
    assert page.locator(f"{LAST} img").count() == PARTS
    assert page.locator(f"{LAST}:visible").count() == 0


def test_after_a_restart_panels_are_at_rest(page: Page) -> None:
    panels = page.locator(LIVE)
    restart(page, panels)
    assert panels.get_by_text(LINE).count() == PARTS
    signs = page.evaluate(SIGNS)
    assert len(signs) > 20
    assert not any(signs), "no broken-link signs"
    assert panels.first.locator(".js-plotly-plot .main-svg").first.is_visible()
    assert "drawing 40" in panels.first.inner_text()
    assert "grayscale" in panels.first.locator(".js-plotly-plot").first.evaluate(
        "plot => getComputedStyle(plot.closest('.mskv-panel > *')).filter"
    )
    picture(page, "restarted")


def test_nothing_at_rest_can_be_clicked_or_reached(page: Page) -> None:
    assert not page.locator(f"{LIVE} .mskv-run").evaluate(HIT)
    page.locator(".jp-CodeCell .cm-content").first.evaluate("one => one.blur()")
    for _ in range(40):
        page.keyboard.press("Tab")
        assert page.evaluate(REACHED) == ""


def test_opened_again_without_the_kernel(page: Page, seen: Visit) -> None:
    last = open_again(page)
    assert last.count() == PARTS
    assert page.locator(f"{LAST} [role=status]").count() == PARTS
    lost = page.get_by_text("Error displaying widget").filter(visible=True)
    assert lost.count() == 0
    said = page.locator(f"{LAST} img").evaluate_all("all => all.map(one => one.alt)")
    assert "drawing 40" in said[0]
    assert "triforce" in said[0]
    assert "mspeckv" not in said[0], "an unchosen option is no value"
    assert "Recorded: int8" in said[2]
    inside = page.locator(f"{LAST} :is(button, input, select, a, [tabindex], script)")
    assert inside.count() == 0
    picture(page, "opened_again")
    # JupyterLab's own words of what asked a kernel that was ended, its debugger too
    own = ("Could not restore the debugger state", "Canceled future for")
    assert [one for one in seen.problems if not any(word in one for word in own)] == []
    seen.problems.clear()


def test_by_night_a_picture_is_dark(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    settle(
        page,
        lambda: page.evaluate("document.body.dataset.jpThemeLight") == "false",
        30,
        "it is night",
    )
    page.wait_for_timeout(2500)
    assert page.get_by_text(LINE).first.is_visible()
    shown = Image.open(io.BytesIO(page.locator(f"{LAST} img").first.screenshot())).convert("L")
    assert sum(shown.histogram()[:90]) > 0.6 * shown.width * shown.height
    picture(page, "opened_again_dark")
    page.emulate_media(color_scheme="light")


def test_an_untrusted_notebook_shows_line_and_picture(page: Page, home: Path) -> None:
    notebook = load(home / "labs" / NAME)
    notebook.cells[0].source += "\n# by somebody else"
    save(notebook, home / "labs" / COPY)
    show_notebook(page, COPY)
    page.wait_for_timeout(2000)
    copy = page.locator(".jp-Notebook:visible .jp-OutputArea").first
    assert copy.locator(".jp-mod-trusted").count() == 0
    assert copy.get_by_text(LINE).is_visible()
    assert copy.locator("img").evaluate("one => one.naturalWidth") > 900
    picture(page, "untrusted", ".jp-Notebook:visible")
    page.evaluate("window.jupyterapp.shell.currentWidget.close()")


def test_run_again_a_panel_lives(page: Page) -> None:
    show_notebook(page, NAME)
    run_all(page, 120)
    page.locator(f"{LIVE} .js-plotly-plot .main-svg").first.wait_for(timeout=60_000)
    assert page.locator(f"{LAST}:visible").count() == 0
    page.locator(f"{LIVE} .mskv-run").click()
    page.locator(LIVE).get_by_text("pressed 1 times").wait_for()


def test_a_kernel_that_died_says_so_too(page: Page) -> None:
    page.evaluate(KILL)
    line = page.locator(f"{LIVE} > .mskv-gone")
    settle(page, lambda: line.count() == PARTS, 60, "the line is there")
    settle(page, lambda: line.first.inner_text() == LINE, 10, "it has words")
