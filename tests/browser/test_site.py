"""The site in Chromium, from files, the network cut: every page, on a laptop and on a phone."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser

from .axe import examine, grave
from .driver import picture, settle
from .site_pages import NAMES, SIZES, Opened, opened

pytestmark = [pytest.mark.browser, pytest.mark.slow]

BEYOND = "document.documentElement.scrollWidth - innerWidth"
PAPER = "getComputedStyle(document.body).backgroundColor"
FIRST_PICTURE = 3_000_000
"""Bytes."""
FOCUS = """() => { const one = document.activeElement, seen = getComputedStyle(one);
  const words = one.ariaLabel || one.labels?.[0]?.textContent || one.textContent;
  return [one.tagName, words.trim(), seen.outlineStyle !== "none",
    one.tagName === "INPUT" && one.type === "radio" ? one.name : ""]; }"""
FOCUSABLE = """[...document.querySelectorAll(
  "a[href], button, select, input, summary, [tabindex='0']")]
  .filter(one => !one.disabled && one.type !== "hidden" && one.offsetParent !== null
    && (one.type !== "radio" || one.checked)).length"""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", SIZES)
def test_a_page_opens_from_a_file_and_fits(
    site: Path, browser: Browser, name: str, size: str
) -> None:
    with opened(browser, size) as seen:
        seen.go(site, name)
        assert seen.page.evaluate(BEYOND) <= 0
        assert seen.page.locator("main svg, main .bars .part").first.is_visible()
        picture(seen.page, f"site_{name}_{size}", "body")
        asked = {one.partition("#")[0] for one in seen.asked if one.startswith("file://")}
        loaded = sum((site / one.rpartition("/")[2]).stat().st_size for one in asked)
        assert 10_000 < loaded < FIRST_PICTURE
        seen.page.emulate_media(media="print")
        assert not seen.page.locator("nav").is_visible()
        assert seen.page.evaluate(BEYOND) <= 0


@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_no_fault_by_day_and_by_night(site: Path, browser: Browser, name: str) -> None:
    with opened(browser, "phone") as seen:
        seen.go(site, name)
        for one in seen.page.locator("summary").all():
            one.click()
        assert grave(examine(seen.page, "html")) == []
        seen.page.emulate_media(color_scheme="dark")
        # colours are all that changes
        assert grave(examine(seen.page, "html", "color-contrast")) == []
        picture(seen.page, f"site_{name}_dark", "body")
        seen.page.emulate_media(media="print")
        assert seen.page.evaluate(PAPER) == "rgb(255, 255, 255)", "paper is white by night too"


@pytest.mark.parametrize("name", NAMES)
def test_the_keyboard_reaches_everything(site: Path, shown: Opened, name: str) -> None:
    shown.go(site, name)
    reached = []
    for _ in range(int(shown.page.evaluate(FOCUSABLE))):
        shown.page.keyboard.press("Tab")
        reached.append(shown.page.evaluate(FOCUS))
    assert reached[0][1] == "Skip to the page"
    assert all(words and outlined for _, words, outlined, _ in reached), reached
    assert "BODY" not in [tag for tag, *_ in reached], "nothing is reached twice before the rest"
    assert [words for _, words, *_ in reached][-1].startswith("Copy this view")


def test_arrow_keys_move_a_setting(site: Path, shown: Opened) -> None:
    shown.go(site, "what-if")
    ms = shown.page.locator("#ms")
    before = ms.inner_text()
    shown.page.get_by_role("slider", name="Layers on-chip").focus()
    shown.page.keyboard.press("ArrowRight")
    assert ms.inner_text() != before
    assert "on_chip=9" in shown.page.url


STATES = {
    "index": {"way": "vanilla", "round": 3, "beat": 4},
    "what-if": {
        "model": "llama-3-70b", "machine": "h200", "method": "vanilla", "bits": "4",
        "residency": "lru", "context": 10, "gamma": 3, "on_chip": 61, "resident": 12,
    },
    "accept": {"rule": "from-p", "seed": 7, "p": "10,20,30,40", "q": "70,10,10,10"},
    "kv": {"model": "qwen2.5-7b", "machine": "a10g", "bits": "4", "size": 7},
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_address_holds_the_state(site: Path, browser: Browser, name: str) -> None:
    state = STATES[name]
    with opened(browser) as seen:
        seen.go(site, name, f"#{urlencode(state)}")
        seen.page.wait_for_timeout(100)
        told = dict(
            one.split("=") for one in seen.page.url.partition("#")[2].replace("%2C", ",").split("&")
        )
        assert told == {field: str(value) for field, value in state.items()}
        first = seen.page.locator("main").inner_text()
        again = seen.page.url
        seen.go(site, name)
        seen.page.wait_for_timeout(100)
        assert seen.page.locator("main").inner_text() != first
        seen.page.goto("about:blank")
        seen.page.goto(again)
        seen.page.wait_for_timeout(100)
        assert seen.page.locator("main").inner_text() == first


def test_a_state_that_is_none_is_mended(site: Path, shown: Opened) -> None:
    shown.go(site, "what-if", "#model=nobody&context=999&on_chip=-3&bits=7&gamma=x")
    assert shown.page.locator("select[name=model]").input_value() == "llama-2-7b"
    assert float(shown.page.locator("#ms").inner_text()) > 0
    shown.go(site, "accept", "#p=1,2,3,4&q=99&rule=none&seed=0")
    assert "Whatever you draw" in shown.page.locator("#rule-said").inner_text()
    shown.go(site, "index", "#way=nobody&round=99&beat=99")
    assert int(shown.page.locator("#film").get_attribute("data-round") or 0) > 0


def test_light_and_dark_are_chosen_and_kept(site: Path, browser: Browser) -> None:
    with opened(browser, dark=True) as seen:
        seen.go(site, "kv")
        night = seen.page.evaluate(PAPER)
        seen.page.get_by_role("button", name="Switch to light colours").click()
        day = seen.page.evaluate(PAPER)
        assert day != night
        seen.go(site, "accept")
        assert seen.page.evaluate(PAPER) == day


def test_a_round_moves_and_corrections_are_found(site: Path, browser: Browser) -> None:
    with opened(browser) as seen:
        seen.go(site, "index", "#way=mspeckv&round=0&beat=0")
        film, words = seen.page.locator("#film"), seen.page.locator(".mskv-mr-words")
        found: list[str] = []
        for _ in range(3):
            seen.page.get_by_role("button", name="Next correction").click()
            found.append(words.inner_text())
        assert len(set(found)) == 3
        assert all("reject" in one for one in found), found
        stand = film.get_attribute("data-beat")
        seen.page.get_by_role("button", name="Play").click()
        settle(seen.page, lambda: film.get_attribute("data-beat") != stand, 20, "it moves")
        seen.page.get_by_role("button", name="Pause").click()
        last = seen.page.locator("#text a").last
        last.click()
        assert film.get_attribute("data-round") == last.get_attribute("data-round")
        assert seen.page.locator("#text a.coming").count() == 0


def test_every_way_writes_the_same_text(site: Path, shown: Opened) -> None:
    texts = set()
    for way in ("mspeckv", "vanilla", "autoregressive"):
        shown.go(site, "index", f"#way={way}")
        texts.add(shown.page.locator("#text").inner_text())
    (text,) = texts
    assert len(text) > 50


def test_a_fair_rule_gives_p_and_a_broken_one_does_not(site: Path, shown: Opened) -> None:
    for rule, fair in (("fair", True), ("from-p", False), ("keep-all", False)):
        shown.go(site, "accept", f"#rule={rule}&seed=3")
        shown.page.get_by_role("button", name="10,000 guesses").click()
        away = float(shown.page.locator("#distance").inner_text())
        exact = float(shown.page.locator("#exact").inner_text())
        assert (away < 0.02) == fair, rule
        assert away == pytest.approx(exact, abs=0.02)


def test_a_guess_is_taken_step_by_step(site: Path, shown: Opened) -> None:
    shown.go(site, "accept")
    step, said = shown.page.locator("#step"), shown.page.locator("#said")
    seen = []
    for _ in range(3):
        step.click()
        seen.append(said.inner_text())
    assert "is guessed" in seen[0]
    assert "u = " in seen[1]
    assert "comes out" in seen[2]
    assert len(shown.page.locator("#text").inner_text()) == 1


def test_a_bar_is_drawn_and_the_rest_makes_room(site: Path, shown: Opened) -> None:
    shown.go(site, "accept")
    shown.page.get_by_role("slider", name="p of A").focus()
    for _ in range(5):
        shown.page.keyboard.press("ArrowUp")
    told = [int(one) for one in shown.page.url.partition("p=")[2].partition("&")[0].split("%2C")]
    assert told[0] == 55
    assert sum(told) == 100
    assert shown.page.locator("#preset").input_value() == ""
