"""The ablation panel in JupyterLab: results are drawn, a sweep's rows arrive, Stop stops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Page

from tests.experiment_rows import a1, a2, b1, write
from tests.labs import save

from .driver import OUTPUT, Visit, open_notebook, run_all, settle, visit
from .lab_server import serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME = "ablation_panel.ipynb"
PANEL = ".mskv-panel[aria-label=Ablation]"
POINTS = f"""name => {{
  const plot = document.querySelector('{PANEL} .js-plotly-plot');
  return (plot?._fullData || []).filter(t => t.name === name && t.yaxis === 'y')
    .flatMap(t => Array.from(t.y || []));
}}"""


def prepare(folder: Path) -> None:
    """A notebook with the panel alone, beside results of three experiments."""
    kind = nbformat.v4
    cell = kind.new_code_cell('from mspeckv_widgets import Ablation\n\nAblation("A1", "rows")')
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    save(kind.new_notebook(cells=[cell], metadata=kernel), folder / NAME)
    write(folder / "rows", [*a1(), *a2(), *b1()])


@pytest.fixture(scope="module")
def seen(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """The panel, drawn."""
    with serve(tmp_path_factory.mktemp("ablation"), prepare) as address:
        visited = visit(browser, width=1280, height=1300)
        open_notebook(visited.page, address.format(name=NAME))
        run_all(visited.page, 120)
        visited.page.locator(f"{PANEL} .js-plotly-plot").wait_for(timeout=60_000)
        yield visited
        visited.page.context.close()


def state(page: Page) -> str:
    """The panel's state."""
    return str(page.locator(f"{PANEL} .mskv-status").get_attribute("data-state"))


def test_results_are_drawn_beside_the_published_ones(seen: Visit) -> None:
    page = seen.page
    drawn = settle(page, lambda: page.evaluate(POINTS, "mspeckv"), 30, "points are there")
    assert drawn == pytest.approx([40.0, 36.0, 35.0, 28.0])
    panel = page.locator(PANEL)
    assert "published 4.75x to 14.45x" in panel.inner_text()
    page.wait_for_timeout(800)
    legend = panel.locator(".legendtext").all_text_contents()
    assert len(legend) == len(set(legend)) > 0, "a line stands in the legend once"
    OUTPUT.mkdir(exist_ok=True)
    panel.screenshot(path=OUTPUT / "ablation.png")


def test_another_experiment(seen: Visit) -> None:
    page = seen.page
    experiment = page.locator(f"{PANEL} select").first
    experiment.select_option("A2: resident layers")
    settle(page, lambda: len(page.evaluate(POINTS, "mspeckv")) == 3, 30, "A2 is drawn")
    experiment.select_option("A1: context length")
    settle(page, lambda: len(page.evaluate(POINTS, "mspeckv")) == 4, 30, "A1 is drawn again")


def test_results_are_read_again_by_keyboard(seen: Visit) -> None:
    page = seen.page
    status = page.locator(f"{PANEL} .mskv-status")
    before = status.inner_text()
    page.wait_for_timeout(1100)
    page.locator(f"{PANEL} .mskv-load").focus()
    page.keyboard.press("Enter")
    settle(page, lambda: status.inner_text() != before, 30, "the status has a new time")


def test_a_sweep_arrives_and_stops(seen: Visit) -> None:
    page = seen.page
    page.get_by_label("Variants to run").select_option(["all-float", "autoregressive"])
    page.locator(f"{PANEL} .mskv-run").click()
    settle(page, lambda: state(page) == "running", 90, "the sweep begins")
    page.locator(f"{PANEL} .mskv-stop").click()
    settle(page, lambda: state(page) in {"stopped", "done"}, 90, "the sweep stops")
    assert "of 2 trials" in page.locator(f"{PANEL} .mskv-status").inner_text()
    page.locator(f"{PANEL} .mskv-load").click()
    settle(page, lambda: len(page.evaluate(POINTS, "mspeckv")) == 4, 30, "results are back")


def test_the_console_stayed_clean(seen: Visit) -> None:
    assert seen.problems == []
