"""What every panel stands in: the style sheet, names for all controls, and a word on its width.

ipywidgets ties a slider's label to nothing and plotly names no chart, so that a screen reader
says "slider" and nothing else. `Frame` sits unseen in a panel and gives each its visible label as
its name; it also reports a narrow panel's width, so that figures can put their legends below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import anywidget
import ipywidgets as ipw
import traitlets
from mspeckv_widgets.charts.theme import CLEAR, FAINT, GRID, INK, STYLE_SHEET
from plotly.basedatatypes import BaseFigure

NARROW = 760
"""Panels under so many CSS pixels are narrow."""

_ESM = """
const name = (element, words) => {
  const said = (words || "").trim();
  if (element && said && element.getAttribute("aria-label") !== said)
    element.setAttribute("aria-label", said);
};
const describe = (row) => {
  const label = row.querySelector(":scope > .widget-label");
  const words = label ? label.textContent : row.title;
  for (const handle of row.querySelectorAll("[role=slider], .noUi-handle")) name(handle, words);
  for (const readout of row.querySelectorAll(".widget-readout")) {
    name(readout, `${words}, as a number`);
    if (readout.isContentEditable) readout.setAttribute("role", "textbox");
  }
  for (const field of row.querySelectorAll("select, input, textarea"))
    if (!field.labels || !field.labels.length || !field.labels[0].textContent.trim())
      name(field, words || row.title || field.title);
};
const entitle = (plot) => {
  const titles = [...plot.querySelectorAll(".gtitle, .annotation-text")];
  const axes = [...plot.querySelectorAll(".ytitle, .xtitle")];
  const said = (titles.length ? titles : axes).map((one) => one.textContent).filter(Boolean);
  if (!said.length) return;
  plot.setAttribute("role", "figure");
  name(plot, `Chart: ${said.join("; ")}`);
  for (const link of plot.querySelectorAll("a.modebar-btn")) name(link, link.dataset.title);
};
const dress = (panel) => {
  // JupyterLab takes arrow keys for itself unless what has the focus says that it wants them.
  for (const control of panel.querySelectorAll("select, input, button, [role=slider], [tabindex]"))
    control.setAttribute("data-lm-suppress-shortcuts", "true");
  for (const row of panel.querySelectorAll(".widget-inline-hbox, .widget-inline-vbox"))
    describe(row);
  for (const button of panel.querySelectorAll("button"))
    if (!button.textContent.trim()) name(button, button.title);
  for (const plot of panel.querySelectorAll(".js-plotly-plot")) entitle(plot);
};
function render({ model, el }) {
  el.style.display = "none";
  let panel = null, waiting = 0, resizing = 0;
  // plotly looks at a figure's room when the window changes, not when the panel does, or its tab.
  const refit = () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => window.dispatchEvent(new Event("resize")), 150);
  };
  const shown = new ResizeObserver(refit);
  const tend = () => {
    dress(panel);
    for (const plot of panel.querySelectorAll(".js-plotly-plot")) shown.observe(plot);
  };
  const later = () => {
    if (!waiting) waiting = setTimeout(() => { waiting = 0; if (panel) tend(); }, 60);
  };
  const grown = new MutationObserver(later);
  const sized = new ResizeObserver(([entry]) => {
    const width = entry.contentRect.width;
    if (!width) return;
    // In steps, so that a window being dragged does not send a message for each pixel.
    const room = width < model.get("limit") ? Math.floor(width / 10) * 10 : 0;
    refit();
    if (room !== model.get("room")) { model.set("room", room); model.save_changes(); }
  });
  const begin = () => {
    panel = el.closest(".mskv-panel");
    if (!panel) { waiting = setTimeout(() => { waiting = 0; begin(); }, 60); return; }
    panel.setAttribute("role", "region");
    name(panel, model.get("label"));
    grown.observe(panel, { childList: true, subtree: true });
    sized.observe(panel);
    tend();
  };
  begin();
  return () => {
    for (const timer of [waiting, resizing]) clearTimeout(timer);
    for (const observer of [grown, sized, shown]) observer.disconnect();
  };
}
export default { render };
"""


class Frame(anywidget.AnyWidget):
    """Names the controls, charts and tables of the panel it lies in.

    `room` is the panel's width in CSS pixels while it is narrow, else 0.
    """

    _esm = _ESM
    label = traitlets.Unicode("").tag(sync=True)
    limit = traitlets.Int(NARROW).tag(sync=True)
    room = traitlets.Int(0).tag(sync=True)


class Panel(ipw.VBox):
    """A box that is whole wherever it is first shown.

    A plotly widget tells the browser about later changes only by messages; what is made before a
    browser listens, as on a page of Voilà, would be lost. Showing a figure renews its state.
    """

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        for figure in _figures(self):
            figure._repr_mimebundle_()
        return super()._repr_mimebundle_(**kwargs)


def _figures(box: Any) -> Iterator[Any]:
    for child in getattr(box, "children", ()):
        if isinstance(child, BaseFigure):
            yield child
        else:
            yield from _figures(child)


def panel(
    label: str,
    children: Sequence[Any],
    on_room: Callable[[int], None] | None = None,
) -> Panel:
    """A panel of ``children``, named ``label``, in the project's style.

    Args:
        label: what a screen reader calls the whole panel.
        children: widgets, top to bottom.
        on_room: told a narrow panel's width in CSS pixels, or 0 once it is wide again.
    """
    frame = Frame(label=label)
    if on_room is not None:
        frame.observe(lambda change: on_room(change["new"]), names="room")
    box = Panel([ipw.HTML(STYLE_SHEET), *children, frame])
    box.add_class("mskv-panel")
    return box


def lay_out(figure: Any, title: str, height: int) -> Any:
    """Give a plotly figure the project's look: clear background, legend below, quiet grid.

    Returns the figure. A legend below leaves the plot its width on any screen.
    """
    figure.update_layout(
        title={"text": title, "font": {"size": 13}, "x": 0, "xref": "paper"},
        height=height,
        autosize=True,
        margin={"l": 70, "r": 12, "t": 36, "b": 45},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"color": INK, "size": 12},
        legend={
            "orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom",
            "font": {"size": 11}, "bgcolor": CLEAR,
        },
    )  # fmt: skip
    lines = {"gridcolor": GRID, "linecolor": FAINT, "zerolinecolor": FAINT, "automargin": True}
    figure.update_xaxes(**lines)
    figure.update_yaxes(**lines)
    return figure
