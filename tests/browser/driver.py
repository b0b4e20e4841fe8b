"""Steps of a reader in JupyterLab: open a notebook, run its cells, move its controls."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page

OUTPUT = Path(__file__).resolve().parents[1] / "output"
DOCS = Path(__file__).resolve().parents[2] / "docs"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
GIVEN_UP = "[anywidget] Failed to initialize model"
NOT_KNOWN = "widget model not found"
RUN_ALL = """() => { window.mskvRun = "running";
  window.jupyterapp.commands.execute("notebook:run-all-cells").then(
    () => { window.mskvRun = "done"; }, error => { window.mskvRun = String(error); }); }"""
READ_CELLS = """() => Array.from(
  window.jupyterapp.shell.currentWidget.content.model.cells).map(cell => cell.toJSON())"""
SHOW = """async name => {
  await window.jupyterapp.restored;
  const widget = await window.jupyterapp.commands.execute("docmanager:open", { path: name });
  // JupyterLab's current notebook is the one that was clicked last, and here nobody clicks.
  window.jupyterapp.shell.activateById(widget.id);
  widget.node.focus();
}"""
CLOSE = """async () => {
  const widget = window.jupyterapp.shell.currentWidget;
  await widget.context.save();
  await widget.context.sessionContext.shutdown();
  widget.dispose();
}"""
FIGURES_FIT = """() => [...document.querySelectorAll('.mskv-panel .js-plotly-plot')].every(
  figure => {
    const [drawn, room] = [figure.querySelector('.main-svg'), figure.getBoundingClientRect()];
    return !drawn || !room.width || drawn.getBoundingClientRect().width <= room.width + 1;
  })"""
NOTEBOOK_HEIGHT = """() => {
  const cells = [...document.querySelectorAll('.jp-Notebook .jp-Cell')];
  const tops = cells.map(cell => cell.getBoundingClientRect());
  return Math.max(...tops.map(one => one.bottom)) - Math.min(...tops.map(one => one.top));
}"""
READY = """() => {
  const widget = window.jupyterapp && window.jupyterapp.shell.currentWidget;
  const context = widget && widget.context;
  return Boolean(context && context.isReady && widget.content.model
    && context.sessionContext.session && context.sessionContext.session.kernel
    && context.sessionContext.session.kernel.status === "idle");
}"""


def chromium() -> str | None:
    """A Chromium of the system; None for the one that Playwright installs."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = [os.environ.get("MSPECKV_CHROMIUM"), *(shutil.which(name) for name in names)]
    return next((path for path in found if path), None)


@dataclass
class Visit:
    """A page and what went wrong on it.

    Attributes:
        problems: errors of the browser's console and uncaught exceptions, as they come.
        late: of these, what anywidget says of widgets whose module a busy page loaded late; they
            go on, see `late.js` and `test_late.py`.
        loads: pages loaded so far.
        anew: what JupyterLab says of outputs that are there before their models, on a page that was
            loaded anew. It looks again when it knows more, and a panel that it gave up on draws
            itself, see `test_live_ends.py`.
    """

    page: Page
    problems: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    loads: int = 0
    anew: list[str] = field(default_factory=list)

    def note(self, said: str) -> None:
        """Take down what was said, where it belongs."""
        if GIVEN_UP in said:
            self.late.append(said)
        elif self.loads > 1 and NOT_KNOWN in said:
            self.anew.append(said)
        else:
            self.problems.append(said)

    def loaded(self) -> None:
        """Count one more page."""
        self.loads += 1


