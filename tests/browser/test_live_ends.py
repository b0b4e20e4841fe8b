"""What becomes of a `LiveLab`: on a projector, in two views, after a restart, without its kernel.

One page for all tests of this file, in order: a start of JupyterLab costs seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page

from tests.labs import load, of_cells, save

from .axe import examine, grave
from .driver import READY, Visit, open_notebook, picture, run_all, set_slider, settle, visit
from .lab_server import serve
from .live_cells import LIVE
from .live_page import (
    CAN_BE_CUT,
    CLOSE_VIEW,
    COUNT_CHANGES,
    CUT,
    FILLED,
    GIVE_UP,
    PANEL,
    SMALL_TYPE,
    TIME_A_PRESS,
    WATCH_ROUNDS,
    WIDE,
    gamma,
    is_big,
    open_view,
    press_run,
    tiles_differ,
    told,
)
from .logs import Logs, clean_log
from .restart_cells import LAST, SAVE, open_again, restart

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.slow]

NAME = "ends.ipynb"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's folder."""
    return tmp_path_factory.mktemp("ends")


@pytest.fixture(scope="module")
def seen(browser: Browser, home: Path) -> Iterator[tuple[Visit, Logs]]:
    """The panel, drawn, after one run; and both logs."""
    cells = of_cells(LIVE)
    with serve(home, lambda folder: save(cells, folder / NAME)) as address:
        visited = visit(browser, width=1920, height=1080)
        page = visited.page
        logs = Logs(page, home / "server.log")
        open_notebook(page, address.format(name=NAME))
        run_all(page, 120)
        page.locator(f"{PANEL} .js-plotly-plot .main-svg").first.wait_for(timeout=60_000)
        press_run(page.locator(PANEL).first)
        yield visited, logs
        page.context.close()


@pytest.fixture
def page(seen: tuple[Visit, Logs]) -> Page:
    """The page."""
    return seen[0].page


@pytest.fixture
def logs(seen: tuple[Visit, Logs]) -> Logs:
    """Both sides' logs."""
    return seen[1]


def test_a_press_is_seen_at_once(page: Page) -> None:
    panel, took = page.locator(PANEL).first, []
    for _ in range(6):
        passed, state = panel.evaluate(TIME_A_PRESS)
        assert state in ("prefill", "decoding")
        took.append(passed)
        done = panel.locator(".mskv-status[data-state=done]")
        settle(page, done.count, 60, "the run ends")
        page.wait_for_timeout(500)
    # other tests may be at work beside this one: what it takes undisturbed counts
    print("milliseconds from a press to progress:", [round(one) for one in took])
    assert min(took) < 200, took


def test_the_moving_picture_follows_a_run(page: Page, logs: Logs) -> None:
    panel = page.locator(PANEL).first
    with clean_log(page, logs):
        panel.get_by_role("tab", name="A round, moving").click()
        panel.get_by_role("button", name="More").click()
        set_slider(page, "New tokens", 256)
        panel.evaluate(WATCH_ROUNDS)
        press_run(panel)
        slide = panel.locator(".mskv-mr").get_by_role("slider", name="Round")
        many = panel.locator(".mskv-mr[data-round]")
        settle(
            page,
            lambda: (
                int(many.get_attribute("data-round") or 0) + 1
                == int(slide.get_attribute("max") or 0)
            ),
            10,
            "it ends at the last round",
        )
        rounds = page.evaluate("() => { clearInterval(window.mskvLook); return [...mskvRounds]; }")
        assert len(rounds) >= 3, f"rounds appear while it runs: {rounds} of {many.count()}"
        picture(page, "live_moving", PANEL)
        set_slider(page, "New tokens", 8)
        panel.get_by_role("button", name="Less").click()
        panel.get_by_role("tab", name="Last runs").click()


def test_on_a_projector_everything_is_large(page: Page, logs: Logs) -> None:
    panel = page.locator(PANEL).first
    with clean_log(page, logs):
        panel.get_by_role("button", name="Full screen", exact=True).click()
        settle(page, lambda: is_big(panel), 10, "the panel fills the screen")
        settle(page, lambda: panel.evaluate(SMALL_TYPE) == [], 20, "all type has grown")
        page.wait_for_timeout(800)
        assert panel.evaluate(SMALL_TYPE) == []
        room, width, height = panel.locator(".js-plotly-plot").first.evaluate(FILLED)
        assert width == pytest.approx(room, abs=2), "the charts fill their room"
        assert width > 1200
        assert height >= 500, "higher than the usual 322 px"
        assert panel.evaluate(WIDE) <= 1
        panel.get_by_role("button", name="More").click()
        page.wait_for_timeout(400)
        assert panel.locator(CAN_BE_CUT).evaluate_all(CUT) == []
        panel.get_by_role("button", name="Less").click()
        assert grave(examine(page)) == []
        picture(page, "live_full_screen", PANEL)
        # a run and its tabs draw large, too
        press_run(panel)
        for tab in panel.locator("[role=tab]").all():
            tab.click()
            settle(page, lambda: panel.evaluate(SMALL_TYPE) == [], 20, tab.inner_text())
        panel.locator("[role=tab]").first.click()
        page.keyboard.press("Escape")
        settle(page, lambda: not is_big(panel), 10, "it is in its notebook again")
        chart = panel.locator(".js-plotly-plot").first

        def as_before() -> bool:
            room, width, height = chart.evaluate(FILLED)
            return bool(abs(width - room) <= 2 and height == 322)

        settle(page, as_before, 10, "the charts have their usual size")


