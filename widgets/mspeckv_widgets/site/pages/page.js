// What all pages share: light and dark, state in the address, words for numbers, pieces of a page.
const make = (kind, more = {}, ...children) => {
  const { data = {}, aria = {}, role, style, ...rest } = more;
  const made = Object.assign(document.createElement(kind), rest);
  Object.assign(made.dataset, data);
  for (const [name, value] of Object.entries(aria)) made.setAttribute(`aria-${name}`, value);
  if (role) made.setAttribute("role", role);
  if (style) made.style.cssText = style;
  made.append(...children);
  return made;
};
const find = (place) => document.querySelector(place);

const digits = (value, most = 3) => {
  if (!Number.isFinite(value)) return "none";
  const places = value === 0 ? 0 : Math.max(0, most - 1 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString("en", { minimumFractionDigits: Math.min(places, most), maximumFractionDigits: Math.min(places, most) });
};
const bytes = (value) => {
  const [unit, name] = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "KB"]].find(([one]) => value >= one) || [1, "B"];
  return `${digits(value / unit)} ${name}`;
};
const tokens = (value) => (value % 1024 ? value.toLocaleString("en") : `${value / 1024} k`);

// --- light and dark: as the system says, until somebody chooses ---
const THEME = "mskv-theme";
const theme = {
  asked: () => { try { return localStorage.getItem(THEME); } catch { return null; } },
  dark: () => (document.documentElement.dataset.theme
    || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark",
  show: () => {
    const button = find("#theme");
    button.textContent = theme.dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${theme.dark() ? "light" : "dark"} colours`);
  },
  flip: () => {
    const chosen = theme.dark() ? "light" : "dark";
    document.documentElement.dataset.theme = chosen;
    try { localStorage.setItem(THEME, chosen); } catch { /* a page without storage forgets */ }
    theme.show();
  },
};
if (theme.asked()) document.documentElement.dataset.theme = theme.asked();
addEventListener("DOMContentLoaded", () => {
  theme.show();
  find("#theme").addEventListener("click", theme.flip);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme.show);
  find("#copy").addEventListener("click", async () => {
    const said = find("#copied");
    try {
      await navigator.clipboard.writeText(location.href);
      said.textContent = "Copied: the address holds everything that is set here.";
    } catch { said.textContent = "The address bar holds everything that is set here: copy it."; }
  });
});

// --- state: what is set on a page stands in its address ---
const address = {
  read: () => Object.fromEntries(new URLSearchParams(location.hash.slice(1))),
  write: (state) => {
    const words = `#${new URLSearchParams(state)}`;
    // a viewer that shows the page inside its own has an address that may not be changed
    try { if (words !== location.hash) history.replaceState(null, "", words); } catch { /* as it was */ }
  },
};
// A form whose fields are the state: read from the address, written there, told of in one call.
// `prepare` is told what is about to be put into it, so that sliders have room.
const has = (list, value) => [...list].some((one) => one.value === value);
const bound = (form, onChange, prepare = () => {}) => {
  const fields = () => [...form.elements].filter((one) => one.name);
  // of disabled fields too, which a form's own data leaves out
  const state = () => Object.fromEntries(fields()
    .filter((one) => one.type !== "radio" || one.checked).map((one) => [one.name, one.value]));
  const first = state();
  const put = (values) => {
    prepare(values);
    for (const field of fields()) {
      const value = values[field.name];
      if (value === undefined || (field.tagName === "SELECT" && !has(field.options, value))) continue;
      if (field.type !== "radio") field.value = value;
      else if (has(form.elements[field.name], value)) field.checked = field.value === value;
    }
  };
  const changed = () => { onChange(state()); address.write(state()); };
  const arrived = () => { put({ ...first, ...address.read() }); changed(); };
  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(changed));
  addEventListener("hashchange", arrived);
  arrived();
  return { state, put: (values) => { put({ ...state(), ...values }); changed(); } };
};
