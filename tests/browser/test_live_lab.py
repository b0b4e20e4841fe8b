"""The live lab in JupyterLab in a headless Chromium: Run draws, Stop stops, Reset restores.

One page for all tests of this file, in order: a start of JupyterLab costs seconds.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from mspeckv.profiling import read_trace
from mspeckv.profiling.spans import tier_totals

from .driver import OUTPUT, Visit, open_notebook, publish, set_slider, settle, slider, visit
from .film import Film
from .lab_server import serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SCREENSHOT, ANIMATION = OUTPUT / "live_lab.png", OUTPUT / "live_lab.gif"
PANEL = ".mskv-panel:has(.mskv-run)"
READ_CHARTS = """() => {
  const plot = document.querySelector('.mskv-panel .js-plotly-plot');
  if (!plot || !plot._fullData) return null;
  return plot._fullData.map(t => ({
    name: t.name, axis: t.yaxis, kind: t.type, y: Array.from(t.y || []),
  }));
}"""

READ_WIDTHS = """() => {
  const plot = document.querySelector('.mskv-panel .widget-tab .js-plotly-plot');
  return [plot, plot.querySelector('.main-svg')].map(one => one.getBoundingClientRect().width);
}"""

READ_BARS = """() => {
  const plot = document.querySelector('.mskv-panel .widget-tab .js-plotly-plot');
  if (!plot || !plot._fullData) return null;
  return plot._fullData.flatMap(t => Array.from(t.x).map((ms, i) => ({
    name: t.name, lane: t.y[i], start: t.base[i], ms,
  })));
}"""


def state(page: Page) -> str:
    """The panel's state."""
    return str(page.locator(".mskv-panel .mskv-status").get_attribute("data-state"))


def points(page: Page, axis: str) -> int:
    """Points drawn in the current run's traces of one chart."""
    traces = page.evaluate(READ_CHARTS) or []
    return sum(len(t["y"]) for t in traces if t["axis"] == axis and t["name"])


