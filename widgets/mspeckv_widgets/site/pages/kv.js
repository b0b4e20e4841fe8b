// The page "How large is the KV cache?": parts of the traced cost model, for every model.
const { kind, machines, policies, models, widths, contexts, lengths } = FORECASTS;
const GIGA = 1e9, NEW = FORECASTS.new_tokens;

const KV = FORECASTS.kv_parts, PARTS = [...KV, "part/weights", "device"];
// Plain decoding with so many layers on-chip and resident.
const plain = (model, machine, bits, length, on_chip, resident, wanted) =>
  compute(FORECASTS, `${model}/${kind[machine]}/autoregressive`, {
    ...machines[machine], prefill: length - NEW, on_chip, resident,
    gamma: 1, middle_full: 0, draft_full: 0, middle_passes: 0, draft_passes: 0,
    policy: policies.findIndex(([width, kept]) => String(width) === bits && kept === "static"),
  }, wanted);
// All KV on the device: as floats on-chip, else packed and resident.
const held = (model, machine, bits, length) => {
  const all = models[model].layers, floats = bits === "full";
  const found = plain(model, machine, bits, length, floats ? all : 0, floats ? 0 : all, PARTS);
  const kv = KV.reduce((sum, name) => sum + found[name], 0);
  return { kv, weights: found["part/weights"], device: found.device };
};
const STEP = 4096; // whole blocks of every width
const perToken = (...of) => {
  const length = of.pop();
  return (held(...of, length + STEP).kv - held(...of, length).kv) / STEP;
};
// The longest text, in steps of 1 k tokens, that fits beside the weights; 0 for none.
const longest = (model, machine, bits) => {
  const fits = (units) => held(model, machine, bits, 1024 * units).device <= machines[machine].memory_gb * GIGA;
  let low = 0, high = 1 << 20;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (fits(middle)) low = middle; else high = middle;
  }
  return 1024 * low;
};
const named = (bits) => (bits === "full" ? "floats" : `${bits} bits`);

let now = null;
const draw = (state) => {
  const { model, machine, bits } = state, length = lengths[+state.size], here = held(model, machine, bits, length);
  now = { ...state, length };
  const slide = find("#setting").elements.size;
  find("[data-of=size]").textContent = `${tokens(length)} tokens`;
  slide.setAttribute("aria-valuetext", `${tokens(length)} tokens`);
  find("#token").textContent = bytes(perToken(model, machine, bits, length));
  find("#whole").textContent = bytes(here.kv);
  find("#whole-words").textContent = `${tokens(length)} tokens, ${digits((100 * here.kv) / here.weights)} % of the weights' ${bytes(here.weights)}`;
  const most = longest(model, machine, bits);
  find("#most").textContent = most ? tokens(most).replace(" ", "") : "none";
  find("#most-words").textContent = most ? `tokens fit on ${machine} beside the weights` : `the weights alone do not fit on ${machine}`;
  const floats = held(model, machine, "full", length).kv;
  find("#said").textContent = `${model} in ${named(bits)}: ${models[model].source}${models[model].note && `; ${models[model].note}`}. ${bits === "full" ? "" : `As floats it would be ${bytes(floats)}, ${digits(floats / here.kv)} times as much. `}`
    + `Offloaded to the host, it takes ${digits(plain(model, machine, bits, length, 0, 0, ["link_ms"]).link_ms)} ms on this machine's link for each token that is decoded without guesses.`;
  const rows = Object.keys(models).map((name) => [name, { ...held(name, machine, bits, length),
    more: perToken(name, machine, bits, length), most: longest(name, machine, bits) }]).sort((a, b) => b[1].kv - a[1].kv);
  bars(find("#models"), rows.map(([name, one]) => ({ name, faint: name !== model, note: `${bytes(one.more)} a token`,
    parts: [{ name: "KV", sign: name === model ? "static" : "weights", value: one.kv, said: bytes(one.kv) }], said: bytes(one.kv) })), { most: rows[0][1].kv });
  find("#numbers thead").replaceChildren(make("tr", {}, make("td", {}), ...["one more token", `${tokens(length)} tokens`, "weights", `tokens fit on ${machine}`]
    .map((words) => make("th", { scope: "col" }, words))));
  find("#numbers tbody").replaceChildren(...rows.map(([name, one]) => make("tr", { className: name === model ? "chosen" : "" }, make("th", { scope: "row" }, name),
    ...[bytes(one.more), bytes(one.kv), bytes(one.weights), one.most].map((words) =>
      make("td", {}, typeof words === "number" ? (words ? tokens(words) : "none") : words)))));
  chart();
};
const chart = () => {
  if (!now) return;
  const { model, machine, bits, length } = now;
  const series = widths.map(String).map((width) => ({ name: named(width), sign: width === bits ? "static" : "autoregressive", thin: width !== bits, end: width === "full" ? "floats" : width,
    points: lengths.map((one) => [one, held(model, machine, width, one).kv / GIGA]) }));
  series.push({ name: "weights", sign: "here", thin: true, points: [lengths[0], lengths.at(-1)].map((one) => [one, held(model, machine, bits, one).weights / GIGA]) });
  series.push({ name: "now", sign: "here", dots: true, points: [[length, held(model, machine, bits, length).kv / GIGA]] });
  lines(find("#chart"), { series, title: `GB of KV of ${model} by length, for every width; the weights for comparison`, now: length,
    x: { label: "tokens", log: true, ticks: lengths.filter((_, at) => at % 2 === 0), words: (at) => tokens(at).replace(" ", "") },
    y: { label: "GB", log: true, low: 10 ** Math.floor(Math.log10(series[0].points[0][1])), words: (at) => at.toLocaleString("en") } });
};
const begin = () => {
  const form = find("#setting"), options = (name, list) => form.elements[name].append(
    ...list.map(([value, words]) => make("option", { value }, words)));
  options("model", Object.keys(models).map((name) => [name, name]));
  options("machine", Object.keys(machines).filter((name) => name !== "origin").map((name) => [name, `${name}, ${machines[name].memory_gb} GB`]));
  for (const one of form.elements.machine.options) one.defaultSelected = one.value === FORECASTS.first.machine;
  find("#widths").append(...widths.map((width) => make("label", {},
    make("input", { type: "radio", name: "bits", value: width, defaultChecked: width === "full" }), ` ${width === "full" ? "floats" : width}`)));
  form.elements.size.max = lengths.length - 1;
  form.elements.size.defaultValue = lengths.indexOf(32768);
  legend(find("#legend"), [["this width", "static"], ["other widths, in bits", "autoregressive"], ["weights", "here"]]);
  bound(form, draw);
  fitted(find("#chart"), chart);
};
begin();
