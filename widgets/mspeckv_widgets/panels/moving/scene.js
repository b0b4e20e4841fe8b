// Moves what a round's script says. All places, times and words come from Python, so the sums here
// are those of `pose.py`: how far each move is, and where that is.
const SPACE = "http://www.w3.org/2000/svg";
const LINGER = 0.06;

const svg = (kind, more, parent, words) => {
  const made = document.createElementNS(SPACE, kind);
  for (const [name, value] of Object.entries(more)) made.setAttribute(name, value);
  if (words !== undefined) made.textContent = words;
  if (parent) parent.append(made);
  return made;
};
const html = (kind, more, ...children) => {
  const made = Object.assign(document.createElement(kind), more);
  made.append(...children);
  return made;
};
const box = (parent, [x, y, width, height], kind = "", more = {}) =>
  svg("rect", { x, y, width, height, rx: 4, class: kind, ...more }, parent);
const share = (at, until, now) => {
  const done = until > at ? Math.min(Math.max((now - at) / (until - at), 0), 1) : +(now >= at);
  return done * done * (3 - 2 * done);
};
const between = (a, b, part) => [a[0] + (b[0] - a[0]) * part, a[1] + (b[1] - a[1]) * part];
const put = (one, [x, y], more = "") => one.setAttribute("transform", `translate(${x} ${y})${more}`);
const last = (beats, now) => {
  let found = -1;
  while (found + 1 < beats.length && beats[found + 1][0] <= now) found += 1;
  return found;
};
const cut = (text, most) => {
  const letters = [...text];
  return letters.length <= most ? text : most > 0 ? letters.slice(0, most - 1).join("") + "…" : "";
};

