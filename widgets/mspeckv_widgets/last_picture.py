"""What a notebook shows where a panel's kernel is gone: the panel's last picture, and a line.

A panel is a program in the page that talks to one in the kernel; a notebook opened again without
that kernel has nothing of it to show. JupyterLab can save the state of widgets, but a notebook
with one plotly figure then holds five megabytes of plotly's script. Here an output of its own
stands before the panel's. It holds an image of the panel, drawn by the panel's page whenever that
has been at rest for two seconds, of at most 300 kB, and is hidden as long as the panel is there.
An image can neither be clicked nor run anything, so untrusted notebooks show it too.

JupyterLab forgets which output has which display id when a page is loaded anew. The page then asks
for the output and puts it into the notebook itself: see ``panel_picture.js``. Elsewhere the picture
stays as it was: each says when it was drawn.
"""

from __future__ import annotations

import base64
import html
import os
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import uuid4

from IPython.core import display_functions
from IPython.core.getipython import get_ipython

from mspeckv_widgets.charts.theme import STYLE_SHEET

SESSION = "JPY_SESSION_NAME"
"""Set by a Jupyter server in the kernels of its notebooks; not by Voilà, nor by nbclient."""
PLACES = 3
"""Outputs of one panel that are kept up to date: the last ones shown."""


def notebook_listens() -> bool:
    """Whether a notebook's page shows this kernel's output, and may be opened again later."""
    return hasattr(get_ipython(), "kernel") and SESSION in os.environ


class LastPicture:
    """The output that stands in for one panel.

    Args:
        label: the panel's name.
        mark: a class that this panel alone has.
    """

    def __init__(self, label: str, mark: str) -> None:
        self._label, self._mark = label, mark
        self._places: deque[str] = deque(maxlen=PLACES)
        self._image, self._drawn = "", 0

    def place(self) -> None:
        """Put an output here, before the panel's own."""
        self._places.append(uuid4().hex)
        self._show(self._places[-1], update=False)

    def take(self, told: Mapping[str, Any]) -> None:
        """Keep a picture that the page has drawn: ``svg``, its size, its words."""
        svg = str(told["svg"]).encode("utf-8", "replace")
        words = html.escape(f"Last picture of {self._label}: {told['words']}")
        self._drawn = int(told.get("stamp", 0))
        night = ' class="mskv-night"' if told["night"] else ""
        source = base64.b64encode(svg).decode("ascii")
        self._image = (
            f'<img{night} width="{int(told["width"])}" height="{int(told["height"])}" '
            f'alt="{words}" style="max-width:100%;height:auto" '
            f'src="data:image/svg+xml;base64,{source}">'
            f'<div class="mskv-small">Drawn {datetime.now():%Y-%m-%d %H:%M}.</div>'
            if svg
            else ""
        )
        for place in self._places:
            self._show(place, update=True)

    def html(self) -> str:
        """The output: hidden by its own style sheet while the panel is there."""
        live = f".{self._mark}:not(.mskv-last)"
        child = ".jp-OutputArea-child"
        here = f"{child}:has(.mskv-last.{self._mark})"
        what = "This is the last picture: run" if self._image else "Run"
        return (
            f"{STYLE_SHEET}<style>.jp-OutputArea:has({live}) {here} {{ display: none; }}\n"
            f"{here} + {child}:not(:has({live})):has(> .lm-Panel.jp-OutputArea-output)"
            " { visibility: hidden; height: 0; overflow: hidden; }</style>"
            f'<div class="mskv-last {self._mark}" data-drawn="{self._drawn}">'
            f'<div class="mskv-gone" role="status">'
            f"The kernel was restarted. {what} this cell again.</div>{self._image}</div>"
        )

    def _show(self, place: str, update: bool) -> None:
        data = {"text/html": self.html(), "text/plain": ""}
        show = display_functions.update_display if update else display_functions.display
        show(data, raw=True, display_id=place)  # type: ignore[no-untyped-call]
