// Full screen, for a projector: a button in the panel's corner, and word to Python of the room.
const CORNERS = '<svg viewBox="0 0 16 16" width="1em" height="1em" aria-hidden="true"><path ' +
  'd="M1.5 6V1.5H6M10 1.5h4.5V6M14.5 10v4.5H10M6 14.5H1.5V10" fill="none" ' +
  'stroke="currentColor" stroke-width="1.8"/></svg>';

// Widths that a panel gave its parts in pixels were for its usual type.
const SIZES = ["width", "minWidth", "maxWidth", "height", "minHeight", "maxHeight", "flexBasis"];
const stretch = (panel) => {
  const factor = parseFloat(getComputedStyle(panel).getPropertyValue("--mskv-scale")) || 1;
  const done = [];
  for (const part of panel.querySelectorAll("[style*=px]")) {
    if (part.closest(".js-plotly-plot, .noUi-target, .mskv-screen")) continue;
    for (const name of SIZES) {
      const before = part.style[name];
      if (!/^[\d.]+px$/.test(before)) continue;
      part.style[name] = `${Math.round(parseFloat(before) * factor)}px`;
      done.push([part, name, before, part.style[name]]);
    }
  }
  return () => {
    for (const [part, name, before, after] of done)
      if (part.style[name] === after) part.style[name] = before;
  };
};

const offerScreen = (panel, changed) => {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "mskv-screen";
  button.innerHTML = CORNERS;
  const isBig = () => document.fullscreenElement === panel;
  const show = () => {
    const words = isBig() ? "Leave full screen" : "Full screen";
    button.title = words;
    button.setAttribute("aria-label", words);
    if (panel.classList.toggle("mskv-big", isBig()) === before) return;
    before = isBig();
    shrink();
    shrink = before ? stretch(panel) : () => {};
    changed();
  };
  const leave = (event) => {
    if (event.key === "Escape" && isBig()) document.exitFullscreen();
  };
  let before = false, shrink = () => {};
  button.addEventListener("click", () => {
    const done = isBig() ? document.exitFullscreen() : panel.requestFullscreen();
    done.catch(() => { button.title = "This browser does not let a page fill the screen"; });
  });
  panel.append(button);
  show();
  document.addEventListener("fullscreenchange", show);
  document.addEventListener("keydown", leave);
  return () => {
    document.removeEventListener("fullscreenchange", show);
    document.removeEventListener("keydown", leave);
    button.remove();
  };
};
// In steps, so that a window being dragged does not send a message for each pixel.
const inTens = (pixels) => Math.floor(pixels / 10) * 10;
// Views of one panel may differ in width, and must not contradict each other: Python hears of the
// one that fills the screen, else of the narrowest. This module is loaded once for each panel.
const rooms = new Map();
const isFirst = (panel) => rooms.keys().next().value === panel;
const tellRoom = (panel, model, width) => {
  if (width) rooms.set(panel, width); else rooms.delete(panel);
  if (!rooms.size) return;
  const shown = [...rooms.keys()], full = shown.find((one) => one.classList.contains("mskv-big"));
  const least = full ? rooms.get(full) : Math.min(...rooms.values());
  const big = Boolean(full), before = model.get("size");
  const room = least < model.get("limit") ? inTens(least) : 0;
  let told = room !== model.get("room");
  if (told) model.set("room", room);
  const size = [inTens(least), inTens(window.innerHeight), big];
  if ((big || before[2] || model.get("measured")) && String(size) !== String(before)) {
    model.set("size", size);
    told = true;
  }
  if (told) tellIfHeard(() => model.save_changes());
};
