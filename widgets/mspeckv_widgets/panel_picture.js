// A panel's last look, drawn as one SVG image: no script, nothing to click, no ids that could
// clash with those of the page, and small (a notebook keeps it).
const PICTURE_ROOM = 220_000;
// Characters; written as base64 they are a third more.
const QUIET_MS = 2000;
const UNSEEN = "script, style, link, meta, .modebar-container, .mskv-gone, .mskv-screen, i.fa";
const UNDRAWN = ".hoverlayer, .zoomlayer, .draglayer, .legendtoggle, script, style";
const PASSED_ON = ["color", "font-family", "font-size", "font-weight", "font-style", "line-height",
  "text-align", "white-space", "overflow-wrap", "font-variant-numeric", "border-collapse",
  "visibility", "list-style-type", "text-indent"];
const ITS_OWN = { "background-color": "rgba(0, 0, 0, 0)", "background-image": "none",
  "margin-top": "0px", "margin-right": "0px", "margin-bottom": "0px", "margin-left": "0px",
  "padding-top": "0px", "padding-right": "0px", "padding-bottom": "0px", "padding-left": "0px",
  "border-radius": "0px", "flex-direction": "row", "flex-wrap": "nowrap", "row-gap": "normal",
  "column-gap": "normal", "align-items": "normal", "align-self": "auto", "order": "0",
  "justify-content": "normal", "float": "none", "position": "static", "box-sizing": "content-box",
  "vertical-align": "baseline", "text-decoration-line": "none", "opacity": "1",
  "transform": "none", "table-layout": "auto", "text-overflow": "clip", "z-index": "auto" };