def visit(browser: Browser, width: int = 1440, height: int = 1500, dark: bool = False) -> Visit:
    """A new page of the given size, listened to."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    seen = Visit(context.new_page())

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error":
            seen.note(f"{message.text} ({message.location.get('url', '')})")

    seen.page.on("console", hear)
    seen.page.on("pageerror", lambda error: seen.note(str(error)))
    seen.page.on("domcontentloaded", lambda _: seen.loaded())
    return seen


def settle(page: Page, probe: Callable[[], Any], seconds: float, what: str) -> Any:
    """Ask ``probe`` until it answers something; the browser goes on meanwhile."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = probe()
        if answer:
            return answer
        page.wait_for_timeout(100)
    state = page.locator(".mskv-status").all_inner_texts()
    raise AssertionError(f"{what}: not within {seconds:g} s; the status says {state}")


def await_figures(page: Page) -> None:
    """Wait until every figure has taken the room that it has now."""
    settle(page, lambda: page.evaluate(FIGURES_FIT), 30, "figures fit")


def open_notebook(page: Page, address: str) -> None:
    """Load JupyterLab with a notebook and wait for its kernel."""
    page.goto(address, wait_until="domcontentloaded")
    settle(page, lambda: page.evaluate(READY), 120, "the kernel is there")
    page.keyboard.press("Control+b")


def show_notebook(page: Page, name: str) -> None:
    """Open a notebook in a JupyterLab that is loaded, and wait for its kernel."""
    settle(page, lambda: page.evaluate("Boolean(window.jupyterapp)"), 120, "JupyterLab is there")
    page.evaluate(SHOW, name)
    settle(page, lambda: page.evaluate(READY), 120, "the kernel is there")


def close_notebook(page: Page) -> None:
    """End the notebook's kernel and close it."""
    page.evaluate(CLOSE)


def run_all(page: Page, seconds: float) -> list[dict[str, Any]]:
    """Run every cell from top to bottom; returns all cells with their outputs, as nbformat's.

    Raises:
        AssertionError: it took longer than ``seconds``, or a cell raised.
    """
    page.evaluate(RUN_ALL)
    settle(page, lambda: page.evaluate("window.mskvRun") != "running", seconds, "cells have run")
    cells: list[dict[str, Any]] = page.evaluate(READ_CELLS)
    for cell in cells:
        for output in cell.get("outputs", ()):
            assert output["output_type"] != "error", f"{cell['id']}: {output['evalue']}"
    assert page.evaluate("window.mskvRun") == "done"
    return cells


@contextmanager
def whole_notebook(page: Page) -> Iterator[None]:
    """A window as high as the notebook: pictures, and what is judged by eye, need it in sight."""
    size = page.viewport_size
    assert size is not None
    height = int(page.evaluate(NOTEBOOK_HEIGHT)) + 160
    page.set_viewport_size({"width": size["width"], "height": max(size["height"], height)})
    # Running all cells has scrolled to the last one.
    page.locator(".jp-WindowedPanel-outer").evaluate_all(
        "panels => panels.forEach(panel => panel.scrollTo(0, 0))"
    )
    page.wait_for_timeout(600)
    yield
    page.set_viewport_size(size)


def picture(page: Page, name: str, part: str = ".jp-Notebook") -> None:
    """A picture of a part of the page, kept in ``tests/output``."""
    OUTPUT.mkdir(exist_ok=True)
    page.locator(part).first.screenshot(path=OUTPUT / f"{name}.png")


def publish(name: str) -> None:
    """Copy a picture from ``tests/output`` into ``docs``, where it is missing or wanted anew.

    Always copying would leave a change to commit after every run.
    """
    if os.environ.get("MSPECKV_UPDATE_DOCS") == "1" or not (DOCS / name).exists():
        shutil.copyfile(OUTPUT / name, DOCS / name)


def slider(page: Page, label: str) -> Any:
    """A slider's readout, by its visible label."""
    row = page.locator(".mskv-panel .widget-hslider", has=page.get_by_text(label, exact=True))
    return row.locator(".widget-readout").first


def set_slider(page: Page, label: str, value: float) -> None:
    """Type a value into a slider's readout."""
    readout = slider(page, label)
    readout.click()
    readout.fill(str(value))
    readout.press("Enter")
