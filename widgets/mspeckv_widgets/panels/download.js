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
export default hearing({ render });
