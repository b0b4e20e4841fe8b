// A page that is loaded anew gives a widget's model two seconds from when its output is drawn. Where
// the page itself is busy for longer, as on a slow machine, JupyterLab looks no more and says that
// there is none, though it is made a moment later. The frame of such a panel draws it in its place.
const NOT_FOUND = "Error displaying widget: model not found";
const LOOK_MS = 500, LOOKS = 120;

// Outputs of a panel that say so: each stands behind the panel's last picture.
const lostPlaces = (mark) => [...document.querySelectorAll(`.mskv-last.${mark}`)]
  .map((one) => one.closest(".jp-OutputArea-child")?.nextElementSibling)
  .map((child) => child?.querySelector(".jp-OutputArea-output"))
  .filter((place) => place?.textContent === NOT_FOUND);
const drawIn = async (place, manager, id) => {
  place.textContent = "";
  const drawn = await manager.create_view(await manager.get_model(id));
  drawn.luminoWidget.constructor.attach(drawn.luminoWidget, place);
};
const findLost = (model) => {
  let looks = 0;
  const look = () => {
    for (const place of lostPlaces(`mskv-is-${model.get("own_id")}`))
      drawIn(place, model.widget_manager, model.get("panel_id")).catch(console.error);
    looks += 1;
    if (looks === LOOKS) clearInterval(timer);
  };
  const timer = setInterval(look, LOOK_MS);
  return () => clearInterval(timer);
};