const looks = (style, around) => {
  const said = [`display:${style.display}`];
  for (const name of PASSED_ON) {
    const value = style.getPropertyValue(name);
    if (!around || around.getPropertyValue(name) !== value) said.push(`${name}:${value}`);
  }
  for (const [name, usual] of Object.entries(ITS_OWN)) {
    const value = style.getPropertyValue(name);
    if (value !== usual) said.push(`${name}:${value}`);
  }
  for (const side of ["top", "right", "bottom", "left"]) {
    const width = style.getPropertyValue(`border-${side}-width`);
    if (width !== "0px") said.push(`border-${side}:${width} ` +
      `${style.getPropertyValue(`border-${side}-style`)} ` +
      style.getPropertyValue(`border-${side}-color`));
    if (style.position !== "static") said.push(`${side}:${style.getPropertyValue(side)}`);
  }
  if (style.transform !== "none") said.push(`transform-origin:${style.transformOrigin}`);
  return said.join(";");
};
const extent = (style) => {
  if (/^(inline|contents)$/.test(style.display)) return "";
  if (style.display.startsWith("table")) return `width:${style.width}`;
  const cut = style.overflowY !== "visible" || style.position === "absolute";
  const size = `width:${style.width};${cut ? "" : "min-"}height:${style.height};flex-shrink:0`;
  return cut && style.overflowY !== "visible" ? `${size};overflow:hidden` : size;
};
const valueOf = (field) => {
  if (field.matches("select")) return [...field.selectedOptions].map((one) => one.text).join(", ");
  if (field.matches("[type=checkbox]")) return field.checked ? "\u2611" : "\u2610";
  if (field.matches("[type=radio]")) return field.checked ? "\u25c9" : "\u25cb";
  return field.matches("input, textarea") ? field.value || field.placeholder : null;
};
// A figure is copied as it is; what only follows the mouse is left out, and long decimals too.
const copyDrawing = (svg) => {
  const copy = svg.cloneNode(true), style = getComputedStyle(svg);
  const before = svg.querySelectorAll("*"), after = copy.querySelectorAll("*");
  before.forEach((one, place) => {
    const made = after[place];
    if (one.hasAttribute("style")) {
      const shown = getComputedStyle(one);
      for (const paint of ["fill", "stroke"])
        if (one.style[paint]) made.style[paint] = shown[paint];
      for (const idle of ["pointer-events", "cursor", "white-space"])
        made.style.removeProperty(idle);
    }
    for (const word of [...made.attributes])
      if (/^(data-|on|tabindex|focusable|aria-|role)/.test(word.name))
        made.removeAttribute(word.name);
    if (made.hasAttribute("d"))
      made.setAttribute("d", made.getAttribute("d").replace(/\d+\.\d{2,}/g, (n) => (+n).toFixed(1)));
  });
  for (const one of copy.querySelectorAll(UNDRAWN)) one.remove();
  copy.setAttribute("style", `position:${style.position};left:0;top:0`);
  copy.removeAttribute("class");
  return copy;
};
const copyPart = (part, around, sheet, left) => {
  if (part.nodeType === Node.TEXT_NODE) return document.createTextNode(part.data);
  if (part.nodeType !== Node.ELEMENT_NODE || part.matches(UNSEEN)) return null;
  const style = getComputedStyle(part);
  if (style.display === "none") return null;
  if (part.matches("svg")) return copyDrawing(part);
  const words = left.has(part) ? `${part.ariaLabel || "Chart"} (left out: too large)` : valueOf(part);
  const made = document.createElement(part.matches("td, th") ? part.tagName : "div");
  if (made.matches("td, th")) made.colSpan = part.colSpan;
  const rule = looks(style, around);
  if (!sheet.has(rule)) sheet.set(rule, `c${sheet.size}`);
  made.className = sheet.get(rule);
  made.setAttribute("style", extent(style));
  if (part.matches("progress"))
    made.style.background =
      `linear-gradient(90deg, ${style.color} ${100 * part.position}%, transparent 0)`;
  if (part.matches("canvas")) made.style.background = `url(${part.toDataURL()})`;
  if (words !== null) {
    made.textContent = words;
    if (part.matches("select, input:not([type=checkbox], [type=radio])"))
      Object.assign(made.style, { display: "flex", alignItems: "center" });
  } else for (const child of part.childNodes) {
    const copied = copyPart(child, style, sheet, left);
    if (copied) made.append(copied);
  }
  return made;
};
const drawOnce = (panel, left) => {
  const sheet = new Map(), { offsetWidth: width, offsetHeight: height } = panel;
  const body = copyPart(panel, null, sheet, left);
  const rules = document.createElement("style");
  rules.textContent = [...sheet].map(([rule, name]) => `.${name}{all:unset;${rule}}`).join("");
  body.prepend(rules);
  body.style.margin = 0;
  const texts = document.createTreeWalker(body, NodeFilter.SHOW_TEXT), said = [];
  while (texts.nextNode())
    if (!texts.currentNode.parentElement.closest("style, svg")) said.push(texts.currentNode.data);
  const inner = new XMLSerializer().serializeToString(body)
    .replace(/url\((&quot;|["']?)[^)#]*#/g, "url($1#")
    .replace(/[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]|\p{Surrogate}/gu, "\ufffd");
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">` +
    `<foreignObject width="100%" height="100%">${inner}</foreignObject></svg>`;
  return { svg, width, height, words: said.join(" ").replace(/\s+/g, " ").trim().slice(0, 600) };
};
// Largest figures first, until the rest fits; nothing if it never does.
const drawPicture = (panel) => {
  const plots = [...panel.querySelectorAll(".js-plotly-plot")]
    .sort((one, other) => one.innerHTML.length - other.innerHTML.length);
  const left = new Set();
  for (;;) {
    const drawn = drawOnce(panel, left);
    if (drawn.svg.length <= PICTURE_ROOM) return drawn;
    if (!plots.length) return { ...drawn, svg: "" };
    left.add(plots.pop());
  }
};
// A page that was loaded anew no longer knows which output is a panel's picture, and lets what the
// kernel sends for it fall. It then finds the output by its text and puts the picture in itself.
const ANSWER_MS = 3000;
const places = (model) => {
  const sign = `mskv-last mskv-is-${model.get("own_id")}`, found = [];
  let cells = [];
  try { cells = model.widget_manager.context.model.cells; } catch { /* not JupyterLab's */ }
  for (const { outputs } of cells)
    for (let at = 0; at < (outputs?.length ?? 0); at += 1) {
      const { data } = outputs.get(at).toJSON(), html = [data?.["text/html"] ?? ""].flat().join("");
      if (html.includes(sign)) found.push({ outputs, at, html });
    }
  return found;
};
const putIn = (model, html) => {
  for (const { outputs, at, html: old } of places(model))
    if (old !== html) outputs.set(at, { output_type: "display_data", metadata: {},
      data: { "text/html": html, "text/plain": "" } });
};
// Once nothing has changed for two seconds, and only if it looks otherwise than it did.
const keepPicture = (panel, model, allowed) => {
  let changed = 0, timer = 0, asking = 0, sent = null;
  const look = () => {
    const left = changed + QUIET_MS - performance.now();
    timer = left > 0 ? setTimeout(look, left + 20) : 0;
    if (timer || !allowed() || !panel.isConnected || !panel.offsetWidth) return;
    const drawn = drawPicture(panel);
    if (drawn.svg === sent) return;
    sent = drawn.svg;
    const night = document.body.dataset.jpThemeLight === "false";
    const stamp = Date.now();
    tellIfHeard(() => model.send({ kind: "picture", ...drawn, night, stamp }));
    clearTimeout(asking);
    asking = setTimeout(() => {
      if (places(model).some(({ html }) => !html.includes(`data-drawn="${stamp}"`)))
        tellIfHeard(() => model.send({ kind: "renew" }));
    }, ANSWER_MS);
  };
  const told = (message) => { if (message?.kind === "last") putIn(model, message.html); };
  model.on("msg:custom", told);
  const touch = () => {
    changed = performance.now();
    if (!timer) timer = setTimeout(look, QUIET_MS);
  };
  const seen = new MutationObserver(touch);
  seen.observe(panel, { subtree: true, childList: true, characterData: true, attributes: true });
  for (const kind of ["input", "change"]) panel.addEventListener(kind, touch);
  touch();
  return () => {
    clearTimeout(timer);
    clearTimeout(asking);
    model.off("msg:custom", told);
    seen.disconnect();
    for (const kind of ["input", "change"]) panel.removeEventListener(kind, touch);
  };
};
