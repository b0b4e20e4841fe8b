"""A panel on a projector: it fills the screen, type is 20 px, figures grow, Escape leaves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.labs import of_cells, save

from .axe import examine, grave
from .driver import Visit, open_notebook, picture, run_all, settle, visit
from .lab_server import serve
from .restart_cells import PANEL

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME = "screen.ipynb"
BOX = ".mskv-panel[aria-label=Example]"
TOLD = """heard = []
shown.children[-1].observe(lambda change: heard.append(change["new"]), names="size")
shown"""
FILLED = f"""() => {{ const plot = document.querySelector('{BOX} .js-plotly-plot');
  return [plot.parentElement.clientWidth, plot._fullLayout.width, plot._fullLayout.height]; }}"""
TYPE = f"""() => Object.fromEntries([
  ["label", ".widget-label"], ["button", ".mskv-run"], ["dropdown", "select"],
  ["field", "input[type=text]"], ["number", ".widget-readout"], ["tab", ".lm-TabBar-tabLabel"],
  ["cell", ".mskv-table td"], ["story", ".mskv-story"], ["note", ".mskv-small"],
  ["tick", ".xtick text"], ["legend", ".legendtext"], ["title", ".gtitle"],
].map(([name, part]) => [name,
  parseFloat(getComputedStyle(document.querySelector(`{BOX} ${{part}}`)).fontSize)]))"""


@pytest.fixture(scope="module")
def seen(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """The panel, drawn."""
    cells = of_cells(PANEL.replace("\npanel(", "\nshown = panel("), TOLD)
    home = tmp_path_factory.mktemp("screen")
    with serve(home, lambda folder: save(cells, folder / NAME)) as address:
        visited = visit(browser, width=1920, height=1080)
        open_notebook(visited.page, address.format(name=NAME))
        run_all(visited.page, 120)
        visited.page.locator(f"{BOX} .gtitle").wait_for(timeout=60_000)
        visited.page.locator(BOX).scroll_into_view_if_needed()
        yield visited
        visited.page.context.close()


@pytest.fixture
def page(seen: Visit) -> Page:
    """The page."""
    return seen.page


@pytest.fixture(scope="module")
def usual(seen: Visit) -> dict[str, Any]:
    """Sizes of type before."""
    return dict(seen.page.evaluate(TYPE))


def is_big(page: Page) -> bool:
    """Whether the panel fills the screen."""
    return bool(page.evaluate(f"document.fullscreenElement === document.querySelector('{BOX}')"))


def test_by_keyboard_into_full_screen(page: Page, usual: dict[str, Any]) -> None:
    assert max(usual.values()) < 20
    button = page.locator(BOX).get_by_role("button", name="Full screen", exact=True)
    corner, panel = button.bounding_box(), page.locator(BOX).bounding_box()
    assert corner is not None
    assert panel is not None
    assert corner["x"] + corner["width"] == pytest.approx(panel["x"] + panel["width"], abs=2)
    assert corner["y"] == pytest.approx(panel["y"], abs=2)
    page.locator(f"{BOX} [role=tab]").last.focus()
    for _ in range(4):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.ariaLabel") == "Full screen":
            break
    page.keyboard.press("Enter")
    settle(page, lambda: is_big(page), 10, "the panel fills the screen")
    box = page.locator(BOX).bounding_box()
    assert box is not None
    assert (box["width"], box["height"]) == (1920, 1080)


def test_type_is_large(page: Page) -> None:
    settle(page, lambda: page.evaluate(TYPE)["tick"] >= 20, 20, "figures have grown")
    page.wait_for_timeout(800)
    large = page.evaluate(TYPE)
    for name in ("label", "button", "dropdown", "field", "number", "tab", "cell", "note", "tick"):
        assert large[name] == pytest.approx(20, abs=0.1), name
    assert large["story"] >= 20
    assert large["title"] >= 20
    assert large["legend"] >= 18
    room, width, height = page.evaluate(FILLED)
    assert width == pytest.approx(room, abs=2), "a figure fills its room"
    assert height > 400, "it was 260 px high"
    picture(page, "full_screen", BOX)


def test_nothing_is_cut_off(page: Page) -> None:
    cut = page.locator(
        f"{BOX} :is(.jupyter-button, .widget-label, .lm-TabBar-tabLabel)"
    ).evaluate_all(
        "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.innerText)"
    )
    assert cut == []
    assert page.locator(BOX).evaluate("panel => panel.scrollWidth - panel.clientWidth") <= 1
    assert grave(examine(page)) == []


def test_escape_leaves(page: Page, usual: dict[str, Any], seen: Visit) -> None:
    page.keyboard.press("Escape")
    settle(page, lambda: not is_big(page), 10, "the panel is in its notebook again")
    settle(page, lambda: page.evaluate(TYPE) == usual, 20, "type is as before")
    page.wait_for_timeout(800)
    room, width, height = page.evaluate(FILLED)
    assert width == pytest.approx(room, abs=2)
    assert height == 260
    page.locator(".jp-CodeCell .cm-content").last.click()
    page.keyboard.press("Control+a")
    page.keyboard.type('print("told", [big for *_, big in heard][-1], max(w for w, *_ in heard))')
    page.keyboard.press("Control+Enter")
    page.get_by_text("told False 1920").wait_for(timeout=20_000)
    assert seen.problems == []
