"""A box of code with a button that puts it on the clipboard, which ipywidgets has not."""

from __future__ import annotations

from pathlib import Path

import traitlets

from mspeckv_widgets.page_widget import PageWidget, module


class CopyBox(PageWidget):
    """Shows `text` with a copy button; selects it where the browser forbids the clipboard."""

    _esm = module(Path(__file__).with_suffix(".js"))
    text = traitlets.Unicode("").tag(sync=True)
