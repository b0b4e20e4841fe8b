// Every view has a clock, so that any may go; together they count as fast as one. This module is
// loaded once for each player.
let counted = 0;
function render({ model, el }) {
  const button = document.createElement("button");
  button.className = "jupyter-widgets jupyter-button widget-button";
  button.title = model.get("hint");
  let timer = 0;
  const put = (name, value) => { model.set(name, value); model.save_changes(); };
  const tick = () => {
    if (performance.now() - counted < 0.8 * model.get("interval")) return;
    counted = performance.now();
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
export default hearing({ render });
