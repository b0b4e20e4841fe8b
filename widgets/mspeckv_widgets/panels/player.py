"""A play button that says so: ipywidgets' own has icons alone, which no screen reader can read."""

from __future__ import annotations

import anywidget
import traitlets

_ESM = """
function render({ model, el }) {
  const button = document.createElement("button");
  button.className = "jupyter-widgets jupyter-button widget-button";
  button.title = model.get("hint");
  let timer = 0;
  const put = (name, value) => { model.set(name, value); model.save_changes(); };
  const tick = () => {
    const next = model.get("value") + 1;
    if (next > model.get("max")) put("playing", false); else put("value", next);
  };
  const follow = () => {
    const playing = model.get("playing");
    clearInterval(timer);
    if (playing) timer = setInterval(tick, model.get("interval"));
    button.textContent = playing ? "Pause" : "Play";
  };
  button.onclick = () => {
    const starts = !model.get("playing");
    if (starts && model.get("value") >= model.get("max")) put("value", model.get("min"));
    put("playing", starts);
  };
  model.on("change:playing", follow);
  follow();
  el.append(button);
  return () => { clearInterval(timer); model.off("change:playing", follow); };
}
export default { render };
"""


class Player(anywidget.AnyWidget):
    """Counts `value` from `min` to `max`, one up per `interval` milliseconds, while `playing`.

    ``hint`` is the button's title: `tooltip` is ipywidgets' own, which wants a description too.
    """

    _esm = _ESM
    value = traitlets.Int(1).tag(sync=True)
    min = traitlets.Int(1).tag(sync=True)
    max = traitlets.Int(1).tag(sync=True)
    interval = traitlets.Int(700).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    hint = traitlets.Unicode("").tag(sync=True)
