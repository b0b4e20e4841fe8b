"""What explorers share: controls that are moved by name, a document to look at, a line of words."""

from __future__ import annotations

import html
import threading
from typing import Any

import ipywidgets as ipw

from mspeckv import Pair, documents
from mspeckv.settings import check_kind
from mspeckv_widgets.panel import HasPanel

LAYOUT = {"width": "348px", "max_width": "100%"}
STYLE = {"description_width": "112px"}


class Explorer(HasPanel):
    """An explorer over a document.

    Attributes:
        controls: every control by its name.
    """

    controls: dict[str, Any]

    def __init__(self) -> None:
        # Trait callbacks may come on a subshell's thread while a cell moves controls on its own.
        self._lock = threading.RLock()
        self._status = ipw.HTML()

    def set(self, **values: Any) -> None:
        """Move controls by name; `controls` has the names.

        Raises:
            ValueError: no such control, or a value that it does not have.
        """
        for name, value in values.items():
            if name not in self.controls:
                raise ValueError(f"{name}: there are {', '.join(self.controls)}")
            try:
                self.controls[name].value = value
            except Exception as error:  # traitlets' own error names no control
                raise ValueError(f"{name}: {value!r} is not allowed; {error}") from error

    def _say(self, words: str, kind: str = "mskv-small") -> None:
        line = f'<div class="{kind}" role="status">{html.escape(words)}</div>'
        self._status.value = line if words else ""


def read_document(pair: Pair, document: str | list[int], tokens: int) -> list[int]:
    """The first ``tokens`` of a document that is named; token ids as they are.

    Raises:
        ValueError: see `mspeckv.documents.load_document`.
    """
    check_kind("pair", pair, Pair)
    if isinstance(document, str):
        return documents.load_document(document, pair.tokenizer, tokens)
    return document


def slider(words: str, most: int, value: int = 0, least: int = 0, step: int = 1) -> Any:
    """A slider over whole numbers, which tells of a move once it has ended."""
    return ipw.IntSlider(
        value=value, min=least, max=most, step=step, description=words, continuous_update=False,
        style=STYLE, layout=LAYOUT,
    )  # fmt: skip


def choice(words: str, options: Any, value: Any) -> Any:
    """A list to choose one of."""
    return ipw.Dropdown(options=options, value=value, description=words, style=STYLE, layout=LAYOUT)
