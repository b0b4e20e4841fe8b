const name = (element, words) => {
  const said = (words || "").trim();
  if (element && said && element.getAttribute("aria-label") !== said)
    element.setAttribute("aria-label", said);
};
const describe = (row) => {
  const label = row.querySelector(":scope > .widget-label");
  const words = label ? label.textContent : row.title;
  for (const handle of row.querySelectorAll("[role=slider], .noUi-handle")) name(handle, words);
  for (const readout of row.querySelectorAll(".widget-readout")) {
    name(readout, `${words}, as a number`);
    if (readout.isContentEditable) readout.setAttribute("role", "textbox");
  }
  for (const field of row.querySelectorAll("select, input, textarea"))
    if (!field.labels || !field.labels.length || !field.labels[0].textContent.trim())
      name(field, words || row.title || field.title);
};
const entitle = (plot) => {
  const titles = [...plot.querySelectorAll(".gtitle, .annotation-text")];
  const axes = [...plot.querySelectorAll(".ytitle, .xtitle")];
  const said = (titles.length ? titles : axes).map((one) => one.textContent).filter(Boolean);
  if (!said.length) return;
  plot.setAttribute("role", "figure");
  name(plot, `Chart: ${said.join("; ")}`);
  for (const link of plot.querySelectorAll("a.modebar-btn")) name(link, link.dataset.title);
};
const dress = (panel) => {
  // JupyterLab takes arrow keys for itself unless what has the focus says that it wants them.
  for (const control of panel.querySelectorAll("select, input, button, [role=slider], [tabindex]"))
    control.setAttribute("data-lm-suppress-shortcuts", "true");
  for (const row of panel.querySelectorAll(".widget-inline-hbox, .widget-inline-vbox"))
    describe(row);
  for (const button of panel.querySelectorAll("button"))
    if (!button.textContent.trim()) name(button, button.title);
  for (const plot of panel.querySelectorAll(".js-plotly-plot")) entitle(plot);
};
// A text that is drawn anew begins at its top: once, it is moved to the part that is looked at.
const followed = new WeakSet();
const follow = (panel) => {
  for (const part of panel.querySelectorAll(".mskv-story [aria-current=true]")) {
    const text = part.closest(".mskv-story");
    if (followed.has(part) || !text.clientHeight) continue;
    followed.add(part);
    const [here, seen] = [part.getBoundingClientRect(), text.getBoundingClientRect()];
    if (here.top < seen.top || here.bottom > seen.bottom)
      text.scrollTop += here.top - seen.top - text.clientHeight / 3;
  }
};
function render({ model, el }) {
  el.style.display = "none";
  let panel = null, waiting = 0, resizing = 0;
  const endings = [];
  // plotly looks at a figure's room when the window changes, not when the panel does, or its tab.
  const refit = () => {
    clearTimeout(resizing);
    resizing = setTimeout(() => window.dispatchEvent(new Event("resize")), 150);
  };
  const shown = new ResizeObserver(refit);
  let plots = 0;
  const tend = () => {
    dress(panel);
    follow(panel);
    const found = panel.querySelectorAll(".js-plotly-plot");
    for (const plot of found) shown.observe(plot);
    if (found.length > plots && panel.classList.contains("mskv-big"))
      tellIfHeard(() => model.send({ kind: "plots" }));
    plots = found.length;
  };
  const later = () => {
    if (!waiting) waiting = setTimeout(() => { waiting = 0; if (panel) tend(); }, 60);
  };
  const grown = new MutationObserver(later);
  const measure = () => {
    if (panel) tellRoom(panel, model, panel.clientWidth);
  };
  const sized = new ResizeObserver(() => {
    refit();
    measure();
  });
  const begin = () => {
    panel = el.closest(".mskv-panel");
    if (!panel) { waiting = setTimeout(() => { waiting = 0; begin(); }, 60); return; }
    panel.setAttribute("role", "region");
    name(panel, model.get("label"));
    grown.observe(panel, { childList: true, subtree: true });
    sized.observe(panel);
    tend();
    // A panel within a panel is a part of it.
    if (panel.parentElement?.closest(".mskv-panel")) return;
    // Controls keep their keys from JupyterLab, so the way back to the cells is made here.
    panel.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented && !panel.matches(".mskv-big"))
        panel.closest(".jp-Notebook")?.focus();
    });
    endings.push(watchKernel(panel, model), offerScreen(panel, measure));
    window.addEventListener("resize", measure);
    endings.push(() => window.removeEventListener("resize", measure));
    endings.push(() => tellRoom(panel, model, 0));
    const live = () => isFirst(panel) && !panel.matches(".mskv-rest, .mskv-big");
    if (model.get("kept")) endings.push(keepPicture(panel, model, live));
  };
  begin();
  return () => {
    for (const timer of [waiting, resizing]) clearTimeout(timer);
    for (const observer of [grown, sized, shown]) observer.disconnect();
    for (const end of endings) end();
  };
}
const initialize = ({ model }) => findLost(model);
export default hearing({ initialize, render });
