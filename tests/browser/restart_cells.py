"""Cells of a notebook with a panel of every kind of part, and two predictions; how kernels end."""

from __future__ import annotations

import io

from PIL import Image
from playwright.sync_api import Locator, Page

from .driver import READY, settle

LINE = "The kernel was restarted. This is the last picture: run this cell again."
LAST = ".mskv-last"
RESTART = "window.jupyterapp.shell.currentWidget.context.sessionContext.restartKernel()"
SAVE = "window.jupyterapp.shell.currentWidget.context.save()"
END = "window.jupyterapp.shell.currentWidget.context.sessionContext.shutdown()"

PANEL = """import ipywidgets as ipw

from mspeckv_widgets.charts.figure import Figure, lay_out
from mspeckv_widgets.charts.table import table_html
from mspeckv_widgets.panel import button, panel

figure = Figure()
figure.add_scatter(x=[0, 1, 2], y=[3.0, 1.0, 2.0], name="measured")
figure.add_bar(x=[0, 1, 2], y=[1.0, 2.0, 1.5], name="modelled")
lay_out(figure, "KV over the link", 260)
gamma = ipw.IntSlider(value=6, min=1, max=16, description="Gamma")
method = ipw.Dropdown(options=["mspeckv", "triforce"], value="triforce", description="Method")
packed = ipw.Checkbox(value=True, description="Packed")
note = ipw.Text(value="a note", description="Note")
go, busy = button("Run it", "play", "Run"), button("Busy", "clock-o", "Draw")
said = ipw.HTML('<div class="mskv-small" role="status">pressed 0 times</div>')
table = ipw.HTML(table_html("Score", ("run", "ms"), [("first", "12.5"), ("second", "9.1")], 1))
story = ipw.HTML('<div class="mskv-story" tabindex="0">once\\x07 upon a time</div>')
pressed = []
def press(_):
    pressed.append(1)
    said.value = f'<div class="mskv-small" role="status">pressed {len(pressed)} times</div>'
go.on_click(press)
tabs = ipw.Tab(children=[table, ipw.HTML("behind")], titles=("Scores", "More"))
panel("Example", [ipw.HBox([go, busy, said]), ipw.HBox([ipw.VBox([gamma, method, packed, note]),
      ipw.VBox([figure], layout={"flex": "1 1 300px"})]), story, tabs])"""
PREDICTIONS = """from mspeckv_widgets.course import Lab

lab = Lab("00_start_here", folder=".")
lab.predict("p1", "How many bytes?", "KB")
lab.predict("p2", "Which is faster?", choices=("int8", "float"))
lab.guess("p2", "int8")"""
BUSY = """import threading
import time

def work():
    for step in range(1, 41):
        said.value = f'<div class="mskv-small">drawing {step}</div>'
        time.sleep(0.1)

busy.on_click(lambda _: threading.Thread(target=work).start())"""
"""Ten drawings a second, for four seconds, in the panel of `PANEL`."""


def restart(page: Page, panels: Locator) -> None:
    """Restart the kernel: every panel says so, and nothing in it can be worked any more."""
    page.evaluate(RESTART)
    line = panels.first.get_by_role("status").first
    settle(page, lambda: line.inner_text() == LINE, 60, "the line is there")
    controls = panels.locator(":is(button, input, select, a, [role=slider], [role=tab])")
    assert controls.count() > 8
    assert controls.evaluate_all("all => all.every(one => one.closest('[inert]'))")


def open_again(page: Page) -> Locator:
    """Save, end the kernel and load the page anew; returns the last pictures that are seen."""
    page.evaluate(SAVE)
    page.evaluate(END)
    page.reload(wait_until="domcontentloaded")
    settle(page, lambda: page.evaluate(READY), 120, "another kernel is there")
    page.wait_for_timeout(4500)
    last = page.locator(f"{LAST}:visible")
    assert page.locator(f"{LAST} .mskv-gone:visible", has_text=LINE).count() == last.count()
    drawn = Image.open(io.BytesIO(last.first.locator("img").screenshot())).convert("L")
    assert drawn.width > 900
    assert drawn.height > 450
    dark = sum(drawn.histogram()[:170]) / (drawn.width * drawn.height)
    assert dark > 0.03, "charts and text are drawn"
    return last
