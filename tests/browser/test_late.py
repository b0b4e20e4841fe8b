"""A page too busy to load our widgets in the two seconds that anywidget gives: they still hear."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.labs import of_cells, save

from .driver import open_notebook, run_all, settle, visit
from .lab_server import serve
from .live_cells import LIVE

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME = "late.ipynb"
PANEL = ".mskv-panel[aria-label='Live lab']"
NO_TIME = """const usual = AbortSignal.timeout.bind(AbortSignal);
AbortSignal.timeout = (ms) => usual(ms === 2000 ? 0 : ms);"""
"""anywidget's two seconds are over before any module can have come."""


DRAWN_LATER = """from mspeckv_widgets.charts.figure import Figure, lay_out
from mspeckv_widgets.panel import panel

figure = Figure()
lay_out(figure, "Drawn after it was made", 300)
figure.add_scatter(x=[1, 2, 3], y=[4, 5, 6], name="first")
panel("A figure", [figure])"""
READ_FIGURE = """(() => {
  const plot = document.querySelector(".mskv-panel[aria-label='A figure'] .js-plotly-plot");
  return [plot?.data?.map((one) => one.name), plot?.layout?.title?.text];
})()"""


def test_a_figure_that_came_late_shows_what_was_drawn(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cells = of_cells(DRAWN_LATER, 'figure.add_scatter(x=[1, 2], y=[2, 3], name="second")\nNone')
    home = tmp_path_factory.mktemp("late")
    with serve(home, lambda folder: save(cells, folder / NAME)) as address:
        visited = visit(browser, width=1366, height=900)
        page = visited.page
        page.add_init_script(NO_TIME)
        open_notebook(page, address.format(name=NAME))
        run_all(page, 120)
        title = "Drawn after it was made"
        settle(
            page, lambda: page.evaluate(READ_FIGURE) == [["first", "second"], title], 60,
            "the figure has both lines",
        )  # fmt: skip
        assert visited.late, "it was too late"
        assert visited.problems == []
        page.context.close()


def test_widgets_that_came_late_hear_what_is_new(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("late")
    with serve(home, lambda folder: save(of_cells(LIVE), folder / NAME)) as address:
        visited = visit(browser, width=1366, height=900)
        page = visited.page
        page.add_init_script(NO_TIME)
        open_notebook(page, address.format(name=NAME))
        run_all(page, 120)
        panel = page.locator(PANEL)
        panel.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=60_000)
        assert visited.late, "it was too late"
        panel.get_by_role("tab", name="Copy as code").click()
        code = panel.locator(".mskv-code")
        settle(page, lambda: "gamma=8" in code.inner_text(), 20, "the code is there")
        panel.get_by_role("slider", name="Gamma", exact=True).first.press("ArrowRight")
        settle(page, lambda: "gamma=9" in code.inner_text(), 20, "the code follows")
        assert visited.problems == []
        page.context.close()