let scenes = 0;
// One round on one stage: `draw(t, beat, part)` shows a moment, or a beat that is so far done.
const scene = (picture, stage, script, pieces) => {
  picture.setAttribute("viewBox", `0 0 ${stage.width} ${stage.height}`);
  const key = `${stage.key}-${(scenes += 1)}`; // patterns of a hidden view would paint nothing
  picture.innerHTML = stage.backdrop.replaceAll(stage.key, key); // every word in it escaped
  picture.setAttribute("aria-label", script.title);
  const lit = new Map([...picture.querySelectorAll("[data-lane]")].map((one) => [+one.dataset.lane, one]));
  const [cx, cy, cw, ch] = stage.clock, row = ch / stage.rows.length;
  const bar = (name, at, until, kind) => box(picture, [
    cx + (cw * at) / script.ms, cy + row * stage.rows.indexOf(name) + 2.5,
    Math.max((cw * (until - at)) / script.ms, 0.75), row - 5], kind, { rx: 0 });
  for (const [tier, at, until] of script.passes) bar(`tier ${tier}`, at, until, `p${tier}`);
  for (const [, , at, arrived] of script.crossings) bar("link", at, arrived, "cross");
  svg("text", { x: cx, y: cy + ch + 14, class: "faint" }, picture, "0");
  svg("text", { x: cx + cw, y: cy + ch + 14, class: "faint end" }, picture, `${script.ms.toFixed(0)} ms`);

  const homes = new Map(), written = new Map();
  const [tx, ty] = stage.text;
  for (const [text, tier, line, column, columns, fresh] of pieces) {
    const x = tx + 6 + column * stage.letter, y = ty + 4 + Math.max(line, 0) * stage.line;
    const wide = columns * stage.letter, group = svg("g", { class: `t${tier}` }, picture);
    box(group, [x, y + 1, wide, 18], "", { rx: 0, style: "stroke:none" });
    const more = { x, y: y + 14, class: "mono", textLength: wide, lengthAdjust: "spacingAndGlyphs" };
    if (columns) svg("text", more, group, text);
    svg("line", { x1: x, x2: x + wide, y1: y + 19, y2: y + 19 }, group);
    if (fresh >= 0) { homes.set(fresh, [x + wide / 2, y + 10]); written.set(fresh, group); }
  }
  const [wide, high] = stage.chip;
  const cell = (place, lane) => {
    const [x, dy] = stage.cells[place];
    return [x + wide / 2, stage.lanes[lane] + dy + high / 2];
  };
  const slots = script.slots.flatMap(([lane, first, count, at, until]) =>
    [...Array(count).keys()].map((place) => {
      const [x, y] = cell(first + place, lane);
      return { at, until, node: box(picture, [x - wide / 2, y - high / 2, wide, high], "slot", { rx: 5 }) };
    }));
  const chips = script.chips.map(([text, tier, place, moves]) => {
    const [x, y] = cell(place, moves[0][3]), label = cut(text, stage.fit);
    const ghost = svg("text", { class: `mono mid ${moves.at(-1)[0]}` }, picture, label);
    const node = svg("g", { class: `chip t${tier}` }, picture);
    svg("title", {}, node, text);
    box(node, [-wide / 2, -high / 2, wide, high], "", { rx: 5 });
    svg("text", { y: 4.5, class: "mono mid" }, node, label);
    return { place, moves, ghost, node };
  });
  // What was rejected stays as a ghost until another token is put there.
  chips.forEach((one, index) => {
    one.after = chips.slice(index + 1).find((two) => two.place === one.place && two.moves[0][3] === one.moves.at(-1)[3]);
  });
  const middle = (side, layer) => [
    side[0] + stage.spots[layer][0] + stage.tile[0] / 2, side[1] + stage.spots[layer][1] + stage.tile[1] / 2];
  const [px, py, pw] = stage.pipe;
  const crossings = script.crossings.filter(([layer]) => stage.spots[layer]).map(
    ([layer, away, at, , until, head, wait]) => {
      const way = [middle(stage.host, layer), [px + 12, py + 16], [px + pw - 12, py + 16], middle(stage.device, layer)];
      if (away) way.reverse();
      const size = away ? 0.7 : 1, [w, h] = [stage.tile[0] * size, stage.tile[1] * size];
      const frame = wait.length ? box(picture, [
        way[3][0] - w / 2 - 2, way[3][1] - h / 2 - 2, w + 4, h + 4], "wait", { rx: 3 }) : null;
      const node = svg("g", { class: "tile moving", "data-layer": layer }, picture);
      box(node, [-w / 2, -h / 2, w, h], "", { rx: 2, fill: `url(#${key}-offloaded)` });
      if (w >= 14) svg("text", { y: 4, class: "mid" }, node, layer);
      return { way, at, until, head, wait, node, frame };
    });
  const [dx, dy, , dh] = stage.device;
  const state = svg("text", { x: dx + 8, y: dy + dh - 8, class: "strong" }, picture);
  const crossed = svg("text", { x: stage.tally[0], y: stage.tally[1], class: "mid" }, picture);
  const time = svg("text", { x: cx + cw / 2, y: cy + ch + 14, class: "faint mid" }, picture);
  const hand = svg("line", { class: "hand", y1: cy - 3, y2: cy + ch + 3 }, picture);

  const draw = (t, beat, part) => {
    const progress = ([, at, until, , own]) =>
      beat === null ? share(at, until, t) : own < beat ? 1 : own > beat ? 0 : share(0, 1, part);
    for (const [lane, node] of lit)
      node.style.opacity = script.passes.some(([tier, a, b]) => tier === lane && a <= t && t < b) ? 0.5 : 0;
    for (const { at, until, node } of slots) node.style.opacity = at <= t && t < until ? 1 : 0;
    for (const { place, moves, ghost, node, after } of chips) {
      let where = cell(place, moves[0][3]), seen = 0, scale = 1, turn = 0, left = 0;
      for (const move of moves) {
        const done = progress(move);
        if (!done) break;
        if (move[0] === "guessed" || move[0] === "said") { seen = done; scale = 0.6 + 0.4 * done; }
        else if (move[0] === "kept") { where = between(where, cell(place, move[3]), done); scale = 1; }
        else if (move[0] === "settles" && homes.has(place)) {
          where = between(where, homes.get(place), done);
          const there = Math.max(0, 4 * done - 3);
          seen = 1 - there;
          written.get(place).style.opacity = there;
        } else {
          const fell = move[0] === "rejected", [x, y] = where;
          left = fell || move[0] === "dropped" ? done : 0;
          if (left) put(ghost, [x, y + 4.5]);
          where = [x, y + (fell ? 44 : 8) * done];
          turn = fell ? 16 * done : 0;
          seen = 1 - done;
        }
      }
      if (homes.has(place) && moves.at(-1)[0] === "settles" && !progress(moves.at(-1)))
        written.get(place).style.opacity = 0;
      node.style.opacity = seen;
      ghost.style.opacity = after ? left * (1 - progress(after.moves[0])) : left;
      put(node, where, ` rotate(${turn}) scale(${scale})`);
    }
    for (const { way, at, until, head, wait, node, frame } of crossings) {
      const gone = share(until, until + LINGER * script.ms, t);
      const done = until > at ? Math.min(Math.max(head + ((1 - head) * (t - at)) / (until - at), 0), 1) : 1;
      const leg = done < 0.2 ? 0 : done < 0.8 ? 1 : 2, [from, length] = [[0, 0.2], [0.2, 0.6], [0.8, 0.2]][leg];
      put(node, between(way[leg], way[leg + 1], (done - from) / length));
      node.style.opacity = t >= at ? 1 - gone : 0;
      if (frame) frame.style.opacity = wait[0] <= t && t < wait[1] ? 1 : 0;
    }
    state.textContent = script.states[Math.max(last(script.states, t), 0)][1];
    crossed.textContent = script.crossed[Math.max(last(script.crossed, t), 0)][1];
    time.textContent = t > script.ms ? "the clock stands still" : `now ${t.toFixed(0)} ms`;
    const x = cx + cw * Math.min(t / script.ms, 1);
    hand.setAttribute("x1", x);
    hand.setAttribute("x2", x);
  };
  return { draw, script };
};
