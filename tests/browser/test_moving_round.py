"""The moving picture in JupyterLab in Chromium: it plays, pauses, steps, and stands still if asked.

One page for all tests of this file, in order: a start of JupyterLab costs seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page

from tests.labs import of_cells, save

from .axe import examine, grave
from .driver import Visit, open_notebook, picture, run_all, settle, visit
from .lab_server import serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TALL = 1500
CELLS = (
    """from mspeckv import KVPolicy, RunConfig, Sampling, documents, load_pair, stream
from mspeckv_widgets import MovingRound

pair = load_pair()
prompt = documents.load_document("python-reference", pair.tokenizer, 256)
policy = KVPolicy(bits=8, on_chip=8, resident=7)
config = RunConfig.build(
    policy=policy, new_tokens=16, link="live", sampling=Sampling(temperature=0)
)
events = list(stream(pair, prompt, config))
shown = MovingRound(events, pair)
shown""",
    """import threading
import time

live = MovingRound((), pair, policy)


def feed():
    for event in events:
        live.add(event)
        time.sleep(0.1)


threading.Thread(target=feed).start()
live""",
)
PICTURE = ".mskv-mr[data-round]"
MOVING = """picture => JSON.stringify([...picture.querySelectorAll('.chip, .moving, .hand')].map(
  one => [one.getAttribute('transform'), one.getAttribute('x1'), one.style.opacity]))"""
NAME = """() => { const one = document.activeElement;
  return (one.labels && one.labels[0] || one).textContent; }"""
OVERFLOW = "panel => panel.scrollWidth - panel.clientWidth"
SMALLEST = """picture => Math.min(...[...picture.querySelectorAll('svg text')]
  .filter(one => one.textContent.trim() && +getComputedStyle(one).opacity > 0)
  .map(one => one.getBoundingClientRect().height))"""


def put_cells(folder: Path) -> None:
    """A notebook with a recorded run, and with the same one fed as if it were live."""
    save(of_cells(*CELLS), folder / "moving.ipynb")


@pytest.fixture(scope="module")
def seen(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """The picture of a real run."""
    with serve(tmp_path_factory.mktemp("moving"), put_cells) as address:
        visited = visit(browser, width=1280, height=TALL)
        page = visited.page
        open_notebook(page, address.format(name="moving.ipynb"))
        run_all(page, 180)
        settle(page, lambda: page.locator(PICTURE).count() == 2, 60, "both pictures are drawn")
        yield visited
        page.context.close()


@pytest.fixture
def page(seen: Visit) -> Iterator[Page]:
    """The page; nothing may have gone wrong on it."""
    yield seen.page
    assert seen.problems == []


@pytest.fixture
def shown(page: Page) -> Locator:
    """The recorded run's picture, held at its first round."""
    found = page.locator(PICTURE).first
    if found.get_attribute("data-playing") == "true":
        found.get_by_role("button", name="Pause").click()
    found.get_by_role("slider", name="Round").fill("1")
    found.scroll_into_view_if_needed()
    return found


def beat(shown: Locator) -> int:
    """The number of what happens now."""
    return int(shown.get_attribute("data-beat") or -1)


def said(shown: Locator) -> str:
    return shown.locator(".mskv-mr-words").inner_text()


def test_it_stands_until_it_is_played_and_pauses(page: Page, shown: Locator) -> None:
    still = shown.evaluate(MOVING)
    page.wait_for_timeout(400)
    assert shown.evaluate(MOVING) == still
    shown.get_by_role("button", name="Play").click()
    pictures = set()
    for _ in range(20):
        page.wait_for_timeout(100)
        pictures.add(shown.evaluate(MOVING))
    assert len(pictures) >= 10, "it moves"
    shown.get_by_role("button", name="Pause").click()
    still = shown.evaluate(MOVING)
    page.wait_for_timeout(400)
    assert shown.evaluate(MOVING) == still


def test_it_plays_on_through_the_rounds_to_the_end(page: Page, shown: Locator) -> None:
    shown.get_by_role("combobox", name="Speed").select_option("4")
    shown.get_by_role("button", name="Play").click()
    ended = shown.get_by_role("button", name="Play")
    settle(page, lambda: ended.count() == 1, 60, "the last round ends")
    rounds = int(shown.get_by_role("slider", name="Round").get_attribute("max") or 0)
    assert rounds >= 2
    assert int(shown.get_attribute("data-round") or 0) == rounds - 1
    assert "settled" in said(shown)
    shown.get_by_role("combobox", name="Speed").select_option("0")


