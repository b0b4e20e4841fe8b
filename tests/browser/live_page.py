"""Reading and working the views of a `LiveLab` in a page."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Locator, Page

from .driver import settle

PANEL = ".mskv-panel[aria-label='Live lab']"
SMALL_TYPE = """panel => {
  const found = new Map(), words = document.createTreeWalker(panel, NodeFilter.SHOW_TEXT);
  while (words.nextNode()) {
    const text = words.currentNode.data.trim(), one = words.currentNode.parentElement;
    if (!text || !one.checkVisibility() || one.closest('style, script, .mskv-screen')) continue;
    const drawn = one.getScreenCTM ? one.getScreenCTM().a : 1;
    const size = drawn * parseFloat(getComputedStyle(one).fontSize);
    if (size < 19.9) found.set(`${size} ${one.className.baseVal ?? one.className}`, text);
  }
  return [...found];
}"""
CAN_BE_CUT = ":is(.jupyter-button, .widget-label, .lm-TabBar-tabLabel)"
CUT = """all => all.filter(one => one.scrollWidth > one.clientWidth + 1)
  .map(one => one.innerText)"""
DRAWN = """plot => plot._fullData.map(
  one => [one.x.length, one.y[one.y.length - 1], one.opacity])"""
FILLED = """plot => [plot.parentElement.clientWidth, plot._fullLayout.width,
  plot._fullLayout.height]"""
WIDE = "panel => panel.scrollWidth - panel.clientWidth"
TIME_A_PRESS = """panel => new Promise(done => {
  const box = panel.querySelector('.mskv-status').closest('.widget-html-content');
  const begun = performance.now();
  const seen = new MutationObserver(() => {
    const state = box.querySelector('.mskv-status').dataset.state;
    if (['idle', 'done'].includes(state)) return;
    seen.disconnect();
    requestAnimationFrame(() => done([performance.now() - begun, state]));
  });
  seen.observe(box, { childList: true, subtree: true, attributes: true });
  panel.querySelector('.mskv-run.mod-success').click();
})"""
WATCH_ROUNDS = """panel => {
  window.mskvRounds = new Set();
  window.mskvLook = setInterval(() => {
    const shown = panel.querySelector('.mskv-mr[data-round]');
    const busy = panel.querySelector('.mskv-status').dataset.state === 'decoding';
    if (shown && busy) window.mskvRounds.add(shown.dataset.round);
  }, 20);
}"""
CLOSE_VIEW = """() => { const views = [...window.jupyterapp.shell.widgets("main")];
  views.find(one => one.node.querySelector(".jp-LinkedOutputView")).close(); }"""
GIVE_UP = """() => { const place = document.querySelector(
    ".jp-Notebook .mskv-panel").closest(".jp-OutputArea-output");
  place.textContent = "Error displaying widget: model not found"; }"""
COUNT_CHANGES = """() => new Promise(done => {
  let count = 0;
  const seen = new MutationObserver(changes => { count += changes.length; });
  for (const plot of document.querySelectorAll('.mskv-panel .js-plotly-plot'))
    seen.observe(plot, { subtree: true, childList: true, attributes: true });
  setTimeout(() => { seen.disconnect(); done(count); }, 2500);
})"""


def press_run(panel: Locator) -> None:
    """Run in one view, to the end."""
    before = newest(panel)
    panel.locator(".mskv-run.mod-success").click()
    done = panel.locator(".mskv-status[data-state=done]")
    settle(panel.page, lambda: done.count() and newest(panel) > before, 120, "the run ends")


def newest(panel: Locator) -> int:
    """The newest finished run's number, from the table; 0 before the first."""
    rows = panel.locator("tbody tr:has-text('#')")
    return int(re.findall(r"#(\d+)", rows.first.text_content() or "")[0]) if rows.count() else 0


def is_big(panel: Locator) -> bool:
    """Whether the panel fills the screen."""
    return bool(panel.evaluate("panel => document.fullscreenElement === panel"))


def open_view(page: Page) -> tuple[Locator, Locator]:
    """The notebook's view and a further one, by the menu that a right click opens."""
    page.locator(f"{PANEL} .mskv-status").first.click(button="right")
    page.get_by_text("Create New View for Cell Output", exact=True).click()
    both = page.locator(PANEL)
    settle(page, lambda: both.count() == 2, 30, "the further view is there")
    settle(
        page,
        lambda: page.locator(f"{PANEL} .js-plotly-plot:visible .main-svg").count() >= 2,
        30,
        "it is drawn",
    )
    page.wait_for_timeout(1500)
    other = page.locator(f".jp-LinkedOutputView {PANEL}")
    return page.locator(f".jp-Notebook {PANEL}"), other


def told(panel: Locator) -> dict[str, Any]:
    """What a view shows."""
    charts = panel.locator(".js-plotly-plot").first
    return {
        "lines": charts.evaluate(DRAWN),
        "notes": charts.locator(".annotation-text").all_text_contents(),
        "tiles": panel.locator(".mskv-tiles").inner_text(),
        "said": panel.locator(".mskv-said").inner_text(),
        "status": panel.locator(".mskv-status").first.inner_text(),
        "values": panel.locator(".widget-readout").all_inner_texts(),
        "choices": panel.locator("select").evaluate_all("all => all.map(one => one.value)"),
    }


def gamma(view: Locator) -> Locator:
    """The slider's handle."""
    return view.get_by_role("slider", name="Gamma", exact=True).first


def tiles_differ(view: Locator, before: str) -> bool:
    """Whether the headline numbers have changed."""
    return bool(told(view)["tiles"] != before)
