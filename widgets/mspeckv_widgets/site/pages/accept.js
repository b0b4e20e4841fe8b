// The page "Accept or reject": two distributions drawn by hand, one rule, and the dice.
const NAMES = ["A", "B", "C", "D"];
const { rules, presets } = GUESSES;
let p = [], q = [], rule = "fair", held = null, dice = null, counts = [0, 0, 0, 0], guesses = 0, kept = 0, guess = null, written = [];

// Even numbers from 0 to 1, the same for the same seed (mulberry32).
const diceOf = (seed) => () => {
  seed = (seed + 0x6d2b79f5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};
const pick = (mass) => {
  let left = dice() * mass.reduce((a, b) => a + b, 0);
  const found = mass.findIndex((one) => (left -= one) < 0);
  return found < 0 ? mass.findLastIndex((one) => one > 0) : found;
};
const rates = () => compute(GUESSES, rule, { p, q });

// A guess goes through three steps: guessed, tested, settled.
const step = () => {
  const found = rates();
  if (!guess || guess.out !== undefined) guess = { token: pick(q) };
  else if (guess.even === undefined) {
    guess.even = dice();
    guess.kept = guess.even * q[guess.token] < found.kept[guess.token];
  } else {
    guess.out = guess.kept ? guess.token : pick(found.redrawn);
    count(guess);
  }
};
const count = ({ out, kept: was }) => {
  counts[out] += 1;
  guesses += 1;
  kept += was;
  written = [...written.slice(-119), [out, was]];
};
const many = (most) => {
  for (let at = 0; at < most; at += 1) do step(); while (guess.out === undefined);
  show();
};
const forget = (seed) => {
  dice = diceOf(+seed * 7919);
  counts = [0, 0, 0, 0];
  guesses = kept = 0;
  guess = null;
  written = [];
};
const saidOf = (found) => {
  if (!guess) return "Guess draws a token from q.";
  const name = NAMES[guess.token], chance = found.kept[guess.token] / q[guess.token];
  const drawn = `${name} is guessed (q = ${q[guess.token].toFixed(2)}, p = ${p[guess.token].toFixed(2)}).`;
  if (guess.even === undefined) return `${drawn} It is kept with chance ${chance.toFixed(3)}.`;
  const side = guess.kept ? "below" : "not below";
  const tested = `u = ${guess.even.toFixed(3)} is ${side} ${chance.toFixed(3)}: ${guess.kept ? "kept" : "rejected"}.`;
  if (guess.out === undefined) return `${drawn} ${tested}`;
  return `${drawn} ${tested} ${NAMES[guess.out]} comes out${guess.kept ? "" : ", drawn anew"}.`;
};
const show = () => {
  const found = rates(), shares = counts.map((one) => (guesses ? one / guesses : 0));
  const next = !guess || guess.out !== undefined ? "Guess" : guess.even === undefined ? "Test it" : guess.kept ? "Keep it" : "Draw anew";
  find("#step").textContent = next;
  find("#said").textContent = `${saidOf(found)}${guesses ? ` So far ${kept} of ${guesses} guesses were kept (counted); ${(100 * found.chance).toFixed(1)} % are on average (computed).` : ""}`;
  const chance = guess ? found.kept[guess.token] / q[guess.token] : 0;
  find("#test").replaceChildren(...(guess ? [
    make("span", { className: "keep", style: `width:${100 * chance}%` }, chance > 0.12 ? "keep" : ""),
    make("span", { className: "reject", style: `width:${100 * (1 - chance)}%` }, chance < 0.88 ? "reject" : ""),
    ...(guess.even === undefined ? [] : [make("i", { style: `left:${100 * guess.even}%` }, "u")])] : []));
  find("#text").replaceChildren(...written.map(([out, was]) => make("span", { className: was ? "was-kept" : "was-redrawn" }, NAMES[out])));
  find("#distance").textContent = guesses ? compute(GUESSES, "distance", { p: shares, q: p }).distance.toFixed(3) : "no guess yet";
  find("#exact").textContent = found.distance.toFixed(3);
  find("#numbers tbody").replaceChildren(...NAMES.map((name, at) => make("tr", {}, make("th", { scope: "row" }, name),
    ...[p[at], q[at], found.kept[at], found.redrawn[at], found.emitted[at]].map((one) => make("td", {}, one.toFixed(4))),
    make("td", {}, guesses ? `${shares[at].toFixed(4)} (${counts[at]})` : ""))));
  chart(found, shares);
};
const chart = (found, shares) => {
  const place = find("#out"), wide = Math.max(roomOf(place), 260), high = 250, low = 24, top = 8;
  const most = Math.max(...p, ...q, ...found.emitted) * 1.12, y = (value) => high - low - ((high - low - top) * Math.min(value, most)) / most;
  const picture = node("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": "p, q and what comes out, for each token; numbers are in the table" });
  const slot = wide / NAMES.length, thick = Math.min(slot / 5, 44);
  const bar = (x, value, base, sign) => node("rect", { x, y: y(base + value), width: thick - 3, height: Math.max(y(base) - y(base + value), 0), class: sign }, picture);
  NAMES.forEach((name, at) => {
    const x = slot * at + slot / 2 - thick * 1.5;
    bar(x, p[at], 0, "bar-p");
    bar(x + thick, q[at], 0, "bar-q");
    bar(x + 2 * thick, found.kept[at], 0, "bar-kept");
    bar(x + 2 * thick, found.emitted[at] - found.kept[at], found.kept[at], "bar-redrawn");
    node("line", { x1: x - 3, x2: x + 3 * thick, y1: y(p[at]), y2: y(p[at]), class: "aim" }, picture);
    if (guesses) marker(picture, "here", x + 2.5 * thick - 1.5, y(shares[at]));
    node("text", { x: slot * at + slot / 2, y: high - 6, class: "mid label" }, picture, name);
  });
  node("line", { x1: 0, x2: wide, y1: y(0), y2: y(0), class: "axis" }, picture);
  place.replaceChildren(picture);
};

