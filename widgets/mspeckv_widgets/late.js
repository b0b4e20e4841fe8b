// anywidget gives a module two seconds to load. On a page that is busier than that, as one that
// loads all of a notebook's widgets at once, it draws the widget when it comes, but hands no message
// of the kernel on to it from then on: each ends as "[anywidget] Failed to initialize model.".
// Such a widget takes its messages itself, and asks for what it has missed.
const hearLate = async (model) => {
  const whole = await model.widget_manager.get_model(model.get("own_id"));
  try {
    // of no method that there is: it does nothing, once the widget may be told anything
    await whole._handle_comm_msg({ content: { data: { method: "none" } } });
  } catch {
    const beyond = Object.getPrototypeOf(Object.getPrototypeOf(whole));
    whole._handle_comm_msg = beyond._handle_comm_msg;
    whole.comm.on_msg(whole._handle_comm_msg.bind(whole));
    whole.comm.send({ method: "request_state" });
  }
};
const hearing = (parts) => ({
  ...parts,
  initialize: (given) => {
    // not waited for: what it asks about is over only after this
    hearLate(given.model).catch(() => {});
    return parts.initialize?.(given);
  },
});
