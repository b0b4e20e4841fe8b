"""What the live panel says and shows after a stop, a profile, a replay or a fifth setting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mspeckv import profile
from mspeckv_study.whatif import HARDWARE
from mspeckv_widgets import LiveLab
from mspeckv_widgets.charts.run_styles import RUNS, signed
from mspeckv_widgets.panels.live_labels import in_lines
from mspeckv_widgets.panels.worker import WAITS, turn
from mspeckv_widgets.recording import Recording
from tests.browser.live_cells import LIVE

SECONDS = 60.0


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> LiveLab:
    """A panel on a tiny pair, whose runs take tenths of a second."""
    known = replace(HARDWARE["laptop-cpu"], name="this")
    monkeypatch.setattr("mspeckv_widgets.panels.machine.this_machine", lambda *_: known)
    names: dict[str, Any] = {}
    exec(LIVE, names)  # the cell of a notebook
    made = names["lab"]
    assert isinstance(made, LiveLab)
    return made


def exercise(lab: LiveLab, **how: Any) -> None:
    """Run to the end."""
    lab.run(**how)
    assert lab.wait(SECONDS)
    assert lab.state == "done", lab.error


def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def opacities(lab: LiveLab) -> set[float]:
    """Of the lines that have points."""
    return {trace.opacity for trace in lab.view.charts._traces.values() if len(trace.y)}


def test_a_stopped_run_is_no_change_of_the_setting(lab: LiveLab) -> None:
    lab.controls.set(new_tokens=256)
    lab.run()
    until(lambda: bool(lab.records[0].rounds))
    lab.stop()
    assert lab.wait(SECONDS)
    assert lab.state == "stopped"
    assert "Changed since" not in lab.view.said.value
    assert opacities(lab) == {1.0}
    assert "no timed run yet" in lab.view.tiles.value
    lab.controls.set(gamma=3)
    assert "Changed since the last run: gamma 8, now 3." in lab.view.said.value
    assert "not run yet" in lab.view.tiles.value


def test_a_profile_is_no_change_of_the_setting(lab: LiveLab) -> None:
    exercise(lab, profiled=True)
    assert "Changed since" not in lab.view.said.value
    assert opacities(lab) == {1.0}
    assert "no timed run yet" in lab.view.tiles.value


def test_a_profile_that_is_stopped_before_its_first_round_shows_nothing(
    lab: LiveLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: Any, **ways: Any) -> Any:
        return replace(profile(*given, **ways), rounds=(), wall_ms=0.0)

    monkeypatch.setattr("mspeckv_widgets.panels.runner.profile", stopped)
    lab.run(profiled=True)
    assert lab.wait(SECONDS)
    assert lab.records[0].profile is None
    assert not lab.view.profile.shown
    assert "#1" in lab.view.comparison.value, "what stands beside it is drawn"


def test_a_setting_without_a_colour_has_run_all_the_same(lab: LiveLab) -> None:
    for gamma in range(1, len(RUNS) + 2):
        lab.controls.set(gamma=gamma)
        exercise(lab)
    lab.controls.set(gamma=1)
    assert "not run yet" not in lab.view.tiles.value
    assert "Changed since" not in lab.view.said.value


def test_a_replay_keeps_the_runs_before_it(lab: LiveLab) -> None:
    exercise(lab)
    lab.controls.set(gamma=3)
    lab.run(repeats=2)
    assert lab.wait(SECONDS)
    recording = Recording.of(lab.records[0], lab.runner.pair and lab.runner.pair.tokenizer)
    lab.replay(recording)
    until(lambda: "recorded run" in lab.view.status.value)
    assert "Run 1 of" not in lab.view.status.value
    assert "Run 4 of" not in lab.view.status.value
    lab.stop()
    assert lab.wait(SECONDS)
    assert [one.number for one in lab.records] == [0, 5, 4, 3, 2, 1]
    assert [one.ms.count for one in lab.runner.view().compared] == [3, 2]
    labels = " ".join(str(note.text) for note in lab.view.charts.figure.layout.annotations)
    assert signed(2, "recorded run") in labels, "it has a colour of its own"


def test_a_moving_picture_that_comes_to_the_front_never_goes_back(lab: LiveLab) -> None:
    """Whoever asks how far a run is must have the lock by then, or another draws a later state."""
    view, locked = lab.runner.view, list[bool]()

    def look() -> None:
        free = lab._drawing.acquire(blocking=False)
        locked.append(not free)
        if free:
            lab._drawing.release()

    def ask() -> Any:
        other = threading.Thread(target=look)
        other.start()
        other.join()
        return view()

    lab.runner.view = ask  # type: ignore[method-assign]
    lab.view._tabs.selected_index = lab.view._tabs.children.index(lab.view.moving.box)
    assert locked
    assert all(locked)


def test_a_preset_put_in_again_after_a_reset_is_followed_elsewhere(lab: LiveLab) -> None:
    # what comes first is what a reset goes back to
    for preset in ("A2", "B1", "B1"):
        lab.controls.presets[preset].click()
        lab.view.show_elsewhere()
        elsewhere = lab.view.elsewhere.what_if
        assert elsewhere is not None
        assert elsewhere.controls.values["experiment"] == preset
        elsewhere.controls.set(experiment="B2")
        lab.reset()


def test_a_short_name_has_one_line(lab: LiveLab) -> None:
    exercise(lab)
    lab.controls.set(gamma=3, bits=4)
    exercise(lab)
    texts = [str(note.text) for note in lab.view.charts.figure.layout.annotations]
    assert signed(1, "int4, gamma 3") in texts
    assert in_lines("mspeckv, int8, on-chip 15, resident 0") == (
        "mspeckv, int8,<br>on-chip 15, resident 0"
    )


def test_copied_code_names_a_pair_that_is_not_the_usual_one(lab: LiveLab) -> None:
    pair = lab.runner.pair
    assert pair is not None
    models = f'load_pair(target="{pair.target_id}", draft="{pair.draft_id}")'
    assert models in lab.view.code.text
    assert f"--target {pair.target_id} --draft {pair.draft_id}" in lab.view.code.text
    lab.controls.set(tier0="none")
    assert f"--target {pair.target_id} --draft none" in lab.view.code.text


def test_a_panel_that_waits_for_another_says_so(lab: LiveLab) -> None:
    with turn:
        lab.run()
        until(lambda: WAITS in lab.view.status.value)
    assert lab.wait(SECONDS)
    assert lab.state == "done", lab.error
    with turn:
        lab.run()
        until(lambda: WAITS in lab.view.status.value)
        lab.stop()
        assert lab.wait(SECONDS)
    assert str(lab.state) == "stopped"
    assert WAITS not in lab.view.status.value
    exercise(lab)


def test_charts_of_a_first_round_wait_for_its_text_but_not_for_a_control(
    lab: LiveLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    exercise(lab)
    ended = lab.runner.view()
    assert ended.current is not None
    begun = replace(ended.current, rounds=[], summary=None)
    monkeypatch.setattr(lab.runner, "view", lambda: replace(ended, busy=True, current=begun))
    drawn: list[Any] = []
    monkeypatch.setattr(lab.view.charts, "draw", lambda *what: drawn.append(what))
    monkeypatch.setattr("mspeckv_widgets.panels.live.UNTIL_TEXT", SECONDS)
    lab._draw(again=True)
    drawn.clear()
    lab._draw(again=True)
    assert not drawn
    lab.controls.set(gamma=3)
    assert drawn
