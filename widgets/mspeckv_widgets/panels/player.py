"""A play button that says so: ipywidgets' own has icons alone, which no screen reader can read."""

from __future__ import annotations

from pathlib import Path

import traitlets

from mspeckv_widgets.page_widget import PageWidget, module


class Player(PageWidget):
    """Counts `value` from `min` to `max`, one up per `interval` milliseconds, while `playing`.

    ``hint`` is the button's title: `tooltip` is ipywidgets' own, which wants a description too.
    """

    _esm = module(Path(__file__).with_suffix(".js"))
    value = traitlets.Int(1).tag(sync=True)
    min = traitlets.Int(1).tag(sync=True)
    max = traitlets.Int(1).tag(sync=True)
    interval = traitlets.Int(700).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    hint = traitlets.Unicode("").tag(sync=True)
