"""Predictions answered with the keyboard alone, in JupyterLab in Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.labs import of_cells, save

from .axe import examine, grave
from .driver import RUN_ALL, Visit, open_notebook, picture, settle, visit
from .lab_server import serve

pytestmark = [pytest.mark.browser, pytest.mark.alone, pytest.mark.slow]

NAME = "predict.ipynb"
BEGIN = 'from mspeckv_widgets.course import Lab\nlab = Lab("00_start_here", folder=".")'
NUMBER = 'lab.predict("p1", "How much KV does one token leave?", unit="KB")'
RESULT = 'lab.reveal("p1", 46.08)\nfirst = "ran"'
BOTH = """lab.predict("p2", "Which is faster?", choices=["int8", "float", "none"])
lab.predict("p3", "How many tokens does a trip settle?")"""
RESULTS = 'lab.reveal("p2", "float")\nlab.reveal("p3", 3)\nsecond = "ran"'
LAST = 'lab.predict("p4", "How many more?")'
TYPED = 'lab.reveal("p4", 8)\nlab.reset()'
SOURCES = (BEGIN, NUMBER, RESULT, BOTH, RESULTS, LAST, TYPED)
FIRST_CELL = """() => { const notebook = window.jupyterapp.shell.currentWidget.content;
  notebook.activeCellIndex = 0; notebook.mode = 'command';
  notebook.activeCell.node.focus(); }"""
STATE = """() => { const notebook = window.jupyterapp.shell.currentWidget.content;
  const at = document.activeElement;
  return { active: notebook.activeCellIndex, mode: notebook.mode,
    inside: notebook.node.contains(at), field: at.matches('.mskv-guess input') ? at.type : '',
    box: at.closest('.mskv-guess')?.getAttribute('aria-label') || '',
    ran: notebook.widgets.map(one => Boolean(one.model.executionCount)) }; }"""
CLEAR = """async () => { const lab = window.jupyterapp;
  await lab.commands.execute('notebook:clear-all-cell-outputs'); }"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's folder."""
    return tmp_path_factory.mktemp("predict")


@pytest.fixture(scope="module")
def seen(browser: Browser, home: Path) -> Iterator[Visit]:
    """The notebook, open, nothing run."""
    with serve(home, lambda folder: save(of_cells(*SOURCES), folder / NAME)) as address:
        visited = visit(browser, width=1366, height=900)
        open_notebook(visited.page, address.format(name=NAME))
        visited.page.evaluate(FIRST_CELL)
        yield visited
        visited.page.context.close()


@pytest.fixture
def page(seen: Visit) -> Page:
    """The page."""
    return seen.page


