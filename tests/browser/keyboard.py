"""Panels answer the keyboard."""

from __future__ import annotations

from playwright.sync_api import Locator, Page

KEYS = ("ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "Enter")
LOOKS = 25
"""Looks for an answer in all, 0.4 s apart."""
INPUTS = "[role=slider], select:enabled, input[type=radio]:enabled"
BUTTONS = ".jupyter-button:enabled"
"""Where a panel has nothing else: a button may rightly change nothing, such as a reset at once."""
READ_PANEL = """panel => [panel.innerText,
  ...[...panel.querySelectorAll('select, input')].map(one => `${one.value} ${one.checked}`),
  ...[...panel.querySelectorAll('[role=slider]')].map(one => one.ariaValueNow),
  ...[...panel.querySelectorAll('.js-plotly-plot')].map(one => JSON.stringify(one.data)),
].join('|')"""


def drive_all(page: Page) -> int:
    """Each visible panel that has a control answers; how many did."""
    panels = page.locator(".mskv-panel[aria-label]:visible")
    driven = 0
    for place in range(panels.count()):
        if panels.nth(place).locator(f"{INPUTS}, {BUTTONS}").count():
            drive(page, panels.nth(place))
            driven += 1
    return driven


def drive(page: Page, panel: Locator) -> None:
    """Move a panel's first control with the keyboard: something must be drawn anew."""
    before = panel.evaluate(READ_PANEL)
    inputs = panel.locator(INPUTS)
    moves = inputs.count() > 0
    control = (inputs if moves else panel.locator(BUTTONS)).first
    control.focus()
    # arrows move no button
    keys = KEYS if moves else KEYS[-1:]
    for key in keys:
        page.keyboard.press(key)
        # a lab's last run may still be going on
        for _ in range(LOOKS // len(keys)):
            page.wait_for_timeout(400)
            if panel.evaluate(READ_PANEL) != before:
                return
    named = control.evaluate("one => one.outerHTML.slice(0, 200)")
    raise AssertionError(f"nothing answers in {panel.get_attribute('aria-label')}: {named}")
