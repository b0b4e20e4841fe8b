// Plays scenes of `scene.js`, which stands before this in one module.
const SHOWN_MS = 6000, FRAME_MS = 32, STEP_MS = 480, HEARD_MS = 2500;
const SPEEDS = [0, 0.1, 0.25, 0.5, 1, 2, 4];
const HELP = "Moving picture of a round. Space plays and pauses, left and right arrows step.";
function initialize({ model }) {
  // Rounds that are added come one by one; `rounds` is what the page began with.
  model.on("msg:custom", (sent) => {
    const rounds = model.get("rounds");
    if (sent && sent.round && sent.at === rounds.length) rounds.push(sent.round);
  });
  let asked = 0;
  model.on("change:count", () => {
    clearTimeout(asked);
    asked = setTimeout(() => {
      if (model.get("rounds").length < model.get("count")) model.send("rounds");
    }, 800);
  });
}

function render({ model, el }) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const picture = svg("svg", { role: "img" });
  const button = (words, title, act) => html("button", {
    className: "jupyter-widgets jupyter-button widget-button", textContent: words, title, onclick: act });
  const stage = html("div", { className: "mskv-mr-stage", tabIndex: 0 }, picture);
  stage.setAttribute("role", "group");
  stage.setAttribute("aria-label", HELP);
  const words = html("div", { className: "mskv-mr-words" });
  words.setAttribute("aria-hidden", "true");
  const heard = html("div", { className: "mskv-mr-heard" });
  heard.setAttribute("role", "status");
  const play = button("Play", "Play from here, or pause", () => (now.playing ? pause() : start()));
  const back = button("Step back", "To what happened before", () => step(-1));
  const on = button("Step on", "To the next thing that happens", () => step(1));
  const next = button("Next round", "To the next round of the run", () => go(now.at + 1));
  const right = button("Next correction", "To the next guess that a higher tier put right", () => correct());
  const slide = html("input", { type: "range", min: 1, value: 1, oninput: () => go(+slide.value - 1) });
  const place = html("span", {});
  const speed = html("select", { onchange: () => label_() }, ...SPEEDS.map((x) => html("option", {
    value: x, textContent: x ? `${x}x real time` : "a round in 6 s" })));
  const pace = html("span", {});
  const caption = html("span", {}), drawn = html("p", {});
  const label = (said, control, ...more) => html("label", {}, html("span", { textContent: said }), control, ...more);
  const note = html("div", { className: "mskv-mr-note" }, caption,
    html("details", {}, html("summary", { textContent: "What is drawn from what" }), drawn));
  el.classList.add("mskv-mr");
  el.append(stage, words, heard, html("div", { className: "mskv-mr-bar" }, play, back, on, right, next,
    label("Speed", speed, pace), label("Round", slide, place)), note);

  const now = { at: 0, t: 0, beat: null, playing: false };
  let shown = null, drawnOn = null, handle = 0, ticked = 0, saidAt = 0, stepping = null, quiet = 0;
  const rounds = () => model.get("rounds");
  const stages = () => model.get("stages");
  const fitting = () => {
    const widths = stages().map((one) => one.width), room = el.clientWidth;
    return Math.max(widths.findLastIndex((one) => one <= room), 0);
  };
  const tell = (text, soon) => {
    words.textContent = text;
    clearTimeout(quiet);
    const wait = soon ? 0 : Math.max(0, HEARD_MS - (performance.now() - saidAt));
    quiet = setTimeout(() => { heard.textContent = text; saidAt = performance.now(); }, wait);
  };
  const build = () => {
    const index = fitting(), script = rounds()[now.at];
    if (!stages().length) return;
    drawnOn = index;
    shown = script ? scene(picture, stages()[index], script, script.written[index]) : null;
    if (!shown) {
      picture.setAttribute("viewBox", `0 0 ${stages()[index].width} ${stages()[index].height}`);
      picture.innerHTML = stages()[index].backdrop;
      tell("The first round has not ended yet.", true);
    }
    label_();
  };
  const label_ = () => {
    const many = Math.max(rounds().length, 1);
    slide.max = many;
    slide.value = now.at + 1;
    place.textContent = `${now.at + 1} of ${many}`;
    slide.setAttribute("aria-valuetext", `round ${now.at + 1} of ${many}`);
    play.textContent = now.playing ? "Pause" : "Play";
    play.disabled = calm.matches;
    play.title = calm.matches ? "Less motion is asked for: step instead" : "Play from here, or pause";
    caption.textContent = model.get("caption");
    drawn.textContent = model.get("drawn");
    pace.textContent = shown ? `${rate().toPrecision(2)}x` : "";
    el.dataset.playing = now.playing;
  };
  const draw = (soon = true) => {
    if (!shown) return;
    const part = stepping ? stepping.part : 1, { beats } = shown.script;
    shown.draw(now.t, now.beat, part);
    const beat = now.beat === null ? last(beats, now.t) : now.beat;
    el.dataset.beat = beat;
    el.dataset.round = now.at;
    if (words.textContent !== beats[beat][1]) tell(beats[beat][1], soon);
  };
  const go = (at) => {
    if (at < 0 || at >= rounds().length) {
      if (at >= rounds().length) tell(model.get("over") ? "This is the run's last round." : "The next round has not ended yet.", true);
      return false;
    }
    stepping = null;
    now.at = at;
    build();
    now.beat = null;
    now.t = now.playing ? 0 : shown.script.poster;
    draw();
    return true;
  };
  const rate = () => {
    const times = rounds().map((one) => one.ms).sort((a, b) => a - b);
    return +speed.value || times[times.length >> 1] / SHOWN_MS;
  };
  const pause = () => { now.playing = false; label_(); draw(); };
  const start = () => {
    if (!shown || calm.matches) return;
    stepping = null;
    if (now.beat !== null) now.t = shown.script.beats[now.beat][0];
    now.beat = null;
    const ended = now.t >= shown.script.end && now.at === rounds().length - 1;
    now.playing = true;
    if (ended && model.get("over")) go(0);
    label_();
    run();
  };
  const stand = (beat) => {
    stepping = null;
    now.beat = beat;
    now.t = shown.script.beats[beat][0];
    draw();
  };
  // To the next happening that rejects a guess, in this round or a later one.
  const correct = () => {
    if (!shown) return;
    if (now.playing) pause();
    const at = now.beat === null ? last(shown.script.beats, now.t) : now.beat;
    for (let index = now.at; index < rounds().length; index += 1) {
      const found = rounds()[index].chips.flatMap(([, , , moves]) =>
        moves.filter(([kind]) => kind === "rejected").map((move) => move[4]))
        .filter((beat) => index > now.at || beat > at);
      if (!found.length) continue;
      if (index === now.at || go(index)) stand(Math.min(...found));
      return;
    }
    tell("No guess is put right from here on.", true);
  };
  const step = (by) => {
    if (!shown) return;
    if (now.playing) pause();
    const { beats } = shown.script, at = now.beat === null ? last(beats, now.t) : now.beat;
    const to = at + by;
    if (to < 0 || to >= beats.length) {
      if (go(now.at + by)) stand(by > 0 ? 0 : shown.script.beats.length - 1);
      return;
    }
    now.beat = to;
    stepping = by > 0 && !calm.matches ? { from: now.t, part: 0 } : null;
    if (stepping) run(); else { now.t = beats[to][0]; draw(); }
  };
  const advance = (gone) => {
    if (stepping) {
      stepping.part = Math.min(stepping.part + gone / STEP_MS, 1);
      now.t = stepping.from + (shown.script.beats[now.beat][0] - stepping.from) * stepping.part;
      const done = stepping.part === 1;
      draw();
      if (done) stepping = null;
      return;
    }
    now.t += gone * rate();
    if (now.t >= shown.script.end) {
      if (now.at + 1 < rounds().length) { go(now.at + 1); return; }
      now.t = shown.script.end;
      if (model.get("over")) now.playing = false;
      label_();
    }
    draw(false);
  };
  const run = () => {
    if (handle) return;
    ticked = performance.now();
    const tick = (time) => {
      // what was paused meanwhile stands where it was paused
      handle = now.playing || stepping ? requestAnimationFrame(tick) : 0;
      if (!handle) return;
      if (time - ticked < FRAME_MS || !el.isConnected) return;
      const gone = Math.min(time - ticked, 250);
      ticked = time;
      advance(gone);
    };
    handle = requestAnimationFrame(tick);
  };
  const keys = {
    " ": () => (now.playing ? pause() : start()), ArrowRight: () => step(1), ArrowLeft: () => step(-1),
  };
  stage.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  });
  // Who stands at the newest round of a run that goes on, and does not play, is led on.
  let known = rounds().length;
  const follow = () => {
    const before = known;
    known = rounds().length;
    if (known <= before || model.get("over") || now.playing || now.beat !== null) return false;
    if (now.at !== Math.max(before - 1, 0)) return false;
    now.at = known - 1;
    return true;
  };
  const renew = () => {
    const led = follow(), fresh = !shown || led;
    now.at = Math.min(now.at, Math.max(rounds().length - 1, 0));
    build();
    if (fresh && shown) now.t = shown.script.poster;
    draw();
  };
  const more = () => {
    if (!shown) { renew(); return; }
    if (!follow()) { label_(); return; }
    build();
    now.t = shown.script.poster;
    draw(false);
  };
  const asked = () => { if (model.get("shown") >= 0) { now.playing = false; go(model.get("shown")); } };
  const events = { "change:stages": renew, "change:rounds": renew, "msg:custom": more,
    "change:caption": label_, "change:over": label_, "change:shown": asked };
  for (const [name, act] of Object.entries(events)) model.on(name, act);
  const calmed = () => { if (calm.matches) { now.playing = false; stepping = null; } label_(); };
  calm.addEventListener("change", calmed);
  const sized = new ResizeObserver(() => { if (el.clientWidth && fitting() !== drawnOn) { build(); draw(); } });
  sized.observe(el);
  now.at = Math.max(model.get("over") ? model.get("shown") : known - 1, 0);
  renew();
  if (shown && model.get("beat") >= 0) stand(Math.min(model.get("beat"), shown.script.beats.length - 1));
  return () => {
    cancelAnimationFrame(handle);
    clearTimeout(quiet);
    sized.disconnect();
    calm.removeEventListener("change", calmed);
    for (const [name, act] of Object.entries(events)) model.off(name, act);
  };
}
export default hearing({ initialize, render });
