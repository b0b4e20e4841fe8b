// What a panel shows once its kernel is gone: its last look, at rest, and what to do.
const LAST = "This is the last picture: run this cell again.";
const AT_REST = "button, input, select, textarea, a, [role=slider], [tabindex], " +
  "[contenteditable], .noUi-target, .lm-TabBar-tab, .js-plotly-plot, label";
// What scrolls can still be read.
const READABLE = ".mskv-story, .mskv-scroll, pre";

const putToRest = (panel, why) => {
  if (panel.classList.contains("mskv-rest")) return;
  panel.classList.add("mskv-rest");
  for (const one of panel.querySelectorAll(AT_REST))
    if (!one.matches(READABLE)) one.inert = true;
  const line = document.createElement("div");
  line.className = "mskv-gone";
  line.setAttribute("role", "status");
  panel.prepend(line);
  // A screen reader speaks what comes into a status, not one that comes with its words.
  setTimeout(() => { line.textContent = `${why} ${LAST}`; }, 50);
};
// ipywidgets marks views when a kernel restarts on demand; one that died says it by its status.
const watchKernel = (panel, model) => {
  const RESTARTED = "The kernel was restarted.", ENDED = "The kernel has ended.";
  const marked = () => {
    if (panel.classList.contains("jupyter-widgets-disconnected")) putToRest(panel, RESTARTED);
  };
  const seen = new MutationObserver(marked);
  seen.observe(panel, { attributeFilter: ["class"] });
  marked();
  const heard = (_, status) => {
    if (status === "autorestarting") putToRest(panel, RESTARTED);
    if (status === "terminating" || status === "dead") putToRest(panel, ENDED);
  };
  let kernel = null;
  try { kernel = model.widget_manager.kernel; } catch { /* not JupyterLab's */ }
  kernel?.statusChanged?.connect?.(heard);
  return () => { seen.disconnect(); kernel?.statusChanged?.disconnect?.(heard); };
};