@pytest.fixture(scope="module")
def seen(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """The notebook of the live lab, open, all cells run, its panel there."""
    with serve(tmp_path_factory.mktemp("jupyter")) as address:
        visited = visit(browser)
        page = visited.page
        open_notebook(page, address.format(name="01_live_lab.ipynb"))
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        page.locator(".mskv-panel .js-plotly-plot").wait_for(timeout=180_000)
        page.locator(".mskv-panel", has=page.locator(".mskv-run")).scroll_into_view_if_needed()
        yield visited
        page.context.close()


@pytest.fixture
def page(seen: Visit) -> Page:
    """The page with the panel."""
    return seen.page


@pytest.fixture(scope="module")
def film(seen: Visit) -> Film:
    """The panel during its first two runs."""
    return Film(seen.page, PANEL)


def test_run_moves_charts_and_text(page: Page, film: Film) -> None:
    assert state(page) == "idle"
    set_slider(page, "Prompt tokens", 512)
    page.locator(".mskv-run").click()
    settle(page, lambda: state(page) in ("decoding", "done"), 120, "decoding begins")
    before = settle(page, lambda: points(page, "y"), 60, "the link's chart moves")
    settle(page, lambda: points(page, "y") > before, 60, "the link's chart moves on")
    film.follow(lambda: state(page) == "done", 120)
    for axis in ("y", "y2", "y3"):
        assert points(page, axis) > 0, axis
    spans = page.locator(".mskv-story .mskv-token")
    assert spans.count() == 32
    tiers = set(spans.evaluate_all("all => all.map(one => one.dataset.tier)"))
    assert tiers <= {"0", "1", "2"}
    assert len(tiers) > 1
    assert "ms" in page.locator(".mskv-card").inner_text()


def test_last_run_stays_for_comparison(page: Page, film: Film) -> None:
    first = page.evaluate(READ_CHARTS)
    set_slider(page, "Resident layers", 8)
    page.locator(".mskv-run").click()
    settle(page, lambda: state(page) == "decoding", 120, "decoding begins")
    film.follow(lambda: state(page) == "done", 120)
    second = page.evaluate(READ_CHARTS)
    faded = [t for t in second if t["name"].startswith("#1 ") and t["y"]]
    assert {t["axis"] for t in faded} == {"y", "y2", "y3"}
    fetched = [sum(sum(t["y"]) for t in traces if t["kind"] == "bar") for traces in (first, second)]
    assert 0 < fetched[1] < fetched[0], "fewer offloaded layers, fewer bytes"
    assert page.locator(".mskv-panel tbody tr", has_text="#2 mspeckv").count() >= 1


def test_pictures_show_everything(page: Page, film: Film) -> None:
    page.locator(PANEL).evaluate("panel => panel.scrollIntoView({block: 'start'})")
    page.mouse.move(5, 5)
    page.wait_for_timeout(800)
    SCREENSHOT.parent.mkdir(parents=True, exist_ok=True)
    page.locator(PANEL).screenshot(path=SCREENSHOT)
    assert 20_000 < SCREENSHOT.stat().st_size < 400_000
    film.save(ANIMATION, seconds=20)
    assert 50_000 < ANIMATION.stat().st_size < 3_000_000
    with Image.open(ANIMATION) as shown:
        assert getattr(shown, "n_frames", 1) >= 6  # a fast machine is soon done
    for made in (SCREENSHOT, ANIMATION):
        publish(made.name)


def test_a_profile_shows_transfers_overlapping_compute(page: Page) -> None:
    set_slider(page, "Resident layers", 0)
    page.get_by_label("Link", exact=True).select_option(label="origin: slowest, emulated")
    page.locator(".mskv-profile").click()
    settle(page, lambda: state(page) == "rehearsal", 60, "a run without the profiler")
    settle(page, lambda: state(page) == "done", 240, "the profiled run ends")
    tab = page.locator(".mskv-panel .widget-tab")
    tab.locator(".js-plotly-plot").wait_for(timeout=180_000)
    bars = settle(page, lambda: page.evaluate(READ_BARS), 30, "the timeline is drawn")
    waits = [bar for bar in bars if bar["name"] == "kv/fetch"]
    passes = [bar for bar in bars if bar["name"].startswith("tier")]
    moved = [bar for bar in bars if bar["lane"] == "link"]
    assert moved
    assert passes

    def under(bar: dict[str, Any], others: list[dict[str, Any]]) -> float:
        """Milliseconds of ``bar`` that lie within others, which do not overlap one another."""
        end = bar["start"] + bar["ms"]
        shared = (min(end, o["start"] + o["ms"]) - max(bar["start"], o["start"]) for o in others)
        return float(sum(max(0.0, part) for part in shared))

    hidden = sum(under(bar, passes) - under(bar, waits) for bar in moved)
    assert hidden > 0.05 * sum(bar["ms"] for bar in moved)
    tab.scroll_into_view_if_needed()
    page.wait_for_timeout(1500)
    tab.screenshot(path=OUTPUT / "timeline.png")
    room, drawn = page.evaluate(READ_WIDTHS)
    assert drawn == pytest.approx(room, abs=2), "the figure fills its tab"
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Open trace: download").click()
    path = waiting.value.path()
    assert tier_totals(read_trace(Path(shutil.copy(path, path.with_suffix(".gz"))))).keys() == {
        0, 1, 2,
    }  # fmt: skip


def test_stop_stops_within_a_pass(page: Page) -> None:
    set_slider(page, "New tokens", 256)
    page.locator(".mskv-run").click()
    settle(page, lambda: state(page) == "decoding", 120, "decoding begins")
    settle(page, lambda: page.locator(".mskv-token").count() >= 2, 60, "text appears")
    page.locator(".mskv-stop").click()
    settle(page, lambda: state(page) == "stopped", 15, "the run stops")
    count, drawn = page.locator(".mskv-token").count(), points(page, "y")
    assert 0 < count < 256
    page.wait_for_timeout(1500)
    assert page.locator(".mskv-token").count() == count
    assert points(page, "y") == drawn


def test_a_page_loaded_anew_shows_the_same_charts(page: Page) -> None:
    drawn = page.evaluate(READ_CHARTS)
    page.keyboard.press("Control+s")
    page.wait_for_timeout(2000)
    page.reload(wait_until="domcontentloaded")
    page.locator(f"{PANEL} .js-plotly-plot").first.wait_for(timeout=60_000)
    settle(page, lambda: points(page, "y") > 0, 30, "charts are drawn again")
    assert page.evaluate(READ_CHARTS) == drawn
    assert state(page) == "stopped"


def test_reset_restores_controls(page: Page) -> None:
    set_slider(page, "On-chip layers", 30)
    settle(
        page, lambda: slider(page, "Resident layers").inner_text() == "0", 10, "layers are bounded"
    )
    page.locator(".mskv-reset").click()
    settle(page, lambda: state(page) == "idle", 15, "the panel is idle again")
    settle(page, lambda: slider(page, "On-chip layers").inner_text() == "15", 10, "on-chip is back")
    assert slider(page, "Prompt tokens").inner_text() == "1024"
    assert slider(page, "New tokens").inner_text() == "32"
    settle(page, lambda: points(page, "y") == 0, 10, "the charts are empty")
    assert page.locator(".mskv-token").count() == 0


def test_the_console_stayed_clean(seen: Visit) -> None:
    assert seen.problems == []
