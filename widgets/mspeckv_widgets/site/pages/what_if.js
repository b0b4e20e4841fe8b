// The page "What if": its controls, and the pictures of what the traced cost model says.
const LAYER_SIGNS = { "on-chip": "on-chip", resident: "resident", offloaded: "offloaded" };
const STEP_SIGNS = {
  "tier 0 draft": "t0", "tier 1 verify": "t1", "tier 2 compute": "t2", "tier 2 unpack": "unpack",
  "tier 2 wait": "wait", retrieve: "retrieve", draw: "draw",
};
const PART_SIGNS = {
  weights: "weights", on_chip: "on-chip", resident: "resident", slots: "wait", tail: "draw", scratch: "unpack",
  windows: "triforce", states: "mspeckv", retrieval: "t1", streaming: "t0", head: "t0", workspace: "retrieve", runtime: "draw",
};
const { kind, machines, policies, contexts, acceptance, inner, models, methods } = FORECASTS;
const GIGA = 1e9;
const partWords = (name) => FORECASTS.part_words[name] || name;

// One setting's results; `over` replaces fields of it.
const forecast = (asked, wanted) => {
  const { model, machine, method, bits, residency, context, gamma, on_chip, resident } = asked;
  const rates = acceptance[`${model}/${method}`][context];
  const depth = kind[machine] === kind.origin ? FORECASTS.published_draft_gamma : FORECASTS.draft_gamma;
  const [middle, draft] = inner[`${rates[0]}/${depth}`].map((list) => list[gamma - 1]);
  return compute(FORECASTS, `${model}/${kind[machine]}/${method}`, {
    ...machines[machine], prefill: contexts[context], on_chip, resident, gamma,
    middle_full: rates[1], draft_full: rates[2], middle_passes: middle, draft_passes: draft,
    policy: policies.findIndex(([width, kept]) => String(width) === bits && kept === residency),
  }, wanted);
};
const named = (found, prefix) => Object.keys(found).filter((one) => one.startsWith(`${prefix}/`)).map((one) => one.slice(prefix.length + 1));
const parts = (found, prefix, signs, unit, scale) => named(found, prefix).map((name) => {
  const value = found[`${prefix}/${name}`] / scale;
  return { name: partWords(name), sign: signs[name] || "draw", value, said: `${digits(value)} ${unit}` };
});

// What the form says, as numbers, and made possible: no more places than layers, floats for triforce.
const setting = (state) => {
  const { layers } = models[state.model];
  const on_chip = Math.min(+state.on_chip, layers);
  return { ...state, context: +state.context, gamma: +state.gamma, on_chip, layers,
    resident: Math.min(+state.resident, layers - on_chip),
    bits: state.method === "triforce" ? "full" : state.bits };
};
const ways = (asked) => {
  const here = forecast(asked), floats = { ...asked, method: "autoregressive", bits: "full", resident: 0 };
  const same = forecast({ ...asked, method: "autoregressive" });
  const equal = here["control/fits"] ? forecast({ ...floats, on_chip: here["control/on_chip"] }) : null;
  return { here, same, equal };
};

