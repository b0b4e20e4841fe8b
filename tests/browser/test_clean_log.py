"""Fifty runs of the live panel: no exception in the browser, the kernel or the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.labs import of_cells, save

from .driver import Visit, open_notebook, run_all, settle, visit
from .lab_server import serve
from .live_cells import LIVE
from .logs import Logs, clean_log

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAME = "log.ipynb"
RUNS = 50
FAULTS = """import ipywidgets as ipw
import traitlets

callback, handler = ipw.Button(description="callback"), ipw.IntSlider(description="handler")
callback.on_click(lambda _: 1 / 0)

def fails(change):
    raise KeyError("in a handler")

handler.observe(fails, names="value")
ipw.VBox([callback, handler])"""
RUN = """import time

def many(first, last):
    for run in range(first, last):
        lab.controls.set(resident=run % 2)
        lab.run()
        assert lab.wait(60), lab.error
        assert lab.records[0].summary is not None, lab.error
        # long enough for a drawing to be answered
        time.sleep(0.15)
    print("runs done:", last)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's folder."""
    return tmp_path_factory.mktemp("log")


@pytest.fixture(scope="module")
def seen(browser: Browser, home: Path) -> Iterator[tuple[Visit, Logs]]:
    """The panel, drawn, and both logs."""
    cells = of_cells(LIVE, FAULTS, RUN)
    with serve(home, lambda folder: save(cells, folder / NAME)) as address:
        visited = visit(browser, width=1280, height=1800)
        logs = Logs(visited.page, home / "server.log")
        open_notebook(visited.page, address.format(name=NAME))
        run_all(visited.page, 120)
        visited.page.locator(".mskv-panel .js-plotly-plot .main-svg").first.wait_for(timeout=60_000)
        yield visited, logs
        visited.page.context.close()


def execute(page: Page, code: str) -> None:
    """Run code in the notebook's kernel, beside the cells."""
    page.evaluate(
        """async code => {
          const context = window.jupyterapp.shell.currentWidget.context;
          const sent = context.sessionContext.session.kernel.requestExecute({ code });
          sent.done.then(reply => { window.mskvDone = reply.content.status; });
          window.mskvDone = "";
        }""",
        code,
    )


def test_fifty_runs_leave_both_logs_clean(seen: tuple[Visit, Logs]) -> None:
    visited, logs = seen
    page = visited.page
    with clean_log(page, logs):
        for first in range(0, RUNS, 10):
            execute(page, f"many({first}, {first + 10})")
            settle(page, lambda: page.evaluate("window.mskvDone"), 180, "ten runs end")
            assert page.evaluate("window.mskvDone") == "ok", logs.problems()
            # what a user does between runs: another view, a legend, zoom, back again
            page.get_by_role("button", name="Curve", exact=True).click()
            page.locator(".mskv-panel .legendtoggle:visible").first.click(force=True)
            page.get_by_role("button", name="Tokens", exact=True).click()
            page.wait_for_timeout(500)
            plot = page.locator(".mskv-panel .js-plotly-plot .nsewdrag").first
            box = plot.bounding_box()
            assert box is not None
            page.mouse.move(box["x"] + 40, box["y"] + 20)
            page.mouse.down()
            page.mouse.move(box["x"] + 120, box["y"] + 60, steps=4)
            page.mouse.up()
            plot.dblclick()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("callback.click()", "ZeroDivisionError"),
        ("handler", "KeyError"),
        ("console", "browser, error: a fault of the page"),
    ],
)
def test_a_fault_on_either_side_is_heard(seen: tuple[Visit, Logs], fault: str, said: str) -> None:
    visited, logs = seen
    page = visited.page
    logs.forget()
    if fault == "handler":
        page.locator(".widget-hslider:has-text('handler') .noUi-handle").press("ArrowRight")
    elif fault == "console":
        page.evaluate("console.error('a fault of the page')")
    else:
        page.get_by_role("button", name="callback").click()
    settle(page, lambda: said in " ".join(logs.problems()), 20, f"{said} is heard")
    with pytest.raises(AssertionError, match=said), clean_log(page, logs):
        page.evaluate("console.error('a fault of the page')")
        page.get_by_role("button", name="callback").click()
        page.locator(".widget-hslider:has-text('handler') .noUi-handle").press("ArrowRight")
        page.wait_for_timeout(1000)
