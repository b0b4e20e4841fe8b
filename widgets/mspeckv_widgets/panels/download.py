"""A button that hands the browser a file which only the kernel has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import traitlets

from mspeckv_widgets.page_widget import PageWidget, module


class Download(PageWidget):
    """A download button; the file is made, and sent, only when it is pressed.

    Args:
        words: what the button says.
        tip: what the file is good for.
        name: the file's name.
        kind: its media type.
    """

    _esm = module(Path(__file__).with_suffix(".js"))
    words = traitlets.Unicode("").tag(sync=True)
    tip = traitlets.Unicode("").tag(sync=True)
    ready = traitlets.Bool(False).tag(sync=True)

    def __init__(self, words: str, tip: str, name: str, kind: str) -> None:
        super().__init__(words=words, tip=tip)
        self._name, self._kind = name, kind
        self._make: Callable[[], bytes] | None = None
        self.on_msg(self._answer)

    def offer(self, make: Callable[[], bytes] | None) -> None:
        """Hand out what ``make`` returns; None makes the button rest."""
        self._make = make
        self.ready = make is not None

    def _answer(self, _: Any, content: Any, buffers: Any) -> None:
        if content == "wanted" and self._make is not None:
            self.send({"name": self._name, "type": self._kind}, [self._make()])
