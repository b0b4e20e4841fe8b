"""`PageWidget`: what our own widgets are in the page, and how their modules are put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import anywidget
import traitlets

_LATE = Path(__file__).with_name("late.js")


def module(*files: Path) -> str:
    """The text of one module; its last file ends with ``export default hearing({ ... })``."""
    return "".join(file.read_text(encoding="utf-8") for file in (_LATE, *files))


class PageWidget(anywidget.AnyWidget):
    """An anywidget that hears its kernel however late its page has loaded it: see ``late.js``.

    `own_id` is the id by which the page knows it.
    """

    own_id = traitlets.Unicode("").tag(sync=True)

    def __init__(self, **kwargs: Any) -> None:
        name = uuid4().hex
        super().__init__(model_id=name, own_id=name, **kwargs)
