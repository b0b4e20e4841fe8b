"""Tables of plain outputs and of panels: words on the left, numbers on the right, nothing cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.labs import of_cells, save

from .driver import Visit, open_notebook, picture, run_all, visit
from .lab_server import serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME = "tables.ipynb"
SCORE = """from mspeckv import KVPolicy, generate
from mspeckv.testing import SMALL, tiny_pair, tiny_prompt
from mspeckv_widgets.course import Lab

lab = Lab("00_start_here", folder=".")
policy = KVPolicy(8, on_chip=1, resident=0, block=16, group=16)
runs = [generate(tiny_pair(), tiny_prompt(), method=method, new_tokens=4, policy=policy,
                 speculation=SMALL) for method in ("autoregressive", "mspeckv")]
lab.score(runs)"""
OTHERS = """lab.predict("p1", "How many bytes of KV cross the link for each token?", "KB")
lab.reveal("p1", 12.5)
lab.progress()"""
WIDE = """import ipywidgets as ipw
from mspeckv_widgets.charts.table import table_html
from mspeckv_widgets.panel import panel

heads = ["run", *(f"number_{place}_without_a_gap" for place in range(12))]
row = ["a run", *(f"{place}.25 ms measured" for place in range(12))]
panel("Wide", [ipw.HTML(table_html("Many columns", heads, [row, row], 1))])"""
CELLS = """() => [...document.querySelectorAll('table.mskv-table')].map(table => {
  const area = table.closest('.jp-OutputArea-output').getBoundingClientRect();
  const box = table.closest('.mskv-scroll').getBoundingClientRect();
  return {
    caption: table.caption.innerText, panel: Boolean(table.closest('.jupyter-widgets')),
    area: area.width, over: box.right - area.right, wide: table.getBoundingClientRect().width,
    room: box.width, scrolls: table.closest('.mskv-scroll').scrollWidth - box.width,
    cells: [...table.querySelectorAll('th, td')].map(cell => ({
      number: cell.classList.contains('num'), align: getComputedStyle(cell).textAlign,
      cut: cell.scrollWidth > cell.clientWidth + 1, words: cell.innerText })) }; })"""


@pytest.fixture(scope="module")
def seen(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """The notebook at 1366 px with the file browser open: outputs are some 934 px wide."""
    cells = of_cells(SCORE, OTHERS, WIDE)
    home = tmp_path_factory.mktemp("tables")
    with serve(home, lambda folder: save(cells, folder / NAME)) as address:
        visited = visit(browser, width=1366, height=1200)
        open_notebook(visited.page, address.format(name=NAME))
        visited.page.keyboard.press("Control+b")
        run_all(visited.page, 120)
        visited.page.locator(".mskv-panel[aria-label=Wide] table").wait_for(timeout=60_000)
        yield visited
        visited.page.context.close()


@pytest.fixture
def page(seen: Visit) -> Page:
    """The page."""
    return seen.page


@pytest.fixture
def tables(page: Page) -> list[dict[str, Any]]:
    """All tables as they are laid out."""
    page.wait_for_timeout(500)
    found: list[dict[str, Any]] = page.evaluate(CELLS)
    assert len(found) == 4
    assert [one["panel"] for one in found] == [False, False, False, True]
    return found


def test_words_are_on_the_left_and_numbers_on_the_right(tables: list[dict[str, Any]]) -> None:
    cells = [cell for table in tables for cell in table["cells"]]
    assert {cell["align"] for cell in cells if cell["number"]} == {"right"}
    assert {cell["align"] for cell in cells if not cell["number"]} == {"left"}
    assert sum(not cell["number"] for cell in cells) > 20


def test_nothing_is_cut_off(page: Page, tables: list[dict[str, Any]]) -> None:
    for table in tables:
        assert table["area"] <= 934, table["caption"]
        assert table["over"] <= 1, "a box stays within its output"
        assert not [cell["words"] for cell in table["cells"] if cell["cut"]]
    score, wide = tables[0], tables[-1]
    assert score["caption"].startswith("Score card")
    assert score["wide"] <= score["room"] + 1, "six columns fit"
    assert wide["scrolls"] > 100, "thirteen scroll"
    page.locator(".mskv-panel[aria-label=Wide] .mskv-scroll").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(500)
    box = page.locator(".mskv-panel[aria-label=Wide] .mskv-scroll")
    assert box.evaluate("box => box.scrollLeft") > 0, "by keyboard too"
    picture(page, "tables")