// A token's share is set; the others keep their proportions in what is left.
const moved = (list, at, value) => {
  const rest = list.reduce((sum, one, other) => sum + (other === at ? 0 : one), 0), left = 100 - value;
  const made = list.map((one, other) => (other === at ? value : rest ? Math.round((one * left) / rest) : Math.round(left / 3)));
  const over = made.reduce((a, b) => a + b, 0) - 100, large = made.map((one, other) => [other === at ? -1 : one, other]).sort((a, b) => b[0] - a[0])[0][1];
  made[large] -= over;
  return made;
};
const sliders = {};
const drawn = (which, words, list) => make("fieldset", { className: "choice distribution" }, make("legend", {}, words),
  make("div", { className: "columns" }, ...NAMES.map((name, at) => {
    const slide = make("input", { type: "range", min: 0, max: 97, step: 1, value: list[at], className: "tall",
      aria: { label: `${which} of ${name}, percent`, orientation: "vertical" },
      oninput: () => put({ [which]: moved(read(which), at, +slide.value).join(",") }) });
    const share = make("span", {});
    sliders[which][at] = { slide, share };
    return make("div", { className: `column of-${which}` }, share, slide, make("b", {}, name));
  })));
const read = (which) => held.state()[which].split(",").map(Number);
const put = (values) => held.put(values);
const valid = (words) => {
  const list = String(words).split(",").map(Number);
  return list.length === NAMES.length && list.every((one) => Number.isInteger(one) && one >= 0) && list.reduce((a, b) => a + b, 0) === 100;
};
const draw = (state) => {
  const first = Object.values(presets)[0].map((list) => list.map((one) => Math.round(100 * one)));
  const [mine, theirs] = ["p", "q"].map((name, at) => (valid(state[name]) ? state[name].split(",").map(Number) : first[at]));
  [p, q] = [mine, theirs].map((list) => list.map((one) => one / 100));
  rule = state.rule;
  const about = rules.find((one) => one.name === rule);
  find("#rule-said").replaceChildren(make("b", {}, `${about.words[0].toUpperCase()}${about.words.slice(1)}.`), ` ${about.why}`);
  find("[data-of=seed]").textContent = state.seed;
  for (const [which, list] of [["p", mine], ["q", theirs]]) list.forEach((one, at) => {
    const { slide, share } = sliders[which][at];
    slide.value = one;
    share.textContent = `${one} %`;
    slide.style.setProperty("--share", `${one}%`);
  });
  const alike = ([, lists]) => lists.every((list, at) => list.every((one, token) => Math.abs(one - [p, q][at][token]) < 1e-9));
  find("#preset").value = Object.entries(presets).find(alike)?.[0] || "";
  forget(state.seed);
  show();
};
const begin = () => {
  const form = find("#setting"), percent = (list) => list.map((one) => Math.round(100 * one));
  form.elements.rule.append(...rules.map((one) => make("option", { value: one.name }, one.short)));
  find("#preset").append(make("option", { value: "", disabled: true }, "drawn by hand"), ...Object.keys(presets).map((name) => make("option", { value: name }, name)));
  const [first, second] = Object.values(presets)[0].map(percent);
  form.elements.p.defaultValue = first.join(",");
  form.elements.q.defaultValue = second.join(",");
  Object.assign(sliders, { p: [], q: [] });
  find("#draw").append(drawn("p", "p: what the target wants", first), drawn("q", "q: what the draft guesses", second));
  for (const [name, sign] of [["p", "bar-p"], ["q", "bar-q"], ["guessed and kept", "bar-kept"], ["drawn after a rejection", "bar-redrawn"], ["came out so far, counted", "sign-here"]])
    find("#legend").append(make("li", {}, make("span", { className: `key ${sign}` }), name));
  held = bound(form, draw);
  find("#preset").addEventListener("input", (event) => {
    event.stopPropagation();
    const [mine, theirs] = presets[find("#preset").value].map(percent);
    put({ p: mine.join(","), q: theirs.join(",") });
  });
  find("#step").addEventListener("click", () => { step(); show(); });
  find("#ten").addEventListener("click", () => many(100));
  find("#many").addEventListener("click", () => many(10000));
  find("#forget").addEventListener("click", () => { forget(held.state().seed); show(); });
  fitted(find("#out"), show);
};
begin();
