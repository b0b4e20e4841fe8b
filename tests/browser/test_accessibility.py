"""The live panel by day, by night, on a narrow screen and by keyboard; axe-core finds no fault.

`test_labs.py` puts the same question to every panel of every lab.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.labs import of_cells, save

from .axe import examine, grave
from .driver import Visit, await_figures, open_notebook, picture, publish, run_all, settle, visit
from .lab_server import serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TALL, NARROW = 1900, 480
COLOUR = "part => getComputedStyle(document.querySelector(part)).{}"
PANEL = """from mspeckv_widgets import LiveLab

panel = LiveLab()
panel.controls.set(prefill=256, new_tokens=16, link="off", budget=96)
panel"""
NAMELESS = """() => [...document.querySelectorAll(
  '.mskv-panel :is([role=slider], select, input, button, .widget-readout, .js-plotly-plot)')]
  .filter(one => one.checkVisibility() && !(one.ariaLabel || (one.labels || []).length
    || one.textContent.trim() && one.matches('button')))
  .map(one => one.outerHTML.slice(0, 200))"""


def put_panel(folder: Path) -> None:
    """A notebook with nothing but the live panel."""
    save(of_cells(PANEL), folder / "panel.ipynb")


@pytest.fixture(scope="module")
def seen(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """The panel, after a run."""
    with serve(tmp_path_factory.mktemp("panel"), put_panel) as address:
        visited = visit(browser, height=TALL)
        page = visited.page
        open_notebook(page, address.format(name="panel.ipynb"))
        run_all(page, 120)
        page.locator(".mskv-panel .js-plotly-plot").first.wait_for(timeout=60_000)
        page.locator(".mskv-run").focus()
        page.keyboard.press("Enter")
        done = page.locator(".mskv-status[data-state=done]")
        settle(page, lambda: done.count() == 1, 180, "the run ends")
        yield visited
        page.context.close()


@pytest.fixture
def page(seen: Visit) -> Iterator[Page]:
    """The page, by day and of full width."""
    page = seen.page
    look(page, "light", 1440)
    yield page
    assert seen.problems == []


def look(page: Page, scheme: str, width: int) -> None:
    """Change the theme and the room; what follows from that is drawn."""
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": width, "height": TALL})
    light = "false" if scheme == "dark" else "true"
    settle(page, lambda: page.evaluate("document.body.dataset.jpThemeLight") == light, 30, scheme)
    page.wait_for_timeout(900)
    await_figures(page)


def window_width(page: Page) -> int:
    """Of the browser's window."""
    size = page.viewport_size
    assert size is not None
    return size["width"]


def panel_width(page: Page) -> int:
    """Of the panel, in CSS pixels."""
    box = page.locator(".mskv-panel").bounding_box()
    assert box is not None
    return round(box["width"])


def luminance(page: Page, part: str, what: str) -> float:
    """Of a computed colour, from 0 (black) to 1 (white); roughly, as a mean of its channels."""
    text = page.evaluate(COLOUR.format(what), part)
    channels = [float(one) for one in text.split("(")[1].rstrip(")").split(",")[:3]]
    return sum(channels) / 3 / 255


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(page: Page, scheme: str) -> None:
    look(page, scheme, 1440)
    found = examine(page)
    assert grave(found) == []
    rules = {rule["id"] for rule in found["passes"]}
    assert {"aria-input-field-name", "button-name", "color-contrast", "select-name"} <= rules
    picture(page, f"panel_{scheme}", ".mskv-panel")
    if scheme == "dark":
        publish("panel_dark.png")


def test_everything_has_a_name(page: Page) -> None:
    assert page.evaluate(NAMELESS) == []
    assert page.get_by_role("slider", name="Gamma", exact=True).count() == 1
    assert page.get_by_role("combobox", name="Method").count() == 1
    assert page.get_by_role("figure", name="KV over the link").count() == 1
    assert page.get_by_role("region", name="Live lab").count() == 1


def test_figures_are_readable_by_night(page: Page) -> None:
    text, line = ".mskv-panel .xtick text", ".mskv-panel .ygrid"
    for scheme, dark in (("light", False), ("dark", True)):
        look(page, scheme, 1440)
        paper = luminance(page, ".mskv-panel", "backgroundColor")
        assert (paper < 0.2) is dark
        assert abs(luminance(page, text, "fill") - paper) > 0.6, "figures' text"
        assert 0.05 < abs(luminance(page, line, "stroke") - paper) < 0.4, "grid lines are quiet"


def test_narrow_panel_needs_no_sideways_scrolling(page: Page) -> None:
    look(page, "light", NARROW + 1440 - panel_width(page))
    # JupyterLab folds its own margins on a small window.
    look(page, "light", window_width(page) + NARROW - panel_width(page))
    assert panel_width(page) == pytest.approx(NARROW, abs=2)
    overflow = "panel => panel.scrollWidth - panel.clientWidth"
    assert page.locator(".mskv-panel").evaluate(overflow) <= 1
    for part in (".js-plotly-plot .main-svg", ".mskv-story", ".widget-hslider", ".widget-tab"):
        box = page.locator(f".mskv-panel {part}").first.bounding_box()
        assert box is not None
        assert box["width"] <= NARROW, part
    plot = page.locator(".mskv-panel .js-plotly-plot .main-svg").first.bounding_box()
    assert plot is not None
    assert plot["width"] > 0.9 * NARROW, "the figure uses the room there is"
    assert grave(examine(page)) == []
    page.set_viewport_size({"width": window_width(page), "height": 3000})
    page.wait_for_timeout(600)
    picture(page, "panel_narrow", ".mskv-panel")


def test_keyboard_reaches_and_moves_every_kind_of_control(page: Page) -> None:
    gamma = page.get_by_role("slider", name="Gamma", exact=True)
    before = float(gamma.get_attribute("aria-valuenow") or 0)
    gamma.focus()
    page.keyboard.press("ArrowRight")
    settle(page, lambda: float(gamma.get_attribute("aria-valuenow") or 0) > before, 10, "it moves")
    page.keyboard.press("Tab")
    assert "as a number" in str(page.evaluate("document.activeElement.ariaLabel"))
    method = page.get_by_role("combobox", name="Method")
    method.focus()
    page.keyboard.press("ArrowUp")
    settle(page, lambda: "triforce" in method.input_value(), 10, "the method changes")
    width = page.get_by_role("combobox", name="KV width")
    settle(page, width.is_disabled, 10, "triforce keeps floats")
    page.locator(".mskv-reset").focus()
    page.keyboard.press("Enter")
    settle(page, lambda: gamma.get_attribute("aria-valuenow") == "8.0", 10, "Reset resets")