const draw = (state) => {
  const asked = setting(state), { layers } = asked, { here, same, equal } = ways(asked);
  const floats = asked.bits === "full", room = machines[asked.machine].memory_gb;
  const offloaded = layers - asked.on_chip - (floats ? 0 : asked.resident);
  outputs(asked, floats);
  find("#ms").textContent = digits(here.ms);
  find("#speed").textContent = digits(1e3 / here.ms);
  find("#speedup").textContent = equal ? `${digits(here["control/speedup"])}×` : "no match";
  find("#said").textContent = verdict(asked, here, same, equal, room);
  const names = [asked.method === "autoregressive" ? "this setting" : asked.method, "same places, no guesses", "equal memory, floats"];
  const notes = ["as set above", "plain decoding, same KV", equal ? `plain decoding, ${here["control/on_chip"]} of ${layers} layers on-chip` : "plain decoding"];
  const all = [here, same, equal], most = Math.max(...all.map((one) => (one ? one.ms : 0)));
  bars(find("#time"), all.map((one, at) => ({ name: names[at], note: notes[at],
    parts: one ? parts(one, "step", STEP_SIGNS, "ms", 1) : [], said: one ? `${digits(one.ms)} ms` : "does not fit" })), { most });
  const used = Math.max(room, ...all.map((one) => (one ? one.device / GIGA : 0)));
  bars(find("#memory"), all.map((one, at) => ({ name: names[at],
    note: one ? `${digits(one.host / GIGA)} GB on the host` : "", parts: one ? parts(one, "part", PART_SIGNS, "GB", GIGA) : [],
    said: one ? `${digits(one.device / GIGA)} GB${one.device > room * GIGA ? ": too much" : ""}` : "does not fit" })),
    { most: used * 1.02, limit: room, limitName: `${asked.machine}: ${room} GB` });
  table(names, all, offloaded);
  now = { asked, here };
  cliff();
};
const outputs = (asked, floats) => {
  const { layers, on_chip, resident, bits } = asked, { note } = models[asked.model], form = find("#setting");
  const said = { context: tokens(contexts[asked.context]), gamma: asked.gamma, on_chip: `${on_chip} of ${layers}`,
    resident: floats ? "none: floats" : `${resident} of ${layers}` };
  for (const [name, words] of Object.entries(said)) {
    form.querySelector(`[data-of=${name}]`).textContent = words;
    form.elements[name].setAttribute("aria-valuetext", words);
  }
  for (const name of ["on_chip", "resident"]) form.elements[name].max = layers;
  form.elements.resident.disabled = floats;
  for (const one of form.elements.bits) one.disabled = asked.method === "triforce";
  const held = floats ? 0 : resident, place = (at) => (at < on_chip ? "on-chip" : at < on_chip + held ? "resident" : "offloaded");
  const lru = asked.residency === "lru" && !floats;
  find("#layers").replaceChildren(...[...Array(layers).keys()].map((at) => make("i", {
    className: `sign-${lru && at >= on_chip ? "offloaded" : place(at)}` })));
  const words = lru ? `${on_chip} layers on-chip, ${layers - on_chip} offloaded; ${resident} of them are kept by LRU`
    : `${on_chip} layers on-chip as floats, ${held} resident${floats ? "" : ` in ${bits} bits`}, ${layers - on_chip - held} offloaded to the host`;
  find("#layers").setAttribute("aria-label", words);
  find("#places").textContent = `${words}${note && ` (${note})`}`;
};
const verdict = (asked, here, same, equal, room) => {
  const fit = here.fits ? "" : ` It does not fit the ${room} GB of this machine.`;
  const settled = `A round settles ${digits(here.settled)} tokens and takes ${digits(here.round)} ms.`;
  const over = equal ? `Plain decoding in the same device memory takes ${digits(equal.ms)} ms: ${digits(here["control/speedup"])} times as long.`
    : "Plain decoding does not fit the same device memory.";
  return `${settled} ${over} Without guesses, places alike, a token takes ${digits(same.ms)} ms. ${bytes(here.link_bytes)} cross the link per token.${fit}`;
};
const table = (names, all, offloaded) => {
  const row = (words, say) => make("tr", {}, make("th", { scope: "row" }, words),
    ...all.map((one) => make("td", {}, one ? say(one) : "")));
  const some = (prefix) => named(all[0], prefix).filter((name) => all.some((one) => one && one[`${prefix}/${name}`] > 0));
  find("#numbers thead").replaceChildren(make("tr", {}, make("td", {}), ...names.map((name) => make("th", { scope: "col" }, name))));
  find("#numbers tbody").replaceChildren(
    row("ms per token", (one) => digits(one.ms, 6)),
    row("tokens per round", (one) => digits(one.settled, 6)),
    ...some("step").map((name) => row(`${name}, ms`, (one) => digits(one[`step/${name}`], 4))),
    row("link, MB per token", (one) => digits(one.link_bytes / 1e6, 6)),
    row("link busy, ms per token", (one) => digits(one.link_ms, 4)),
    ...some("part").map((name) => row(`${partWords(name)}, GB`, (one) => digits(one[`part/${name}`] / GIGA, 4))),
    row("device, GB", (one) => digits(one.device / GIGA, 6)),
    row("on the host, GB", (one) => digits(one.host / GIGA, 6)),
    row("times this setting's time", (one) => digits(one.ms / all[0].ms, 6)),
  );
};

