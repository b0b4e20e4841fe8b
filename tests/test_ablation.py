"""The ablation panel without a browser: what it shows of a folder, and sweeps on the real pair."""

from __future__ import annotations

import html
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mspeckv import Pair
from mspeckv_study.experiments import Row, experiment
from mspeckv_widgets import Ablation, results
from mspeckv_widgets.panels.ablation_chart import PLACES
from mspeckv_widgets.panels.sweep import Order
from mspeckv_widgets.panels.worker import turn
from mspeckv_widgets.results import match_of
from tests.experiment_rows import a1, a2, b1, row, write

SECONDS = 300.0


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Results of three experiments."""
    return str(write(tmp_path / "rows", [*a1(), *a2(), *b1()]))


def drawn(lab: Ablation, panel: str, name: str) -> Any:
    """A trace of the chart."""
    row_, column = PLACES[panel]
    axis = f"y{(row_ - 1) * 2 + column}".replace("y1", "y")
    (found,) = (t for t in lab.chart.figure.data if t.yaxis == axis and t.name == name)
    return found


def until(true: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_results_stand_beside_the_published_ones(folder: str) -> None:
    lab = Ablation("A1", folder)
    assert list(drawn(lab, "speed", "mspeckv").y) == pytest.approx([40, 36, 35, 28])
    assert list(drawn(lab, "published", "mspeckv (published)").y) == [22.86, 21.54, 21.37, 18.5]
    assert list(drawn(lab, "speed-up", "mspeckv").y) == pytest.approx([5, 9, 14, 14])
    assert list(drawn(lab, "speed-up", "mspeckv (published)").y) == [4.75, 8.01, 12.94, 14.45]
    assert list(drawn(lab, "link", "mspeckv").y) == [1.0] * 4
    assert len(drawn(lab, "speed-up", "autoregressive").y) == 0
    assert lab.chart.figure.layout.xaxis.ticktext == (
        "512<br>(8192)", "1024<br>(16384)", "1536<br>(24576)", "2048<br>(32768)",
    )  # fmt: skip
    names = [t.name for t in lab.chart.figure.data if t.showlegend]
    assert len(names) == len(set(names)), "a line stands in the legend once"
    assert "speed-up over triforce" in lab._tables[0].value
    assert lab._tables[1].value.count("<tr>") == 1 + 32
    assert "emulated" in lab._tables[2].value
    assert lab.state == "idle"
    assert "on machine a test" in lab.message


def test_another_experiment_brings_its_own_cells(folder: str) -> None:
    lab = Ablation("A1", folder)
    lab.inputs["experiment"].value = "B1"
    assert lab.inputs["values"].options == experiment("B1").values
    assert lab.inputs["variants"].value == ("triforce", "mspeckv")
    assert list(drawn(lab, "speed", "mspeckv-lru").y) == [9.0, 9.5, 10.0, 20.0, 21.0]
    assert list(drawn(lab, "speed", "vanilla").y) == []
    assert "A cliff under LRU? Tier 2\u0027s steepest" in html.unescape(lab._tables[0].value)
    assert "(shown)" in lab._tables[0].value
    assert not lab.inputs["new_tokens"].disabled
    lab.inputs["experiment"].value = "B2"
    assert lab.inputs["new_tokens"].disabled, "they are its axis"
    assert lab.state == "failed"
    assert "there are none of B2" in lab._status.value
    lab.reset()
    assert lab.inputs["experiment"].value == "A1"
    assert lab.state == "idle"


def test_a_bad_folder_is_one_line_and_the_panel_still_works(folder: str) -> None:
    lab = Ablation("A2", "no such folder")
    assert lab.state == "failed"
    assert "no such folder" in lab._status.value
    assert "Traceback" not in lab._status.value
    assert "No rows yet" in lab._tables[1].value
    lab.inputs["folder"].value = folder
    lab.load()
    assert lab.state == "idle"
    assert len(drawn(lab, "speed", "mspeckv").y) == 3


def test_a_sweep_needs_a_cell(folder: str) -> None:
    lab = Ablation("A2", folder)
    lab.inputs["variants"].value = ()
    lab.run()
    assert lab.state == "failed"
    assert "at least one" in lab._status.value
    assert not lab.runner.busy


def test_every_control_says_what_it_is(folder: str) -> None:
    lab = Ablation("A1", folder)
    for control in lab.inputs.values():
        assert control.description
        assert len(control.tooltip) > 10
    for button in lab.buttons.values():
        assert len(button.tooltip) > 10


def test_rows_of_a_sweep_arrive_and_are_drawn(folder: str, pair: Pair) -> None:
    lab = Ablation("A1", folder, pair)
    lab.inputs["variants"].value = ("mspeckv", "all-float")
    lab.inputs["new_tokens"].value = 8
    with turn:
        lab.run()  # returns though the worker cannot begin
        lab.run()
    assert lab.wait(SECONDS)
    assert lab.state == "done", lab._status.value
    assert "2 of 2 trials" in lab._status.value
    assert lab.match is not None
    assert (lab.match.table.values, lab.match.table.seeds) == ((512,), (1,))
    assert set(lab.match.table.variants) == {"mspeckv", "all-float"}
    speeds = [drawn(lab, "speed", name).y[0] for name in ("mspeckv", "all-float")]
    assert all(speed > 0 for speed in speeds)
    pair_ = lab.match.table.compare(512, "mspeckv", "all-float")
    assert pair_ is not None
    assert pair_.centre == pytest.approx(speeds[0] / speeds[1])
    assert "(one run)" in lab._tables[1].value
    assert drawn(lab, "published", "mspeckv (published)").y[0] == 22.86
    assert lab.buttons["stop"].disabled
    lab.load()
    assert len(lab.match.table.values) == 4, "the folder's results are back"


def test_a_sweep_that_is_being_drawn_does_not_replace_what_is_loaded(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Ablation("A1", folder)
    order = Order("A1", (512,), ("mspeckv",), 8, (1,))
    lab.runner._order, lab.runner._rows = order, (row("A1", 512, "mspeckv"),)
    lab.runner._set("running")
    drawing, go_on = threading.Event(), threading.Event()

    def slow(*given: Any) -> Any:
        drawing.set()
        assert go_on.wait(20)
        return match_of(*given)

    monkeypatch.setattr("mspeckv_widgets.panels.ablation.match_of", slow)
    threads = [threading.Thread(target=act) for act in (lab._draw, lab.load)]
    threads[0].start()
    assert drawing.wait(20)
    threads[1].start()
    threads[1].join(0.5)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert lab.match is not None
    assert len(lab.match.table.values) == 4


def test_stop_ends_a_sweep_and_keeps_its_rows(folder: str, pair: Pair) -> None:
    lab = Ablation("A1", folder, pair)
    lab.inputs["variants"].value = ("mspeckv", "all-float", "vanilla", "autoregressive")
    lab.inputs["new_tokens"].value = 64
    lab.run()
    assert not lab.buttons["stop"].disabled or lab.runner.busy
    until(lambda: lab.runner.view().state == "running", "the sweep begins")
    lab.stop()
    assert lab.wait(SECONDS)
    assert lab.state == "stopped"
    assert len(lab.runner.view().rows) < 4
    assert not lab.buttons["run"].disabled


def test_a_failed_trial_is_a_row_that_is_named(folder: str) -> None:
    rows = [row("B1", 4, "mspeckv", 1, 9.0), row("B1", 4, "triforce", 1, error="MemoryError: x")]
    match = results.match_of(experiment("B1"), rows)
    assert match.table.failed == ((4, "triforce", 1, "MemoryError: x"),)


def test_a_row_gives_its_summary_back() -> None:
    one = row("A1", 512, "mspeckv", 2, 12.5)
    line = json.dumps(one.to_json())
    summary = results.summary_of(Row.from_json(json.loads(line)))
    assert json.loads(json.dumps(summary.to_json())) == json.loads(line)["result"]
    assert summary.tokens == (1, 2, 3)
    assert summary.tiers[0].accepted == 20
    with pytest.raises(ValueError, match="it failed with E: x"):
        results.summary_of(row("A1", 512, "mspeckv", error="E: x"))


def test_results_are_found_here_first(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").rename(tmp_path / "results")
    assert results.find_results() == Path("results")
    assert results.load_results("b1").table.values == (4, 8, 12, 15, 17)
    with pytest.raises(ValueError, match="there are none of B2"):
        results.load_results("B2")
    with pytest.raises(ValueError, match="'elsewhere' is not allowed"):
        results.find_results("elsewhere")


def test_a_reduced_sweep_has_few_tokens_unless_they_are_the_axis() -> None:
    cells = results.reduced(experiment("A1"))
    assert [(cell.value, cell.variant) for cell in cells] == [
        (512, "autoregressive"), (512, "mspeckv"),
    ]  # fmt: skip
    assert [cell.config.new_tokens for cell in cells] == [
        results.FEW_TOKENS // 4, results.FEW_TOKENS,
    ]  # fmt: skip
    longer = results.reduced(experiment("B2"), [32], ["mspeckv"], new_tokens=8)
    assert [cell.config.new_tokens for cell in longer] == [32]
    with pytest.raises(ValueError, match="variants"):
        results.reduced(experiment("B2"), [32], ["nobody"])


def test_sentences_are_told_with_their_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    results.tell(results.match_of(experiment("B1"), b1()), "cliff, LRU", "cliff, published")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("cliff, LRU [shown]: A cliff under LRU?")
    assert second.startswith("cliff, published: The published mspeckv")


def test_the_noise_floor_is_of_every_experiment_in_the_folder(folder: str) -> None:
    """A2's and B1's cells repeat some of A1's, which alone has none twice."""
    assert not results.match_of(experiment("A1"), a1()).noise.groups
    noise = results.load_results("A1", folder).noise
    assert {cell[0] for group in noise.groups for cell in group} == {"A1", "A2", "B1"}


def test_other_rows_in_the_folder_are_left_alone(folder: str) -> None:
    (Path(folder) / "drafts-at-length.jsonl").write_text('{"other": 1}\n', encoding="utf-8")
    assert results.load_results("A1", folder).table.values == (512, 1024, 1536, 2048)
