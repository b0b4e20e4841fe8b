"""The site in Chromium, from files, the network cut: every page, on a laptop and on a phone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser

from mspeckv.cli import main

from .axe import examine, grave
from .driver import picture, settle
from .site_pages import NAMES, SIZES, Opened, opened

pytestmark = [pytest.mark.browser, pytest.mark.slow]

BEYOND = "document.documentElement.scrollWidth - innerWidth"
FIRST_PICTURE = 3_000_000
"""Bytes."""
FOCUS = """() => { const one = document.activeElement, seen = getComputedStyle(one);
  const words = one.ariaLabel || one.labels?.[0]?.textContent || one.textContent;
  return [one.tagName, words.trim(), seen.outlineStyle !== "none",
    one.tagName === "INPUT" && one.type === "radio" ? one.name : ""]; }"""
FOCUSABLE = """[...document.querySelectorAll("a[href], button, select, input, summary, [tabindex='0']")]
  .filter(one => !one.disabled && one.type !== "hidden" && one.offsetParent !== null
    && (one.type !== "radio" || one.checked)).length"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as anybody builds it."""
    folder = tmp_path_factory.mktemp("site")
    assert main(["site", "build", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def shown(browser: Browser) -> Iterator[Opened]:
    """One window for the tests that need no other."""
    with opened(browser) as made:
        yield made


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
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_fault(site: Path, browser: Browser, name: str, dark: bool) -> None:
    with opened(browser, "phone", dark) as seen:
        seen.go(site, name)
        for one in seen.page.locator("summary").all():
            one.click()
        assert grave(examine(seen.page, "html")) == []
        picture(seen.page, f"site_{name}_{'dark' if dark else 'light'}", "body")


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
        paper = "getComputedStyle(document.body).backgroundColor"
        night = seen.page.evaluate(paper)
        seen.page.get_by_role("button", name="Switch to light colours").click()
        day = seen.page.evaluate(paper)
        assert day != night
        seen.go(site, "accept")
        assert seen.page.evaluate(paper) == day


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
        assert seen.page.locator("#text .coming").count() == 0


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


def random_settings(count: int) -> list[dict[str, Any]]:
    """Settings of the what-if page, every control anywhere."""
    from mspeckv_widgets.site.forecasts import CONTEXTS, GAMMAS, MACHINES, MODELS, POLICIES
    from mspeckv_widgets.site.forecasts import methods_of

    dice = random.Random(31)
    found = []
    for _ in range(count):
        model = dice.choice(list(MODELS))
        method = dice.choice(methods_of(model))
        bits, residency = dice.choice(POLICIES)
        on_chip = dice.randint(0, MODELS[model].layers)
        found.append({
            "model": model, "machine": dice.choice(MACHINES), "method": method,
            "bits": "full" if method == "triforce" else str(bits), "residency": residency,
            "context": dice.randrange(len(CONTEXTS)), "gamma": dice.choice(GAMMAS),
            "on_chip": on_chip, "resident": dice.randint(0, MODELS[model].layers - on_chip),
        })  # fmt: skip
    return found


READ_TABLE = """Object.fromEntries([...document.querySelectorAll("#numbers tbody tr")].map(
  row => [row.cells[0].textContent, [...row.cells].slice(1).map(cell => cell.textContent)]))"""


def agrees(shown: str, value: float) -> bool:
    """Whether a number is shown as it is, to the last digit shown."""
    digits = len(shown.partition(".")[2])
    return abs(float(shown.replace(",", "")) - value) <= 0.5000001 * 10.0**-digits


def test_200_random_settings_agree_with_python(site: Path, shown: Opened) -> None:
    from mspeckv_widgets.site.forecasts import CONTEXTS, acceptance_of, forecast_of, results

    shown.go(site, "what-if")
    for one in random_settings(200):
        prefill = CONTEXTS[one["context"]]
        bits = one["bits"] if one["bits"] == "full" else int(one["bits"])

        def said(method: str, bits: Any, one: Any = one, prefill: int = prefill, **more: Any) -> Any:
            numbers = {name: one[name] for name in ("on_chip", "resident", "gamma")}
            return results(forecast_of(
                one["model"], one["machine"], method, bits, one["residency"], prefill=prefill,
                acceptance=acceptance_of(one["model"], method, prefill), **(numbers | more),
            ))  # fmt: skip

        here, same = said(one["method"], bits), said("autoregressive", bits)
        equal = None
        if here["control/fits"]:
            held = {"on_chip": here["control/on_chip"], "resident": 0}
            equal = said("autoregressive", "full", **held)
            assert equal["ms"] == pytest.approx(here["control/ms"], rel=1e-12)
        rows = shown.set(urlencode(one), READ_TABLE)
        expected = {
            "ms per token": ("ms", 1.0), "tokens per round": ("settled", 1.0),
            "link, MB per token": ("link_bytes", 1e6), "device, GB": ("device", 1e9),
            "on the host, GB": ("host", 1e9), "link busy, ms per token": ("link_ms", 1.0),
            **{f"{name.removeprefix('step/')}, ms": (name, 1.0)
               for name in here if name.startswith("step/")},
            **{f"{name.removeprefix('part/').replace('_', '-')}, GB": (name, 1e9)
               for name in here if name.startswith("part/")},
        }  # fmt: skip
        seen = 0
        for words, (name, unit) in expected.items():
            for cell, way in zip(rows.get(words, ("", "", "")), (here, same, equal), strict=True):
                if cell:
                    assert way is not None
                    seen += 1
                    assert agrees(cell, float(way[name]) / unit), (one, words, cell, way[name])
        assert seen > 20
        assert (rows["ms per token"][2] == "") == (equal is None)


def test_sizes_of_kv_agree_with_python(site: Path, shown: Opened) -> None:
    from mspeckv.settings import WIDTHS, KVPolicy
    from mspeckv.whatif import MODELS
    from mspeckv_widgets.site.forecasts import LENGTHS
    import torch
    from mspeckv.kv.sizes import full_sizes

    units = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
    shown.go(site, "kv")
    dice = random.Random(4)
    for _ in range(40):
        size, bits = dice.randrange(1, len(LENGTHS)), dice.choice(WIDTHS)
        rows = shown.set(
            urlencode({"size": size, "bits": str(bits), "machine": "h200", "model": "llama-3-8b"}),
            READ_TABLE,
        )
        assert set(rows) == set(MODELS)
        for name, shape in MODELS.items():
            held = {"on_chip": shape.layers} if bits == "full" else {"resident": shape.layers}
            policy = KVPolicy(bits=bits, **{"on_chip": 0, "resident": 0} | held)
            sizes = full_sizes(shape.kv(torch.float16), policy, LENGTHS[size])
            number, unit = rows[name][1].split()
            kv = sizes.on_chip + sizes.resident + sizes.tail
            assert agrees(number, kv / units[unit]), (name, size, bits, rows[name])


def test_rules_agree_with_python(site: Path, shown: Opened) -> None:
    import torch
    from mspeckv_widgets.explorers.acceptance_charts import emitted_distribution
    from mspeckv_widgets.site.guesses import RULES, outcome

    shown.go(site, "accept")
    dice = random.Random(5)
    for at in range(40):
        cuts = [sorted(dice.sample(range(1, 100), 3)) for _ in range(2)]
        lists = [[b - a for a, b in zip([0, *cut], [*cut, 100], strict=True)] for cut in cuts]
        p, q = (torch.tensor(one, dtype=torch.float64) / 100 for one in lists)
        rule = RULES[at % len(RULES)]
        words = [",".join(map(str, one)) for one in lists]
        rows = shown.set(
            urlencode({"p": words[0], "q": words[1], "rule": rule.name, "seed": 1 + at % 20}),
            READ_TABLE,
        )
        found = outcome(rule, p, q)
        if rule.name == "fair":
            torch.testing.assert_close(found["emitted"], emitted_distribution(p, q))
        for token, cells in enumerate(rows.values()):
            wanted = (p, q, found["kept"], found["redrawn"], found["emitted"])
            for cell, one in zip(cells, wanted, strict=False):
                assert agrees(cell, float(one[token])), (rule.name, words, cells)
