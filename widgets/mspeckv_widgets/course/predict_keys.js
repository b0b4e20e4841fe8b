// Keys of a prediction, so that a notebook can be gone through with the keyboard alone: Enter
// records the guess and goes on, Shift+Enter also runs the next cell, as it does anywhere else.
// The kernel is asked first whether it took the guess; one that is busy is not waited for long.
const PATIENCE_MS = 2500;
const EDITABLE = "input, textarea, select, [contenteditable=true]";
const WITHOUT = "No guess yet. Type one, or press Shift+Enter again to go on without.";

const isShown = (one) => one.offsetParent !== null;
const fieldsOf = (box) => [...box.querySelectorAll("input:enabled")].filter(isShown);
const valueOf = (box) => {
  const fields = fieldsOf(box);
  if (!fields.length) return null;
  if (fields[0].type === "radio") {
    const place = fields.findIndex((one) => one.checked);
    return place < 0 ? null : place;
  }
  return fields[0].value.trim() ? fields[0].value : null;
};
const focusOn = (box) => {
  const fields = fieldsOf(box);
  const one = fields.find((field) => field.checked) || fields[0];
  if (!one) return false;
  one.focus({ preventScroll: true });
  box.scrollIntoView({ block: "nearest" });
  return true;
};
const cellAfter = (cell) => {
  let next = cell.nextElementSibling;
  while (next && !(next.matches(".jp-Cell") && isShown(next))) next = next.nextElementSibling;
  return next;
};
// JupyterLab makes the cell that has the focus the active one, and its own keys work from there.
const enterCell = (cell) => {
  cell.focus({ preventScroll: true });
  if (!cell.contains(document.activeElement)) cell.closest(".jp-Notebook")?.focus();
  cell.scrollIntoView({ block: "nearest" });
};
const pressShiftEnter = (cell) => cell.dispatchEvent(new KeyboardEvent("keydown", {
  key: "Enter", code: "Enter", keyCode: 13, which: 13, shiftKey: true,
  bubbles: true, cancelable: true, composed: true,
}));
const goOn = (box, run) => {
  const within = box.closest(".jp-Cell") || document;
  const boxes = [...within.querySelectorAll(".mskv-guess")].filter(isShown);
  const open = boxes.slice(boxes.indexOf(box) + 1).find((one) => one.dataset.open === "yes");
  if (open && focusOn(open)) return;
  if (within === document) return;
  const next = cellAfter(within);
  enterCell(next || within);
  if (next && run) pressShiftEnter(next);
};
const countOf = (cell) => {
  const said = cell?.querySelector(".jp-InputArea-prompt")?.textContent || "";
  return said.includes("*") ? Infinity : parseInt(said.replace(/\D/g, ""), 10) || 0;
};
// Only for who has just run this cell, and has nothing else in hand. Where the next cell was run
// after it, or waits for its turn, somebody runs them all.
const isAwaited = (box) => {
  const cell = box.closest(".jp-Cell"), notebook = box.closest(".jp-Notebook");
  const at = document.activeElement;
  if (!cell || !notebook?.matches(".jp-mod-commandMode") || !notebook.contains(at)) return false;
  if (at.matches(EDITABLE)) return false;
  const active = notebook.querySelector(".jp-Cell.jp-mod-active");
  const next = cellAfter(cell), later = countOf(next);
  if (later === Infinity || later > countOf(cell)) return false;
  return active === cell || active === next;
};

// Once a result is shown, its explanation need not be kept back: JupyterLab's cells are asked for
// the next one that is folded. Elsewhere it stays as it is, and the reader opens it.
const openExplain = (box) => {
  let cell = box.closest(".jp-Cell");
  while ((cell = cell?.nextElementSibling)) {
    for (const fold of cell.querySelectorAll(".jp-RenderedMarkdown details")) {
      if (fold.querySelector("summary")?.textContent.trim() !== "Explain") continue;
      fold.open = true;
      return;
    }
  }
};

function render({ model, el }) {
  el.style.display = "none";
  const until = new AbortController();
  let box = null, waiting = null, timer = 0, warned = false;
  const status = () => box.querySelector(".mskv-guess-status .widget-html-content");
  const say = (words) => { if (status()) status().textContent = words; };
  const mark = () => {
    box.dataset.open = model.get("unanswered") ? "yes" : "no";
    const line = box.querySelector(".mskv-guess-status");
    line?.setAttribute("role", "status");
    if (line && !line.id) line.id = `mskv-status-${model.model_id || Math.random()}`;
    for (const field of fieldsOf(box))
      if (line) field.setAttribute("aria-describedby", line.id);
  };
  const refuse = (wrong) => {
    for (const field of fieldsOf(box))
      if (wrong) field.setAttribute("aria-invalid", "true");
      else field.removeAttribute("aria-invalid");
  };
  const done = (taken) => {
    if (!waiting) return;
    const { run } = waiting;
    clearTimeout(timer);
    waiting = null;
    refuse(!taken);
    if (taken) goOn(box, run);
    else focusOn(box);
  };
  const wait = (run) => {
    waiting = { run };
    clearTimeout(timer);
    timer = setTimeout(() => done(valueOf(box) !== null), PATIENCE_MS);
  };
  const ask = (run) => {
    if (waiting) return;
    const value = valueOf(box);
    if (value === null && run) {
      if (warned) { goOn(box, true); return; }
      warned = true;
      say(WITHOUT);
      return;
    }
    wait(run);
    model.send({ kind: "guess", value });
  };
  const keyed = (event) => {
    if (event.key === "Escape") {
      const cell = box.closest(".jp-Cell");
      if (cell) { event.stopPropagation(); enterCell(cell); }
      return;
    }
    if (event.key !== "Enter" || event.isComposing || event.altKey || event.metaKey) return;
    const { target } = event;
    if (target.closest("button.mskv-screen")) return;
    // a button answers Enter itself
    if (target.closest("button") && !event.shiftKey) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    ask(event.shiftKey);
  };
  const begin = () => {
    box = el.closest(".mskv-guess");
    if (!box || !fieldsOf(box).length && model.get("unanswered")) {
      timer = setTimeout(begin, 40);
      return;
    }
    const options = { capture: true, signal: until.signal };
    mark();
    box.addEventListener("keydown", keyed, options);
    box.addEventListener("input", () => refuse(false), options);
    box.addEventListener("click", (event) => {
      if (event.target.closest(".mskv-record") && !waiting) wait(false);
    }, options);
    // ipywidgets holds the last letters back while the kernel is busy; these must not come late
    box.addEventListener("focusout", (event) => {
      const value = valueOf(box);
      if (event.target.matches("input") && value !== null && !waiting)
        model.send({ kind: "typed", value });
    }, options);
    if (model.get("unanswered") && isAwaited(box)) focusOn(box);
    if (model.get("explained")) openExplain(box);
  };
  const heard = (told) => { if (told.kind === "recorded") done(told.taken); };
  const changed = () => {
    if (!box) return;
    const held = box.contains(document.activeElement);
    mark();
    // A control that is switched off would drop the focus to nowhere.
    if (held && !waiting) setTimeout(() => {
      if (document.activeElement === document.body && box.isConnected) goOn(box, false);
    }, 100);
  };
  model.on("msg:custom", heard);
  const shown = () => { if (box) openExplain(box); };
  model.on("change:unanswered", changed);
  model.on("change:explained", shown);
  begin();
  return () => {
    clearTimeout(timer);
    until.abort();
    model.off("msg:custom", heard);
    model.off("change:unanswered", changed);
    model.off("change:explained", shown);
  };
}
export default hearing({ render });