def kept(home: Path) -> dict[str, Any]:
    """Predictions in the progress file."""
    text = (home / "labs" / ".mspeckv-progress.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)["labs"]["00_start_here"]["predictions"]
    return found


def at(page: Page, what: str, **wanted: Any) -> None:
    """Wait until the page's focus is as wanted; it is never outside the notebook meanwhile."""

    def probe() -> bool:
        state = page.evaluate(STATE)
        assert state["inside"], f"{what}: the focus is lost"
        return all(state[name] == value for name, value in wanted.items())

    try:
        settle(page, probe, 60, what)
    except AssertionError as error:
        raise AssertionError(f"{error}; {page.evaluate(STATE)}") from None


def ran(page: Page, place: int) -> None:
    """Wait until a cell has run."""
    settle(page, lambda: page.evaluate(STATE)["ran"][place], 60, f"cell {place} has run")


def test_typing_and_shift_enter_are_enough(page: Page, home: Path) -> None:
    page.keyboard.press("Shift+Enter")
    at(page, "the next cell", active=1)
    page.keyboard.press("Shift+Enter")
    at(page, "the field has the focus", field="text", box="Prediction p1")
    page.keyboard.type("2000")
    page.keyboard.press("Shift+Enter")
    at(page, "the result's cell was run, the next one is active", active=3, field="")
    ran(page, 2)
    assert kept(home)["p1"]["guess"] == 2000
    assert page.get_by_text("too high by a factor of 43.4").is_visible()
    page.keyboard.press("Shift+Enter")
    at(page, "the first choice has the focus", field="radio", box="Prediction p2")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+Enter")
    at(page, "the next box of the cell", field="text", box="Prediction p3")
    assert kept(home)["p2"]["guess"] == "float"
    page.keyboard.type("2,5")
    page.keyboard.press("Shift+Enter")
    at(page, "both are answered: the cell after them was run", active=5, field="")
    ran(page, 4)
    assert kept(home)["p3"] == {
        "question": "How many tokens does a trip settle?", "unit": "", "guess": 2.5, "result": 3,
        "late": False,
    }  # fmt: skip


def test_enter_records_and_leaves_the_next_cell_to_you(page: Page, home: Path) -> None:
    page.keyboard.press("Shift+Enter")
    at(page, "the field has the focus", box="Prediction p4")
    page.keyboard.type("many")
    page.keyboard.press("Enter")
    status = page.locator(".mskv-guess[aria-label='Prediction p4'] .mskv-guess-status")
    settle(page, lambda: "use a number" in status.inner_text(), 30, "it says why not")
    at(page, "the focus stays", box="Prediction p4")
    field = page.locator(".mskv-guess[aria-label='Prediction p4'] input")
    assert field.get_attribute("aria-invalid") == "true"
    assert status.get_attribute("role") == "status"
    assert field.get_attribute("aria-describedby") == status.get_attribute("id")
    field.press("Control+a")
    page.keyboard.type("5")
    assert field.get_attribute("aria-invalid") is None
    page.keyboard.press("Enter")
    at(page, "the next cell", active=6, field="")
    assert kept(home)["p4"]["guess"] == 5
    assert not page.evaluate(STATE)["ran"][6]


def test_the_button_goes_on_too(page: Page, home: Path) -> None:
    field = page.locator(".mskv-guess[aria-label='Prediction p4'] input")
    field.fill("6")
    page.locator(".mskv-guess[aria-label='Prediction p4'] .mskv-record").click()
    at(page, "the next cell", active=6, field="")
    assert kept(home)["p4"]["guess"] == 6


def test_what_is_typed_counts(page: Page) -> None:
    field = page.locator(".mskv-guess[aria-label='Prediction p4'] input")
    field.fill("7")
    page.keyboard.press("Escape")
    at(page, "Escape leaves the field", active=5, field="")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+Enter")
    ran(page, 6)
    page.get_by_text("too low by a factor of 1.14 (taken as it stood").wait_for(timeout=30_000)
    picture(page, "predict")
    assert grave(examine(page)) == []


def test_running_all_cells_leaves_the_focus(page: Page) -> None:
    page.evaluate(CLEAR)
    page.evaluate(FIRST_CELL)
    page.evaluate(RUN_ALL)
    settle(page, lambda: page.evaluate("window.mskvRun") == "done", 60, "cells have run")
    page.wait_for_timeout(1000)
    state = page.evaluate(STATE)
    # JupyterLab made a cell when the last one was run by Shift+Enter
    assert (state["active"], state["field"], state["inside"]) == (len(state["ran"]) - 1, "", True)


def test_without_a_guess_one_is_not_held_up(page: Page) -> None:
    page.evaluate(CLEAR)
    page.evaluate(FIRST_CELL)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+Enter")
    at(page, "the field has the focus", box="Prediction p1")
    page.keyboard.press("Shift+Enter")
    page.get_by_text("press Shift+Enter again to go on without").wait_for()
    at(page, "it asks once", box="Prediction p1")
    page.keyboard.press("Shift+Enter")
    at(page, "and goes on", active=3, field="")


def test_nothing_went_wrong(seen: Visit) -> None:
    assert seen.problems == []
