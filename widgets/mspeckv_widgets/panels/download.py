"""A button that hands the browser a file which only the kernel has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

_ESM = """
function render({ model, el }) {
  const button = document.createElement("button");
  button.className = "jupyter-widgets jupyter-button widget-button";
  button.style.width = "auto";
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  said.style.marginLeft = "8px";
  const show = () => {
    button.textContent = model.get("words");
    button.title = model.get("tip");
    button.disabled = !model.get("ready");
    said.textContent = "";
  };
  const save = (message, buffers) => {
    const address = URL.createObjectURL(new Blob([buffers[0]], { type: message.type }));
    const link = document.createElement("a");
    link.href = address;
    link.download = message.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
    said.textContent = `Saved as ${message.name}.`;
  };
  button.onclick = () => { said.textContent = "Fetching from the kernel"; model.send("wanted"); };
  model.on("msg:custom", save);
  for (const part of ["words", "tip", "ready"]) model.on(`change:${part}`, show);
  show();
  el.append(button, said);
  return () => {
    model.off("msg:custom", save);
    for (const part of ["words", "tip", "ready"]) model.off(`change:${part}`, show);
  };
}
export default { render };
"""


class Download(anywidget.AnyWidget):
    """A download button; the file is made, and sent, only when it is pressed.

    Args:
        words: what the button says.
        tip: what the file is good for.
        name: the file's name.
        kind: its media type.
    """

    _esm = _ESM
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
