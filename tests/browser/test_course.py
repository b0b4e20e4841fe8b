"""What a lab shows in JupyterLab: *Explain* opens in time, hints are counted, explorers fit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, Page

from tests.labs import of_cells, save

from .axe import examine, grave
from .driver import Visit, open_notebook, picture, run_all, settle, visit
from .lab_server import serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME = "course.ipynb"
LAB = "00_start_here"
BEGIN = f"""from mspeckv.testing import tiny_pair, tiny_prompt
from mspeckv_widgets import AcceptanceExplorer, QuantExplorer, RetrievalExplorer
from mspeckv_widgets.course import Lab
lab = Lab("{LAB}", folder=".")
lab.predict("p1", "How many KB?")
lab.predict("p2", "And how many MB?")"""
FIRST, SECOND = (
    f'lab.reveal("{name}", {result}, explain={explain})'
    for name, result, explain in (("p1", 46, False), ("p2", 3, True))
)
EXPLAIN = "<details><summary><b>Explain</b></summary>\n\nThe reason why, number {}.\n\n</details>"
WRONG = 'lab.check("e1", lambda layers, kv_heads, head_dim, itemsize: 3)'
EXPLORERS = (
    "QuantExplorer(tiny_pair(), tiny_prompt(200))",
    "RetrievalExplorer(tiny_pair(), tiny_prompt(960))",
    "AcceptanceExplorer([0.5, 0.3, 0.2], [0.2, 0.5, 0.3])",
)
FOLDS = "() => [...document.querySelectorAll('.jp-RenderedMarkdown details')].map(one => one.open)"
AT = """() => { const text = document.querySelector('.mskv-story');
  const [seen, part] = [text, text.querySelector('[aria-current=true]')]
    .map(one => one.getBoundingClientRect());
  return { seen: part.top >= seen.top && part.bottom <= seen.bottom, top: text.scrollTop,
    long: text.scrollHeight > 2 * text.clientHeight }; }"""
BESIDE = """panel => { const [width, plot] = ['select', '.js-plotly-plot']
    .map(one => panel.querySelector(one).getBoundingClientRect());
  return { beside: plot.left > width.right, height: plot.height, wide: plot.width,
    over: panel.scrollWidth - panel.clientWidth }; }"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's folder."""
    return tmp_path_factory.mktemp("course")


@pytest.fixture(scope="module")
def seen(browser: Browser, home: Path) -> Iterator[Visit]:
    """The notebook, run from top to bottom, at 1366 x 768 with the file browser open."""
    notebook = of_cells(BEGIN, FIRST, SECOND, WRONG, *EXPLORERS)
    explained = [nbformat.v4.new_markdown_cell(EXPLAIN.format(number)) for number in (1, 2)]
    notebook.cells[3:3] = explained
    with serve(home, lambda folder: save(notebook, folder / NAME)) as address:
        visited = visit(browser, width=1366, height=768)
        open_notebook(visited.page, address.format(name=NAME))
        visited.page.keyboard.press("Control+b")
        closed = [False, False]
        settle(visited.page, lambda: visited.page.evaluate(FOLDS) == closed, 30, "all is folded")
        run_all(visited.page, 120)
        visited.page.locator(
            ".mskv-panel[aria-label='Acceptance explorer'] .js-plotly-plot"
        ).wait_for(timeout=60_000)
        yield visited
        visited.page.context.close()


@pytest.fixture
def page(seen: Visit) -> Page:
    """The page."""
    return seen.page


def panel(page: Page, name: str) -> Any:
    return page.locator(f".mskv-panel[aria-label='{name}']")


def test_a_reveal_opens_the_explanation_that_comes_next(page: Page) -> None:
    settle(page, lambda: page.evaluate(FOLDS) == [True, False], 30, "one is open")
    for number, there in ((1, True), (2, False)):
        words = page.get_by_role("paragraph").filter(has_text=f"The reason why, number {number}.")
        assert words.is_visible() == there


def test_hints_open_one_by_one_and_are_kept(page: Page, home: Path) -> None:
    file = home / "labs" / ".mspeckv-progress.json"

    def kept() -> int:
        labs = json.loads(file.read_text(encoding="utf-8"))["labs"]
        return int(labs[LAB]["exercises"]["e1"]["hints"])

    box = panel(page, "Hints for e1")
    button = box.locator("button.jupyter-button")
    assert kept() == 0
    for count, title in enumerate(("Hint", "The first step", "A solution"), 1):
        assert button.inner_text() == title
        button.focus()
        page.keyboard.press("Enter")
        settle(page, lambda count=count: kept() == count, 30, f"{count} are kept")  # type: ignore[misc]
        box.locator(".mskv-hint b", has_text=title).wait_for(timeout=30_000)
        assert button.evaluate("one => document.activeElement === one"), "the focus stays"
    assert "return 2 * layers" in box.inner_text()


def test_a_retrieved_chunk_is_moved_into_sight(page: Page) -> None:
    box = panel(page, "Retrieval explorer")
    readout = box.locator(".widget-hslider", has=page.get_by_text("Read chunk", exact=True))
    readout = readout.locator(".widget-readout")
    for chunk, top in (("90", False), ("0", True)):
        readout.click()
        readout.fill(chunk)
        readout.press("Enter")
        box.get_by_text(f"Chunk {chunk}:").wait_for(timeout=30_000)
        found = settle(page, lambda: (at := page.evaluate(AT))["seen"] and at, 30, "it is in sight")
        assert found["long"], "else there is nothing to move"
        assert (found["top"] == 0) == top


def test_controls_and_charts_share_a_screen(page: Page) -> None:
    found = panel(page, "Quantization explorer").evaluate(BESIDE)
    assert found["beside"]
    assert found["height"] < 640
    assert found["wide"] >= 440
    assert found["over"] <= 0


def test_a_step_is_seen(page: Page) -> None:
    box = panel(page, "Acceptance explorer")
    step = box.get_by_role("button", name="Step")
    for words in ("Next: accept it with chance", "u = ", "emitted|drawn from the residual"):
        step.click()
        box.locator("[role=status]", has_text=re.compile(words)).wait_for()
    picture(page, "acceptance", ".mskv-panel[aria-label='Acceptance explorer']")
    picture(page, "quantization", ".mskv-panel[aria-label='Quantization explorer']")
    picture(page, "hints", ".mskv-panel[aria-label='Hints for e1']")
    assert grave(examine(page)) == []


def test_nothing_went_wrong(seen: Visit) -> None:
    assert seen.problems == []
