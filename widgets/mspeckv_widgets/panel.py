"""What every panel stands in: the style sheet, names for all controls, and a word on its width.

ipywidgets ties a slider's label to nothing and plotly names no chart, so that a screen reader
says "slider" and nothing else. `Frame` sits unseen in a panel and gives each its visible label as
its name; it also reports a narrow panel's width, so that figures can put their legends below.
It lets the panel fill a projector's screen, in large type. Once the kernel is gone, it lays the
panel to rest, and a notebook shows its `LastPicture`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import traitlets
from plotly.basedatatypes import BaseFigure

from mspeckv_widgets.charts.figure import Figure
from mspeckv_widgets.charts.theme import STYLE_SHEET
from mspeckv_widgets.last_picture import LastPicture, notebook_listens
from mspeckv_widgets.page_widget import PageWidget, module

NARROW = 760
"""Panels under so many CSS pixels are narrow."""


class Frame(PageWidget):
    """Names the controls, charts and tables of the panel it lies in.

    `room` is the panel's width in CSS pixels while it is narrow, else 0. `size` is its width, the
    height it may have and whether it fills the screen, told while it does or where `measured`.
    `kept` says that the page is to send pictures of the panel, which it knows by `panel_id`.
    """

    _esm = module(
        *(Path(__file__).parent / name
          for name in ("panel_picture.js", "panel_gone.js", "panel_lost.js", "panel_screen.js",
                       "panel.js"))
    )  # fmt: skip
    panel_id = traitlets.Unicode("").tag(sync=True)
    kept = traitlets.Bool(False).tag(sync=True)
    label = traitlets.Unicode("").tag(sync=True)
    limit = traitlets.Int(NARROW).tag(sync=True)
    room = traitlets.Int(0).tag(sync=True)
    size = traitlets.Tuple(
        traitlets.Int(), traitlets.Int(), traitlets.Bool(), default_value=(0, 0, False)
    ).tag(sync=True)
    measured = traitlets.Bool(False).tag(sync=True)


class Panel(ipw.VBox):
    """A box that is whole wherever it is first shown.

    A plotly widget tells the browser about later changes only by messages; what is made before a
    browser listens, as on a page of Voilà, would be lost. Showing a figure renews its state.

    Args:
        children: what it shows, top to bottom.
        frame: lies in it.
    """

    def __init__(self, children: Sequence[Any], frame: Frame) -> None:
        super().__init__([ipw.HTML(STYLE_SHEET), *children, frame])
        mark = f"mskv-is-{frame.model_id}"
        for name in ("mskv-panel", mark):
            self.add_class(name)
        frame.panel_id = str(self.model_id)
        self._frame, self._last = frame, LastPicture(frame.label, mark)
        frame.on_msg(self._hear)
        # first: a panel's own `on_size` may then change what this did
        frame.observe(lambda _: self._enlarge(), names="size")

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        for figure in _figures(self):
            figure._repr_mimebundle_()
        if notebook_listens():
            self._frame.kept = True
            self._last.place()
        bundle = super()._repr_mimebundle_(**kwargs)
        return {**bundle, "text/plain": f"{self._frame.label}: run this cell again"}

    def _hear(self, _: Any, told: Any, __: Any) -> None:
        if told.get("kind") == "picture":
            self._last.take(told)
        if told.get("kind") == "renew":
            self._frame.send({"kind": "last", "html": self._last.html()})
        if told.get("kind") == "plots":
            self._enlarge()

    def _enlarge(self) -> None:
        """Give all figures the type that the panel has now, those that came later too."""
        for figure in _figures(self):
            if isinstance(figure, Figure):
                figure.enlarge(self._frame.size[2])


class HasPanel:
    """Whatever a cell shows by its `panel`."""

    panel: Any

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return self.panel._repr_mimebundle_(**kwargs)


def close_all(box: Any) -> None:
    """Close a widget and all in it, so that nothing keeps them alive."""
    for child in getattr(box, "children", ()):
        close_all(child)
    box.close()


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
    on_size: Callable[[int, int, bool], None] | None = None,
) -> Panel:
    """A panel of ``children``, named ``label``, in the project's style.

    Args:
        label: what a screen reader calls the whole panel.
        children: widgets, top to bottom.
        on_room: told a narrow panel's width in CSS pixels, or 0 once it is wide again.
        on_size: told the panel's width, the height of what it may fill, both in CSS pixels, and
            whether it fills the screen; whenever that changes, in steps of ten. Figures have
            their large type by then.
    """
    frame = Frame(label=label, measured=on_size is not None)
    if on_room is not None:
        frame.observe(lambda change: on_room(change["new"]), names="room")
    made = Panel(children, frame)
    if on_size is not None:
        frame.observe(lambda change: on_size(*change["new"]), names="size")
    return made


def button(words: str, icon: str, tip: str, layout: Mapping[str, str] | None = None) -> Any:
    """A panel's button; its class is its first word, ``mskv-run`` of *Run sweep*."""
    made = ipw.Button(
        description=words, icon=icon, tooltip=tip, layout=dict(layout or {"width": "auto"})
    )
    made.add_class(f"mskv-{words.split(maxsplit=1)[0].lower()}")
    return made