let now = null;
const CLIFF = [["static", "static", "static"], ["lru", "LRU", "lru"]];
const cliff = () => {
  if (!now) return;
  const { asked, here } = now, packs = asked.bits !== "full";
  const along = [...Array(asked.layers + 1).keys()];
  const speed = (residency, on_chip) => 1e3 / forecast({ ...asked, residency, on_chip,
    resident: Math.min(asked.resident, asked.layers - on_chip) }, ["ms"]).ms;
  const series = CLIFF.map(([residency, name, sign]) => ({ name, sign, points: along.map((one) => [one, speed(residency, one)]) }));
  series.push({ name: "this setting", sign: "here", dots: true, points: [[asked.on_chip, 1e3 / here.ms]] });
  const placed = `${asked.method} of ${asked.model} on ${asked.machine}, ${asked.resident} resident places`;
  lines(find("#cliff"), { series, title: `Tokens per second by layers on-chip, static and LRU: ${placed}`,
    x: { label: "layers on-chip", low: 0, high: asked.layers, words: String }, y: { label: "tokens per second" }, now: asked.on_chip });
  find("#cliff-said").textContent = packs ? `Tokens per second along the layers on-chip: ${placed}.`
    : "Floats have no resident places, so both lines are one: choose a width of 8 bits or less.";
};
const published = () => {
  const residency = find("#residencies input:checked").value;
  find("#tables").replaceChildren(...FORECASTS.published.map((one) => {
    const place = make("div", { className: "chart" });
    const figure = make("figure", {}, make("figcaption", {}, make("b", {}, one.name), ` ${one.title}`), place);
    const series = Object.entries(one.methods).flatMap(([method, { points, curves }]) => [
      { name: method, sign: method, points: one.along.map((at, place_) => [at, curves[residency][place_]]) },
      { name: `${method}, published`, sign: method, dots: true, points }]);
    fitted(place, () => lines(place, { series, title: `${one.name}: ${one.title}. Published and modelled tokens per second`,
      x: { label: one.axis, ticks: one.values, words: one.name === "A1" ? (at) => `${Math.round(at / 1024)}k` : String },
      y: { label: "tokens per second", low: 0 } }));
    return figure;
  }));
};

const begin = () => {
  const form = find("#setting"), options = (name, list) => form.elements[name].append(
    ...list.map(([value, words]) => make("option", { value }, words)));
  options("model", Object.keys(models).map((name) => [name, name]));
  options("machine", Object.entries(machines).map(([name, one]) => [name, name === "origin" ? "origin: the tables' machine, fitted" : `${name}, ${one.memory_gb} GB`]));
  options("method", methods.map((name) => [name, name]));
  find("#widths").append(...FORECASTS.widths.map((width) => make("label", {},
    make("input", { type: "radio", name: "bits", value: width }), ` ${width === "full" ? "floats" : width}`)));
  form.elements.context.max = contexts.length - 1;
  form.elements.gamma.max = FORECASTS.gammas.length;
  const roomy = ({ model }) => { for (const name of ["on_chip", "resident"]) form.elements[name].max = models[model]?.layers; };
  roomy(FORECASTS.first);
  for (const [name, value] of Object.entries(FORECASTS.first)) {
    const field = form.elements[name];
    if (field.tagName === "SELECT") for (const one of field.options) one.defaultSelected = one.value === value;
    else if (field instanceof RadioNodeList) for (const one of field) one.defaultChecked = one.value === value;
    else field.defaultValue = value;
  }
  legend(find("#time-legend"), Object.entries(STEP_SIGNS));
  legend(find("#memory-legend"), Object.entries({ weights: "weights", "KV on-chip": "on-chip", "KV resident": "resident",
    "arriving layers": "wait", "unpacking": "unpack", "tier 1's KV": "t1", "tier 0's KV": "t0", "prefill's activations": "retrieve", other: "draw", "the machine's memory": "limit" }));
  legend(find("#cliff-legend"), [["static places", "static"], ["LRU", "lru"], ["this setting", "here"]]);
  legend(find("#published-legend"), Object.keys(FORECASTS.published[0].methods).map((name) => [name, name]));
  find("#sources").textContent = Object.entries(machines).map(([name, one]) => `${name}: ${one.source}.`).join(" ");
  const held = bound(form, draw, roomy);
  find("#published").addEventListener("click", () => held.put(FORECASTS.as_published));
  find("#residencies").addEventListener("change", published);
  fitted(find("#cliff"), cliff);
  published();
};
begin();
