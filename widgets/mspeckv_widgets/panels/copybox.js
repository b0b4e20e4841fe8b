function render({ model, el }) {
  const button = document.createElement("button");
  button.className = "jupyter-widgets jupyter-button widget-button";
  button.textContent = "Copy";
  button.title = "Copy this code to the clipboard";
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  said.style.marginLeft = "8px";
  const code = document.createElement("pre");
  code.tabIndex = 0;
  code.setAttribute("aria-label", "Code of this setting");
  code.className = "mskv-code";
  const show = () => { code.textContent = model.get("text"); said.textContent = ""; };
  const select = () => {
    const range = document.createRange();
    range.selectNodeContents(code);
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    said.textContent = "Selected: press Ctrl+C or Cmd+C.";
  };
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(model.get("text"));
      said.textContent = "Copied.";
    } catch { select(); }
  };
  model.on("change:text", show);
  show();
  el.append(button, said, code);
  return () => model.off("change:text", show);
}
export default hearing({ render });
