"""A box of code with a button that puts it on the clipboard, which ipywidgets has not."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets


class CopyBox(anywidget.AnyWidget):
    """Shows `text` with a copy button; selects it where the browser forbids the clipboard."""

    _esm = Path(__file__).with_suffix(".js")
    text = traitlets.Unicode("").tag(sync=True)
