"""The player in two views: it counts as fast as in one, and goes on when one is gone."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from mspeckv_widgets.panels.player import Player

pytestmark = [pytest.mark.browser, pytest.mark.slow]

COUNT = """async ([text, views]) => {
  const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  const { default: player } = await import(address);
  const values = { value: 1, min: 1, max: 1000, interval: 100, playing: false, hint: "" };
  const heard = new Set();
  const model = {
    get: name => values[name],
    set: (name, value) => {
      values[name] = value;
      if (name === "playing") for (const act of [...heard]) act();
    },
    save_changes: () => {}, on: (_, act) => heard.add(act), off: (_, act) => heard.delete(act),
  };
  const boxes = [...Array(views)].map(() => document.createElement("div"));
  const ends = boxes.map(el => player.render({ model, el }));
  const wait = () => new Promise(done => setTimeout(done, 2000));
  boxes[0].querySelector("button").click();
  await wait();
  const before = values.value;
  ends[0]();
  await wait();
  for (const end of ends.slice(1)) end();
  return [before, values.value];
}"""


@pytest.mark.parametrize("views", [1, 2])
def test_views_count_together(browser: Browser, views: int) -> None:
    page = browser.new_page()
    before, after = page.evaluate(COUNT, [Player._esm, views])
    page.close()
    assert 5 < before < 24, "ten a second, not twenty"
    assert (after > before) == (views == 2)