def test_keys_step_and_play(page: Page, shown: Locator) -> None:
    stage = shown.locator(".mskv-mr-stage")
    stage.focus()
    before, words = beat(shown), said(shown)
    page.keyboard.press("ArrowRight")
    settle(page, lambda: beat(shown) == before + 1, 10, "one thing more has happened")
    assert said(shown) != words
    page.keyboard.press("ArrowLeft")
    settle(page, lambda: beat(shown) == before, 10, "and is taken back")
    assert said(shown) == words
    heard = shown.get_by_role("status")
    settle(page, lambda: heard.inner_text() == words, 10, "a screen reader hears it")
    page.keyboard.press("Space")
    settle(page, lambda: shown.get_attribute("data-playing") == "true", 10, "it plays")
    page.keyboard.press("Space")
    settle(page, lambda: shown.get_attribute("data-playing") == "false", 10, "it pauses")
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(str(page.evaluate(NAME)))
    buttons = ("Play", "Step back", "Step on", "Next correction", "Next round")
    for name in (*buttons, "Speed", "Round", "What is drawn"):
        assert any(name in one for one in reached), (name, reached)


def test_steps_lead_from_round_to_round(page: Page, shown: Locator) -> None:
    step = shown.get_by_role("button", name="Step on")
    for _ in range(200):
        if shown.get_attribute("data-round") == "1":
            break
        step.click()
    assert (shown.get_attribute("data-round"), beat(shown)) == ("1", 0)
    shown.get_by_role("button", name="Step back").click()
    assert shown.get_attribute("data-round") == "0"
    assert "settled" in said(shown)
    shown.get_by_role("button", name="Next round").click()
    assert shown.get_attribute("data-round") == "1"


def test_a_live_run_arrives_round_by_round(page: Page) -> None:
    live, recorded = page.locator(PICTURE).nth(1), page.locator(PICTURE).first
    most = recorded.get_by_role("slider", name="Round").get_attribute("max")
    slider = live.get_by_role("slider", name="Round")
    settle(page, lambda: slider.get_attribute("max") == most, 30, "every round has arrived")
    for one in (live, recorded):
        one.get_by_role("slider", name="Round").fill(str(most))
    assert said(live) == said(recorded)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(page: Page, shown: Locator, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    day = "false" if scheme == "dark" else "true"
    settle(page, lambda: page.evaluate("document.body.dataset.jpThemeLight") == day, 30, scheme)
    page.wait_for_timeout(600)
    assert grave(examine(page)) == []
    assert shown.is_visible()
    picture(page, f"moving_{scheme}", PICTURE)


@pytest.mark.parametrize("room", [360, 480, 900])
def test_it_fits(page: Page, shown: Locator, room: int) -> None:
    panel = page.locator(".mskv-panel").first
    panel.evaluate(f"one => one.style.width = '{room}px'")
    settle(page, lambda: shown.evaluate("one => one.clientWidth") <= room, 10, "it is narrow")
    page.wait_for_timeout(400)
    assert panel.evaluate(OVERFLOW) <= 0
    assert shown.evaluate(OVERFLOW) <= 0
    assert shown.evaluate(SMALLEST) >= 10
    picture(page, f"moving_{room}", PICTURE)
    panel.evaluate("one => one.style.width = ''")


def test_less_motion_means_steps_only(page: Page, shown: Locator) -> None:
    page.emulate_media(reduced_motion="reduce")
    play = shown.get_by_role("button", name="Play")
    settle(page, play.is_disabled, 10, "it cannot be played")
    shown.locator(".mskv-mr-stage").focus()
    page.keyboard.press("Space")
    assert shown.get_attribute("data-playing") == "false"
    before = beat(shown)
    page.keyboard.press("ArrowRight")
    at_once = shown.evaluate(MOVING)
    assert beat(shown) == before + 1
    page.wait_for_timeout(700)
    assert shown.evaluate(MOVING) == at_once, "a step is a cut"
    page.emulate_media(reduced_motion="no-preference")
    settle(page, play.is_enabled, 10, "it can be played again")