def test_two_views_are_one_panel(page: Page, logs: Logs) -> None:
    with clean_log(page, logs):
        first, second = open_view(page)
        settle(page, lambda: told(first) == told(second), 20, "both show the same")
        for one, other, key in ((first, second, "ArrowRight"), (second, first, "ArrowLeft")):
            before = told(other)["tiles"]
            gamma(one).press(key)
            predicted = partial(tiles_differ, other, before)
            settle(page, predicted, 10, "the other view predicts, too")
            settle(page, lambda: told(first) == told(second), 20, "both show the same")
        for one in (second, first):
            gamma(one).press("ArrowRight")
            press_run(one)
            settle(page, lambda: told(first) == told(second), 20, "both show the same")
        assert "Done: 8 of 8" in told(first)["status"]
        picture(page, "live_two_views", "#main")


def test_two_views_of_different_width_come_to_rest(page: Page, logs: Logs) -> None:
    """Each has its own room: neither may take turns with the other in saying what it is."""
    with clean_log(page, logs):
        first, second = page.locator(PANEL).first, page.locator(PANEL).last
        second.evaluate("one => { one.style.width = '480px'; }")
        settle(page, lambda: second.evaluate("one => one.clientWidth") < 600, 10, "one is narrow")
        page.wait_for_timeout(2500)
        moved = page.evaluate(COUNT_CHANGES)
        assert moved == 0, "nothing is drawn while nothing happens"
        for one in (first, second):
            assert one.evaluate(WIDE) <= 1
            plot = one.locator(".js-plotly-plot").first.bounding_box()
            room = one.bounding_box()
            assert plot is not None
            assert room is not None
            assert plot["x"] + plot["width"] <= room["x"] + room["width"] + 1
        picture(page, "live_two_widths", "#main")
        second.evaluate("one => { one.style.width = ''; }")


def test_a_page_loaded_anew_keeps_its_picture_up_to_date(page: Page, home: Path) -> None:
    """JupyterLab lets fall what is sent for an output that was there before the page."""
    page.evaluate(CLOSE_VIEW)
    panel = page.locator(PANEL)
    settle(page, lambda: panel.count() == 1, 10, "the further view is closed")
    page.wait_for_timeout(5500)
    page.evaluate(SAVE)
    page.wait_for_timeout(1000)
    first = kept_picture(home)
    load_again(page)
    gamma(panel).press("ArrowRight")
    page.wait_for_timeout(7000)
    assert page.locator(f"{LAST}:visible").count() == 0
    page.evaluate(SAVE)
    page.wait_for_timeout(1000)
    second = kept_picture(home)
    assert int(second["drawn"]) > int(first["drawn"])
    value = re.compile(r"Gamma (\d+)")
    before, after = (value.search(one["words"]) for one in (first, second))
    assert before is not None
    assert after is not None
    assert int(after[1]) == int(before[1]) + 1


def test_a_panel_that_jupyterlab_gave_up_on_is_drawn_all_the_same(page: Page) -> None:
    """What is left where the page was busy while JupyterLab looked for the model: its words."""
    panel = load_again(page)
    charts = panel.locator(".js-plotly-plot .main-svg").first
    page.evaluate(GIVE_UP)
    assert panel.count() == 0
    charts.wait_for(timeout=60_000)
    before = told(panel)["tiles"]
    gamma(panel).press("ArrowLeft")
    settle(page, lambda: tiles_differ(panel, before), 10, "it hears and answers")
    assert page.locator(f"{LAST}:visible").count() == 0
    press_run(panel)
    # the view whose place was emptied by hand is still there: JupyterLab makes none in such a case
    page.wait_for_timeout(5500)
    page.evaluate(SAVE)
    page.wait_for_timeout(1000)
    load_again(page)


def load_again(page: Page) -> Locator:
    """Load the page anew, and wait until its panel is drawn."""
    page.reload(wait_until="domcontentloaded")
    settle(page, lambda: page.evaluate(READY), 120, "the kernel is there again")
    panel = page.locator(PANEL)
    panel.locator(".js-plotly-plot .main-svg").first.wait_for(timeout=60_000)
    return panel


def kept_picture(home: Path) -> dict[str, str]:
    """When the picture in the saved notebook was drawn, and its words."""
    text = "".join(
        "".join(output.get("data", {}).get("text/html", ""))
        for output in load(home / "labs" / NAME).cells[0].outputs
    )
    drawn, words = re.search(r'data-drawn="(\d+)"', text), re.search(r'alt="([^"]*)"', text)
    assert drawn is not None
    assert words is not None
    return {"drawn": drawn[1], "words": words[1]}


def test_after_a_restart_it_is_at_rest(page: Page) -> None:
    panel = page.locator(PANEL)
    before = told(panel)
    page.wait_for_timeout(4500)
    restart(page, panel)
    assert told(panel) == before
    picture(page, "live_restarted", "#main")


def test_opened_again_without_the_kernel(page: Page, seen: tuple[Visit, Logs]) -> None:
    last = open_again(page)
    assert last.count() == 1
    said = str(last.locator("img").get_attribute("alt"))
    for words in ("Last picture of Live lab", "KV over the link per token", "Done: 8 of 8 tokens"):
        assert words in said
    picture(page, "live_opened_again", "#main")
    # JupyterLab's own words, of its debugger's kernel and of plotly's comms, all gone
    own = ("debugger state", "Canceled future for", "Cannot send")
    assert [one for one in seen[0].problems if not any(word in one for word in own)] == []
