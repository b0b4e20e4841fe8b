// Two kinds of pictures: bars of parts, as boxes, and lines over an axis, as SVG.
const node = (kind, more, parent, words) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(more)) made.setAttribute(name, value);
  if (words !== undefined) made.textContent = words;
  if (parent) parent.append(made);
  return made;
};

// Rows of bars on one scale; each row: { name, parts: [{ name, value, sign }], said, faint, limit }.
const bars = (place, rows, { most, limit, limitName = "" }) => {
  const share = (value) => `${(100 * Math.max(value, 0)) / most}%`;
  place.replaceChildren(...rows.map((row) => make("div", { className: `row${row.faint ? " faint-row" : ""}` },
    make("div", { className: "row-name" }, make("b", {}, row.name), ...(row.note ? [make("small", {}, row.note)] : [])),
    make("div", { className: "track", aria: { hidden: "true" } },
      ...row.parts.filter((part) => part.value > 0).map((part) => make("span", {
        className: `part sign-${part.sign}`, title: `${part.name}: ${part.said}`, style: `width:${share(part.value)}` })),
      ...(limit !== undefined && limit < most ? [make("i", { className: "limit", style: `left:${share(limit)}`, title: limitName })] : [])),
    make("div", { className: "row-said" }, row.said))));
};
const legend = (place, parts) => place.replaceChildren(...parts.map(([name, sign]) =>
  make("li", {}, make("span", { className: `key sign-${sign}` }), name)));

const niceSteps = (low, high, many) => {
  const raw = (high - low) / many, unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((one) => one * unit >= raw) * unit;
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + 1e-9; at += step) found.push(+at.toPrecision(12));
  return found;
};
const decades = (low, high) => {
  const found = [];
  for (let power = Math.ceil(Math.log10(low) - 1e-9); 10 ** power <= high * 1.000001; power += 1) found.push(10 ** power);
  return found;
};
// series: [{ name, sign, points: [[x, y, std?]], dots, thin, end }], `end` written where a line ends; axes: { label, log, low, high, ticks, words }.
const lines = (place, { x, y, series, title, now }) => {
  const wide = Math.max(roomOf(place), 240), high = Math.min(Math.max(wide * 0.56, 190), 330);
  const left = 46, right = series.some((one) => one.end) ? 46 : 20, top = 28, low = 40;
  const all = series.flatMap((one) => one.points);
  const span = (axis, at) => {
    const seen = all.flatMap((point) => (at ? [point[1], point[1] + (point[2] || 0)] : [point[0]])).filter((one) => !axis.log || one > 0);
    const least = axis.low ?? (axis.log ? Math.min(...seen) : at ? 0 : Math.min(...seen));
    const most = axis.high ?? Math.max(...seen) * (at ? 1.08 : 1);
    return [least, most > least ? most : least + 1];
  };
  const xs = span(x, 0), ys = span(y, 1);
  const scale = (axis, [a, b], from, to) => (value) => from + (to - from) * (axis.log
    ? Math.log(value / a) / Math.log(b / a) : (value - a) / (b - a));
  const px = scale(x, xs, left, wide - right), py = scale(y, ys, high - low, top);
  const picture = node("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": title });
  const ticks = (axis, [a, b], many) => axis.ticks || (axis.log ? decades(a, b) : niceSteps(a, b, many));
  const words = (axis, value) => (axis.words ? axis.words(value) : String(value));
  for (const at of ticks(y, ys, 4)) {
    node("line", { x1: left, x2: wide - right, y1: py(at), y2: py(at), class: "grid" }, picture);
    node("text", { x: left - 6, y: py(at) + 4, class: "end" }, picture, words(y, at));
  }
  for (const at of ticks(x, xs, wide < 420 ? 4 : 8)) node("text", { x: px(at), y: high - low + 16, class: "mid" }, picture, words(x, at));
  node("line", { x1: left, x2: wide - right, y1: high - low, y2: high - low, class: "axis" }, picture);
  node("text", { x: (left + wide - right) / 2, y: high - 6, class: "mid label" }, picture, x.label);
  node("text", { x: 2, y: 12, class: "label" }, picture, y.label);
  if (now !== undefined) node("line", { x1: px(now), x2: px(now), y1: top, y2: high - low, class: "now" }, picture);
  const ends = [];
  for (const { sign, points, dots, name, thin, end } of series) {
    const seen = points.filter(([, value]) => !y.log || value > 0).map(([a, b, std]) => [px(a), py(Math.min(Math.max(b, ys[0]), ys[1])), std, a, b]);
    if (dots) for (const [a, b, std, , value] of seen) {
      if (std) node("line", { x1: a, x2: a, y1: py(value - std), y2: py(value + std), class: `stroke-${sign}` }, picture);
      node("title", {}, marker(picture, sign, a, b), `${name}: ${digits(value)}${std ? ` ± ${digits(std)}` : ""}`);
    } else node("path", { d: seen.map(([a, b], at) => `${at ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join(""), class: `line stroke-${sign}${thin ? " thin" : ""}` }, picture);
    // where two ends lie close, the first is named
    if (!end || !seen.length || ends.some((one) => Math.abs(one - seen.at(-1)[1]) < 12)) continue;
    ends.push(seen.at(-1)[1]);
    node("text", { x: seen.at(-1)[0] + 5, y: seen.at(-1)[1] + 4 }, picture, end);
  }
  place.replaceChildren(picture);
  return { px, py, picture };
};
const marker = (picture, sign, x, y) => {
  const shapes = {
    square: () => node("rect", { x: x - 4, y: y - 4, width: 8, height: 8 }, picture),
    diamond: () => node("path", { d: `M${x} ${y - 5.5}l5.5 5.5l-5.5 5.5l-5.5-5.5z` }, picture),
    triangle: () => node("path", { d: `M${x} ${y - 5}l5 9h-10z` }, picture),
    circle: () => node("circle", { cx: x, cy: y, r: 4.5 }, picture),
  };
  const made = shapes[{ autoregressive: "circle", vanilla: "triangle", triforce: "square", mspeckv: "diamond" }[sign] || "circle"]();
  made.setAttribute("class", `dot fill-${sign}`);
  return made;
};
// Draw again whenever the place has another width; who draws asks `roomOf`, which lays out nothing.
const rooms = new WeakMap();
const roomOf = (place) => rooms.get(place) ?? place.clientWidth;
const fitted = (place, draw) => new ResizeObserver(() => {
  if (place.clientWidth === rooms.get(place)) return;
  rooms.set(place, place.clientWidth);
  draw();
}).observe(place);
