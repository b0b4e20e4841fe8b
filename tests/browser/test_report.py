"""The report's page in Chromium, opened as a file: everything is drawn, nothing is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from mspeckv_study.experiments.report import write_report
from mspeckv_widgets.charts.report_charts import CHARTS
from mspeckv_widgets.panels.report_page import page as html_page
from tests.experiment_rows import a1, a2, b1, row, write

from .driver import OUTPUT, settle, visit

pytestmark = pytest.mark.browser

DRAWN = """() => [...document.querySelectorAll('.js-plotly-plot')].map(plot => ({
  id: plot.id, points: (plot._fullData || []).reduce((n, t) => n + t.y.length, 0),
  height: plot.querySelector('.main-svg')?.clientHeight || 0,
  marks: plot.querySelectorAll('.scatterlayer .points path').length,
}))"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of three experiments, one trial of which failed."""
    folder = tmp_path_factory.mktemp("report")
    failed = row("B1", 4, "all-float", 1, error="RuntimeError: no <memory> left")
    write_report(write(folder, [*a1(), *a2(), *b1(), failed]), folder, html_page)
    return folder / "report.html"


@pytest.mark.parametrize(("width", "shot"), [(1280, "report.png"), (400, "report_narrow.png")])
def test_page_draws_and_fetches_nothing(
    browser: Browser, page_file: Path, width: int, shot: str
) -> None:
    seen = visit(browser, width=width, height=900)
    asked: list[str] = []
    seen.page.on("request", lambda request: asked.append(request.url))
    seen.page.goto(page_file.as_uri())
    charts = settle(
        seen.page,
        lambda: [one for one in seen.page.evaluate(DRAWN) if one["marks"] and one["height"] > 250],
        60,
        "charts are drawn",
    )
    assert len(charts) == 3 * len(CHARTS)
    assert all(one["points"] > 0 for one in charts)
    assert seen.page.locator("main table").count() == 3 + 5 + 5
    assert "RuntimeError: no <memory> left" in seen.page.inner_text("main")
    assert seen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    OUTPUT.mkdir(exist_ok=True)
    seen.page.screenshot(path=OUTPUT / shot, full_page=True)
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert seen.problems == []
    seen.page.context.close()
