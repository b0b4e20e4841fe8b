"""`PageWidget`: what our own widgets are in the page, and how their modules are put together."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import uuid4

import anywidget
import traitlets

_LATE = Path(__file__).with_name("late.js")
_PARTS = re.compile(r"export\{[^{}]*?\b(\w+) as default\};")


def module(*files: Path) -> str:
    """The text of one module; its last file ends with ``export default hearing({ ... })``."""
    return "".join(file.read_text(encoding="utf-8") for file in (_LATE, *files))


def hearing_late(text: str) -> str:
    """Somebody else's module whose default is a function that gives its parts, put together alike.

    One that is written otherwise stays as it is.
    """
    # a module may hold others as texts; its own end comes last
    found = list(_PARTS.finditer(text))
    if not found:
        return text
    own = text[: found[-1].start()]
    return (
        f"{own}\n{module()}const parts = {found[-1][1]};\n"
        "export default async () => hearing(await parts());\n"
    )


class PageWidget(anywidget.AnyWidget):
    """An anywidget that hears its kernel however late its page has loaded it: see ``late.js``.

    `own_id` is the id by which the page knows it.
    """

    own_id = traitlets.Unicode("").tag(sync=True)
    _model_id: str | None

    def open(self) -> None:
        """Tell the page of this widget, its id included."""
        if self._model_id is None:
            self._model_id = uuid4().hex
        self.own_id = self._model_id
        super().open()
