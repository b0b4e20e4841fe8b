// anywidget gives a module two seconds to load. On a page that is busier than that, as one that
// loads all of a notebook's widgets at once, it draws the widget when it comes, but hands no message
// of the kernel on to it from then on: each ends as "[anywidget] Failed to initialize model.".
// Such a widget takes its messages itself, asks for what it has missed, and begins with that.
const PATIENT_MS = 30000;
const LATE = "late";

// Resolves with the first message that is taken.
const takeMessages = (whole) => new Promise((taken) => {
  const beyond = Object.getPrototypeOf(Object.getPrototypeOf(whole));
  whole._handle_comm_msg = async (...told) => {
    await beyond._handle_comm_msg.apply(whole, told);
    taken();
  };
  whole.comm.on_msg(whole._handle_comm_msg);
  whole.comm.send({ method: "request_state" });
  setTimeout(taken, PATIENT_MS);
});
const catchUp = async (model) => {
  const whole = await model.widget_manager.get_model(model.get("own_id"));
  // Of no method that there is: it does nothing, once the widget may be told anything. A widget that
  // is late already is refused at once; the others are answered only when they have begun.
  const asked = whole._handle_comm_msg({ content: { data: { method: "none" } } })
    .catch(() => LATE);
  const known = await Promise.race([asked, new Promise((go) => setTimeout(go, 0))]);
  if (known === LATE) await takeMessages(whole);
  // a kernel that has ended meanwhile has nothing to tell
  else asked.then((end) => end === LATE && takeMessages(whole)).catch(() => {});
};
// What a page tells of itself, unasked, is told no kernel that has ended.
const tellIfHeard = (tell) => {
  try { tell(); } catch (error) { if (error.message !== "Cannot send") throw error; }
};
const hearing = (parts) => ({
  ...parts,
  initialize: async (given) => {
    await catchUp(given.model).catch(() => {});
    return parts.initialize?.(given);
  },
});
