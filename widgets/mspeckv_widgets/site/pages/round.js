// The page "A round, moving": which recorded run is played, and its text by tier.
const TIERS = ["tier 0: the draft", "tier 1: the target, retrieved KV", "tier 2: the target, all KV"];
const filmOf = (state) => FILMS.find((one) => one.method === state.way) || FILMS[0];
let stop = null, film = null, setting = null;

// As much of a widget's model as the player asks for.
const modelOf = (state) => ({ get: (name) => state[name], on() {}, off() {}, send() {} });
const play = (state) => {
  film = filmOf(state);
  stop?.();
  const place = find("#film");
  place.replaceChildren();
  place.className = "";
  const shown = Math.min(Math.max(+state.round || 0, 0), film.rounds - 1);
  const beat = state.beat === undefined || state.beat === "" ? -1 : +state.beat;
  stop = movingRound.render({ model: modelOf({ ...film.state, shown, beat }), el: place });
  find("#way").textContent = `${film.method}: ${film.words}. ${film.rounds} rounds for ${film.tokens} tokens.`;
  text();
  mark();
};
// Each token is a link: the address says which round is shown.
const text = () => find("#text").replaceChildren(make("span", { className: "coming" }, `… ${film.before.trim().replaceAll(/\s+/g, " ")}`), ...film.text.filter(([words]) => words).map(([words, tier, round]) => make("a", {
  href: `#${new URLSearchParams({ way: film.method, round })}`, className: `token s${tier}`, data: { round, tier },
  title: `round ${round + 1}, settled by tier ${tier}`,
  ...(words.trim() ? {} : { aria: { label: "space" } }) }, words.replaceAll("\n", "↵\n"))));
// What has been settled by the round that is shown; and where that stands, in the address.
const mark = () => {
  const place = find("#film"), at = +place.dataset.round;
  for (const one of find("#text").querySelectorAll("a")) {
    one.classList.toggle("coming", +one.dataset.round > at);
    one.classList.toggle("fresh", +one.dataset.round === at);
  }
  if (place.dataset.playing !== "true") address.write({ way: film.method, round: at, beat: place.dataset.beat });
};
const begin = () => {
  find("#ways").append(...FILMS.map((one) => make("label", {}, make("input", {
    type: "radio", name: "way", value: one.method }), ` ${one.words}`)));
  find("#tiers").append(...TIERS.map((words, tier) => make("li", {}, make("span", { className: `token key-word s${tier}` }, words))));
  find("#ways-table tbody").append(...FILMS.map((one) => make("tr", {}, make("th", { scope: "row" }, `${one.words} (${one.method})`),
    ...[one.rounds, digits(one.tokens / one.rounds), digits(one.link_bytes_per_token / 1e6)]
      .map((words) => make("td", {}, words)))));
  const { places, bits, prompt } = FILMS[0], count = (place) => places.filter((one) => one === place).length;
  find("#recorded").textContent = `SmolLM2-135M on two CPU cores, ${prompt} tokens of the Python reference as prompt; `
    + `KV of ${count("on-chip")} layers on-chip as floats, ${count("resident")} resident and ${count("offloaded")} offloaded in ${bits} bits. `
    + "Bytes are counted where they are copied; both ends of the link are this machine's memory, and a copy is held back as a slow link would. Times in the picture were measured while this was recorded.";
  const form = find("#setting");
  const arrived = () => {
    const state = { way: FILMS[0].method, ...address.read() };
    for (const one of form.elements.way) one.checked = one.value === filmOf(state).method;
    play(state);
  };
  form.addEventListener("input", () => play({ way: form.elements.way.value }));
  addEventListener("hashchange", arrived);
  arrived();
  new MutationObserver(mark).observe(find("#film"), { attributeFilter: ["data-round", "data-beat", "data-playing"] });
};
begin();
