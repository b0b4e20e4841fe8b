"""The live lab without a browser, on the real pair: what the buttons do, what the panel says."""

from __future__ import annotations

import contextlib
import gzip
import html
import io
import re
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from mspeckv import KVPolicy, Link, Pair, Plan, RunConfig, Sampling, Speculation, stream
from mspeckv.events import PURPOSES
from mspeckv.testing import SMALL as TINY_TIERS
from mspeckv.testing import tiny_pair, tiny_prompt
from mspeckv_study.experiments import experiment
from mspeckv_study.profiling.session import _one_at_a_time
from mspeckv_widgets import LiveLab
from mspeckv_widgets.charts import theme
from mspeckv_widgets.charts.story import split_text, story_html
from mspeckv_widgets.charts.table import readable_bytes
from mspeckv_widgets.compared import values_of
from mspeckv_widgets.panels.control_inputs import DEFAULTS, METHODS
from mspeckv_widgets.panels.controls import PRESETS
from mspeckv_widgets.panels.live_charts import MODELLED
from mspeckv_widgets.panels.live_labels import KEPT, TIME, TRAFFIC
from mspeckv_widgets.panels.scorecard import comparison_html, lengths_text, rounds_html, scores
from mspeckv_widgets.panels.snippet import command_line, python_code
from mspeckv_widgets.panels.worker import turn
from mspeckv_widgets.record import RunRecord, Setting, traffic_line
from mspeckv_widgets.recording import Recording

SECONDS = 300.0
SMALL = {"prefill": 128, "new_tokens": 8, "link": "off", "temperature": 0.0, "budget": 96}


@pytest.fixture
def lab(pair: Pair) -> LiveLab:
    """A panel on the session's pair, set to a small run."""
    made = LiveLab(pair)
    made.controls.set(**SMALL)
    return made


def until(true: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def drawn(lab: LiveLab, row: int) -> dict[Any, Any]:
    """The lines of one chart that have points, by slot; the model's aside."""
    return {
        key[1]: trace
        for key, trace in lab.view.charts._traces.items()
        if key[0] == row and key[1] != MODELLED and len(trace.y)
    }


def label_texts(lab: LiveLab) -> str:
    """Everything that is written into the charts."""
    return " ".join(str(note.text) for note in lab.view.charts.figure.layout.annotations)


def plain(markup: str) -> str:
    """HTML's words."""
    return re.sub("<[^>]*>", "", markup)


def exercise(lab: LiveLab) -> None:
    """Run to the end."""
    lab.run()
    assert lab.wait(SECONDS)
    assert lab.state == "done", lab.error


def test_run_draws_everything(lab: LiveLab) -> None:
    exercise(lab)
    record = lab.records[0]
    assert record.summary is not None
    assert len(record.tokens) == 8
    assert all(drawn(lab, row) for row in (TRAFFIC, TIME, KEPT))
    assert lab.view.story.value.count("data-tier=") == len(
        split_text(lab.runner.pair.tokenizer if lab.runner.pair else None, record.tokens)
    )
    assert "Time per token" in lab.view.card.value
    assert "#1 mspeckv, int8, on-chip 15, resident 0" in lab.view.comparison.value
    assert "Done: 8 of 8 tokens" in lab.view.status.value
    assert not lab.view.buttons["run"].disabled
    assert lab.view.buttons["stop"].disabled


def test_a_page_loaded_anew_is_told_what_is_drawn(lab: LiveLab) -> None:
    exercise(lab)
    figure = lab.view.charts.figure
    told = figure.get_state()
    assert told["_widget_layout"]["annotations"][3]["text"] == figure.layout.annotations[3].text
    assert len(told["_widget_data"]) == len(figure.data)
    for trace, shown in zip(told["_widget_data"], figure.data, strict=True):
        assert list(trace.get("y", ())) == list(shown.y or ())


def test_charts_show_every_byte_of_the_ledger(lab: LiveLab) -> None:
    exercise(lab)
    record, summary = lab.records[0], lab.records[0].summary
    assert summary is not None
    decode = sum(one.bytes for one in record.decode_transfers)
    assert drawn(lab, TRAFFIC)[0].y[-1] * 1e6 == pytest.approx(decode)
    lab.view.view_as.value = "seconds"
    total = summary.link.to_device_bytes + summary.link.to_host_bytes
    assert drawn(lab, TRAFFIC)[0].y[-1] * 1e6 == pytest.approx(total)
    assert total > decode > 0


def test_run_returns_at_once_and_a_second_is_ignored(lab: LiveLab) -> None:
    lab.controls.set(new_tokens=64)
    with turn:
        lab.run()  # returns though the worker cannot begin
        lab.run()
    lab.stop()
    assert lab.wait(SECONDS)
    assert [record.number for record in lab.records] == [1]


def test_stop_keeps_what_it_has_and_the_pair(lab: LiveLab) -> None:
    lab.controls.set(new_tokens=256, method="autoregressive")
    lab.run()
    until(lambda: bool(lab.records[0].rounds), "a round")
    lab.stop()
    rounds = len(lab.records[0].rounds)
    assert lab.wait(SECONDS)
    assert lab.state == "stopped"
    assert len(lab.records[0].rounds) <= rounds + 2
    assert 0 < len(lab.records[0].tokens) < 256
    assert "stopped early" in lab.view.card.value
    lab.controls.set(new_tokens=8)
    exercise(lab)


def test_stop_during_prefill(lab: LiveLab) -> None:
    lab.controls.set(prefill=1024)
    lab.run()
    lab.stop()
    assert lab.wait(SECONDS)
    assert lab.state == "stopped"
    assert lab.records[0].tokens == []


def test_reset_clears_and_restores(lab: LiveLab) -> None:
    exercise(lab)
    lab.controls.set(method="triforce", gamma=3)
    lab.reset()
    assert lab.controls.values == DEFAULTS
    assert lab.state == "idle"
    assert lab.records == []
    assert not any(drawn(lab, row) for row in (TRAFFIC, TIME, KEPT))
    assert "gamma" not in label_texts(lab)
    assert "data-tier" not in lab.view.story.value
    assert not lab.controls.inputs["bits"].disabled


def test_reset_during_a_run(lab: LiveLab) -> None:
    lab.controls.set(new_tokens=256)
    lab.run()
    until(lambda: bool(lab.records[0].rounds), "a round")
    lab.reset()
    assert lab.wait(SECONDS)
    assert lab.state == "idle"
    assert lab.records == []
    assert not lab.view.buttons["run"].disabled
    assert "Ready: press Run" in lab.view.status.value
    assert "comes with the end" in lab.view.card.value
    assert "listed here" in lab.view.comparison.value


def test_a_worker_that_ends_late_is_drawn_to_its_end(
    lab: LiveLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lab.runner._run

    def slow_to_end(*job: Any) -> None:
        run(*job)
        time.sleep(0.4)

    monkeypatch.setattr(lab.runner, "_run", slow_to_end)
    exercise(lab)
    assert "#1" in lab.view.comparison.value
    assert not lab.view.buttons["run"].disabled


def test_stop_in_a_series_keeps_the_stopped_run_in_sight(lab: LiveLab) -> None:
    exercise(lab)
    lab.controls.set(new_tokens=128)
    lab.run(repeats=3)
    until(lambda: lab.runner.view().turn[0] == 2 and bool(lab.records[0].rounds), "its second run")
    lab.stop()
    assert lab.wait(SECONDS)
    assert lab.state == "stopped"
    assert lab.records[0].rounds
    assert lab.records[0].setting.config.new_tokens == 128


def test_the_last_run_is_what_changes_are_set_against(lab: LiveLab) -> None:
    for gamma in (8, 4, 8):
        lab.controls.set(gamma=gamma)
        exercise(lab)
    lab.controls.set(gamma=3)
    assert "gamma 8, now 3" in lab.view.said.value


def test_reset_puts_the_tabs_back(lab: LiveLab) -> None:
    lab.elsewhere("B1", machine="h200")
    exercise(lab)
    lab.view._tabs.selected_index = lab.view._tabs.children.index(lab.view.moving.box)
    assert lab.view.moving.picture is not None
    lab.reset()
    assert lab.view.moving.picture is None
    assert lab.view._tabs.selected_index == 0
    assert lab.view.elsewhere.what_if is not None
    assert lab.view.elsewhere.what_if.controls.values["machine"] != "h200"


def test_pictures_of_past_runs_are_let_go(lab: LiveLab) -> None:
    lab.view._tabs.selected_index = lab.view._tabs.children.index(lab.view.moving.box)
    exercise(lab)
    first = lab.view.moving.picture
    assert first is not None
    comms = [first.panel.comm, *(child.comm for child in first.panel.children)]
    assert all(comm is not None for comm in comms)
    lab.controls.set(gamma=3)
    exercise(lab)
    assert first.panel.comm is None, "it is closed"
    assert all(child.comm is None for child in first.panel.children)


def test_a_recorded_run_keeps_nobody_waiting(lab: LiveLab, pair: Pair) -> None:
    exercise(lab)
    other = LiveLab(pair)
    other.controls.set(**SMALL)
    recording = Recording.of(lab.records[0], pair.tokenizer)
    lab.replay(recording)
    exercise(other)
    lab.stop()
    assert lab.wait(SECONDS)


def test_presets_of_small_models_keep_their_on_chip_layers(lab: LiveLab) -> None:
    lab.controls.set_model(24, 8192)
    lab.controls.apply_preset("A1")
    values = lab.controls.values
    assert (values["on_chip"], values["resident"]) == (15, 9)


def test_a_curves_place_is_run_as_it_was_drawn(lab: LiveLab) -> None:
    lab.controls.presets["B1"].click()
    lab.controls.set(resident=5, on_chip=4)
    curves = lab.view.curves
    asked: list[dict[str, Any]] = []
    curves._on_place = asked.append
    curves._clicked(8)
    assert asked[-1] == {"on_chip": 8, "resident": 5}
    curves._clicked(28)
    assert asked[-1] == {"on_chip": 28, "resident": 2}
    lab.controls.set(on_chip=28, resident=2)
    curves._clicked(8)
    assert asked[-1] == {"on_chip": 8, "resident": 5}, "residents come back where there is room"


def test_a_setting_that_is_not_modelled_leaves_no_old_curve(lab: LiveLab) -> None:
    lab.controls.presets["B1"].click()
    line = lab.view.curves.chart._lines[2, "static"]
    assert len(line.y)
    lab.controls.set(auto=True)
    assert not len(line.y)
    lab.controls.set(auto=False, method="vanilla")
    assert line.name == "vanilla, residents fixed"


def test_last_runs_stay_for_comparison(lab: LiveLab) -> None:
    exercise(lab)
    lab.controls.set(method="autoregressive", bits=8)
    exercise(lab)
    assert set(drawn(lab, TRAFFIC)) == set(drawn(lab, TIME)) == {0, 1}
    assert {"mspeckv", "autoregressive"} <= set(label_texts(lab).replace("</span>", "").split())
    assert lab.records[0].tokens == lab.records[1].tokens
    assert comparison_html(lab.records).count("<tr>") == 3
    captions = [
        plain(found[0])
        for table in (comparison_html(lab.records), rounds_html(lab.records[0]))
        for found in re.finditer("<caption>.*?</caption>", table)
    ]
    assert len(captions) == 2
    assert all("measured" in one and "counted" in one for one in captions)
    assert "KV on the device modelled" in captions[0]
    assert "#2 autoregressive" in lab.compare().data


def test_error_is_one_line_and_the_panel_still_works(lab: LiveLab, pair: Pair) -> None:
    lab.controls.document = "no such file"
    lab.run()
    assert lab.wait(SECONDS)
    assert lab.state == "failed"
    assert "no such file" in lab.error
    assert "\n" not in lab.error
    assert "no such file" in lab.view.status.value
    assert "Traceback" not in lab.view.status.value
    lab.controls.document = "python-reference"
    lab.controls.inputs["prefill"].max = pair.max_positions
    lab.controls.set(prefill=pair.max_positions)
    lab.run()
    assert lab.wait(SECONDS)
    assert "positions" in lab.error
    lab.controls.set(prefill=128)
    exercise(lab)


def test_two_panels_take_turns(lab: LiveLab, pair: Pair) -> None:
    other = LiveLab(pair)
    other.controls.set(**SMALL)
    lab.run()
    other.run()
    assert lab.wait(SECONDS)
    assert other.wait(SECONDS)
    assert lab.records[0].tokens == other.records[0].tokens


def test_layers_are_bounded_by_their_sum(lab: LiveLab, pair: Pair) -> None:
    on_chip, resident = lab.controls.inputs["on_chip"], lab.controls.inputs["resident"]
    on_chip.value, resident.value = 20, 10
    assert (on_chip.value, resident.value) == (20, 10)
    resident.value = 25
    assert (on_chip.value, resident.value) == (5, 25)
    on_chip.value = pair.layers
    assert (on_chip.value, resident.value) == (pair.layers, 0)
    assert "0 offloaded of 30 layers" in plain(lab.controls.placement.value)


def test_offloaded_counts_resident_layers_without_a_width(lab: LiveLab) -> None:
    lab.controls.set(on_chip=10, resident=5, bits="full")
    assert "0 resident, 20 offloaded" in plain(lab.controls.placement.value)


def test_triforce_shows_its_width_and_gives_it_back(lab: LiveLab) -> None:
    bits = lab.controls.inputs["bits"]
    lab.controls.set(bits=4)
    lab.controls.set(method="triforce")
    assert (bits.value, bits.disabled) == ("full", True)
    lab.controls.set(method="mspeckv")
    assert (bits.value, bits.disabled) == (4, False)


@pytest.mark.parametrize("name", PRESETS)
def test_presets(lab: LiveLab, name: str) -> None:
    lab.controls.set(on_chip=30)
    lab.controls.presets[name].click()
    values = lab.controls.values
    assert {key: values[key] for key in PRESETS[name][0]} == PRESETS[name][0]
    assert name in lab.controls.hint.value


def test_every_method_of_the_panel_is_a_method() -> None:
    assert [RunConfig.build(method=method).method for _, method in METHODS] == [
        m for _, m in METHODS
    ]


def test_every_control_says_what_it_is(lab: LiveLab) -> None:
    for control in lab.controls.inputs.values():
        assert control.description
        assert len(control.tooltip) > 10


def test_every_purpose_has_a_style(lab: LiveLab) -> None:
    assert set(theme.PURPOSES) == {*PURPOSES, "other"}


def test_charts_say_their_units(lab: LiveLab) -> None:
    for view in ("tokens", "seconds"):
        lab.view.view_as.value = view
        assert "MB (counted)" in label_texts(lab)
        assert view.split()[0] in lab.view.charts.figure.layout.xaxis3.title.text


def test_copied_code_repeats_the_run(lab: LiveLab) -> None:
    lab.controls.set(method="vanilla", bits=4, on_chip=12, resident=3, gamma=5, temperature=0.7)
    exercise(lab)
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(lab.view.code.text, names)  # the text under test is code
    seen = lab.records[0].summary
    assert seen is not None
    assert names["summary"].config == seen.config
    assert names["summary"].tokens == seen.tokens


def test_command_line_names_every_setting() -> None:
    config = RunConfig(
        method="mspeckv",
        new_tokens=40,
        policy=KVPolicy(4, 3, 2),
        speculation=Speculation(gamma=6, draft_gamma=2, budget=128),
        sampling=Sampling(0.3, 0.8, 7),
        link=Link("origin"),
    )
    setting = Setting("my file.txt", 640, config)
    assert command_line(setting) == (
        "mspeckv generate --method mspeckv --document 'my file.txt' --prefill 640 "
        "--new-tokens 40 --kv-bits 4 --on-chip 3 --resident 2 --gamma 6 --draft-gamma 2 "
        "--budget 128 --link origin --temperature 0.3 --top-p 0.8 --seed 7"
    )
    assert 'Link(preset="origin")' in python_code(setting)
    assert "exact" not in python_code(setting)
    bitwise = Setting("my file.txt", 640, replace(config, exact="bitwise"))
    assert command_line(bitwise) == f"{command_line(setting)} --exact bitwise"
    assert '\n    exact="bitwise",\n)' in python_code(bitwise)


def test_chosen_lengths_are_shown(lab: LiveLab) -> None:
    lab.controls.set(auto=True, tier0="lookup", method="mspeckv")
    assert lab.controls.inputs["gamma"].disabled
    exercise(lab)
    record = lab.records[0]
    assert record.setting.config.speculation.gamma == "auto"
    assert record.setting.config.speculation.tier0 == "lookup"
    assert any(line.name == "Gamma chosen, mean" for line in scores(record))
    lengths = [lengths_text(one.plan) for one in record.rounds]
    page = rounds_html(record)
    assert all(html.escape(words) in page for words in lengths[-12:])
    assert 'gamma="auto"' in lab.view.code.text
    assert "--draft lookup" in lab.view.code.text
    lab.controls.reset()
    assert not lab.controls.inputs["gamma"].disabled


def test_a_rounds_lengths_in_words() -> None:
    assert lengths_text(Plan((0, 1, 2), 8, 3)) == "0>1>2: 8/3"
    assert lengths_text(Plan((0, 2), 5, 0)) == "0>2: 5"
    assert lengths_text(Plan((2,), 0, 0)) == "2"


def test_scores_are_labelled(lab: LiveLab) -> None:
    lab.controls.set(link="live")
    exercise(lab)
    lines = scores(lab.records[0])
    assert {line.source for line in lines} == {"counted", "emulated", "modelled"}
    moved = next(line for line in lines if line.name == "KV over the link")
    assert moved.source == "counted"
    clock = next(line for line in lines if line.name == "Time per token")
    assert (clock.source, clock.better) == ("emulated", "lower")
    assert rounds_html(lab.records[0]).count("<tr>") == 1 + len(lab.records[0].rounds)


@pytest.mark.parametrize("text", ["plain words", "naïve 日本語 🙂 text", "<b>&amp;</b>\n\tx"])
def test_pieces_join_to_the_text(pair: Pair, text: str) -> None:
    assert pair.tokenizer is not None
    tokens = pair.tokenizer(text)["input_ids"]
    pieces = split_text(pair.tokenizer, tokens)
    assert "".join(piece for _, piece in pieces) == text
    assert pieces[-1][0] == len(tokens) - 1
    page = story_html(pair.tokenizer, tokens, [2] * len(tokens))
    assert "<b>" not in page


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, ("0", "B")), (999, ("999", "B")), (46_080, ("46.08", "KB")), (1.5e9, ("1.50", "GB"))],
)
def test_readable_bytes(count: float, words: tuple[str, str]) -> None:
    assert readable_bytes(count) == words


def test_a_profiled_run_is_drawn_and_can_be_taken_away(lab: LiveLab) -> None:
    lab.run(profiled=True)
    assert lab.wait(SECONDS)
    assert lab.state == "done", lab.error
    record = lab.records[0]
    found = record.profile
    assert found is not None
    assert found.rounds == tuple(record.rounds)
    assert found.overhead is not None
    tab = lab.view.profile
    assert tab.timeline is not None
    assert {"tier1/verify", "tier2/verify"} <= {one.name for one in tab.timeline.figure.data}
    sent: list[tuple[Any, list[bytes]]] = []
    for download in (tab.trace, tab.rows):
        assert download.ready
        download.send = lambda content, buffers: sent.append((content, buffers))
        download._answer(None, "wanted", [])
    (trace, (packed,)), (rows, (table,)) = sent
    assert trace["name"] == "mspeckv-trace.json.gz"
    assert b"tier2/verify" in gzip.decompress(packed)
    assert rows["type"] == "text/csv"
    assert table.count(b"\n") == len(found.rows) + 1
    exercise(lab)
    assert not tab.shown
    assert not tab.trace.ready
    lab.run(profiled=True)
    assert lab.wait(SECONDS)
    assert tab.shown
    assert tab.timeline.profile is lab.records[0].profile


def test_a_profile_can_be_stopped(lab: LiveLab) -> None:
    lab.controls.set(new_tokens=64, link="live")
    lab.run(profiled=True)
    until(lambda: lab.state == "rehearsal", "the rehearsal begins")
    lab.stop()
    assert lab.wait(SECONDS)
    assert lab.state == "stopped", lab.error
    assert lab.records[0].profile is None
    exercise(lab)


def test_a_profile_beside_another_is_refused(lab: LiveLab) -> None:
    with _one_at_a_time:
        lab.run(profiled=True)
        assert lab.wait(SECONDS)
    assert lab.state == "failed"
    assert "one at a time" in lab.error


def test_what_an_extension_moves_is_drawn_and_listed() -> None:
    hot = replace(TINY_TIERS, tier1="hot chunks", refresh=1)
    for guess, shown in ((hot, True), (TINY_TIERS, False)):
        config = RunConfig("mspeckv", 24, KVPolicy(8, block=16), guess, Sampling(0))
        record = RunRecord(1, Setting("tiny", 61, config))
        for event in stream(tiny_pair(), tiny_prompt(), config):
            record.add(event)
        recalled = sum(one.link_bytes("recall") for one in record.rounds)
        assert (recalled > 0) == shown
        moved = sum(one.bytes for one in record.decode_transfers)
        assert traffic_line(record, "tokens").y[-1] * 1e6 == pytest.approx(moved)
        assert ("other KB" in rounds_html(record)) == shown


def test_repeats_take_turns(lab: LiveLab) -> None:
    exercise(lab)
    lab.controls.set(resident=5)
    exercise(lab)
    lab.run(repeats=3)
    assert lab.wait(SECONDS)
    assert lab.state == "done", lab.error
    resident = [one.setting.config.policy.resident for one in reversed(lab.records)]
    assert resident == [0, 5, 0, 5, 0, 5, 0, 5]
    assert [one.ms.count for one in lab.runner.view().compared] == [4, 4]
    assert lab.conclusions[1].startswith("Time, ms per token: resident 0")
    assert lab.view.bars.value.count("mskv-whisker") == 2


def test_a_fifth_setting_takes_the_oldest_ones_colour(lab: LiveLab) -> None:
    for gamma in (1, 2, 3, 4, 5):
        lab.controls.set(gamma=gamma)
        exercise(lab)
    slots = [(one.setting.config.speculation.gamma, one.slot) for one in lab.runner.view().compared]
    assert slots == [(2, 1), (3, 2), (4, 3), (5, 0)]
    assert "gamma 5" in label_texts(lab)
    assert "gamma 1" not in label_texts(lab)
    assert len(lab.records) == 5


def test_what_has_not_run_is_greyed_and_said(lab: LiveLab) -> None:
    exercise(lab)
    assert {trace.opacity for trace in drawn(lab, TRAFFIC).values()} == {1.0}
    lab.controls.set(gamma=3)
    assert {trace.opacity for trace in drawn(lab, TRAFFIC).values()} == {0.35}
    assert "Changed since the last run: gamma 8, now 3." in lab.view.said.value
    lab.controls.set(gamma=8)
    assert {trace.opacity for trace in drawn(lab, TRAFFIC).values()} == {1.0}
    assert "Changed since" not in lab.view.said.value


def test_a_slower_machine_is_said(lab: LiveLab) -> None:
    exercise(lab)
    assert lab.machine.measured
    record = lab.records[0]
    passes = [
        replace(one, passes=tuple(replace(p, ms=20 * p.ms) for p in one.passes))
        for one in record.rounds
    ]
    assert record.summary is not None
    slow = replace(record, rounds=passes, summary=replace(record.summary))
    said = lab.machine.slower([slow])
    assert "times slower than when it was calibrated" in said


def test_another_width_takes_up_the_prompt(lab: LiveLab) -> None:
    """The second run reads nothing: its prefill has no passes, and its bytes are all there."""
    lab.controls.set(bits=8)
    exercise(lab)
    lab.controls.set(bits=4)
    exercise(lab)
    prefill = lab.records[0].prefill
    assert prefill is not None
    assert not [one for one in prefill.passes if one.tier == 2]
    assert prefill.transfers


@pytest.mark.parametrize("name", PRESETS)
def test_a_click_on_a_presets_place_runs_it(lab: LiveLab, name: str) -> None:
    lab.controls.presets[name].click()
    assert lab.view.curve
    lab.controls.set(**SMALL)
    place = experiment(name).values[0]
    chart = lab.view.curves.chart
    where = list(chart._lines[2, "places"].x).index(place)
    chart._clicked(chart._lines[2, "places"], SimpleNamespace(point_inds=[where]), None)
    assert lab.wait(SECONDS)
    assert lab.state == "done", lab.error
    flat = values_of(lab.records[0].setting)
    assert flat[experiment(name).axis] == place
    assert list(chart._lines[2, "runs"].x) == [place]


def test_the_moving_picture_is_made_when_it_is_looked_at(lab: LiveLab) -> None:
    moving, tabs = lab.view.moving, lab.view._tabs
    place = tabs.children.index(moving.box)
    exercise(lab)
    assert moving.picture is None, "a closed tab costs nothing"
    assert "newest run" in moving.box.children[0].value
    tabs.selected_index = place
    first = moving.picture
    assert first is not None
    assert first.picture.count == len(lab.records[0].rounds)
    lab.controls.set(gamma=3)
    exercise(lab)
    assert moving.picture is not first
    tabs.selected_index = 0
    second = moving.picture
    exercise(lab)
    assert moving.picture is second, "closed again"


def test_the_moving_picture_grows_with_the_run(lab: LiveLab) -> None:
    exercise(lab)
    assert lab.runner.pair is not None
    whole, moving, pair = lab.records[0], lab.view.moving, lab.runner.pair
    grown = replace(whole, rounds=[], summary=None)
    moving.show(grown, pair)
    shown = moving.picture
    assert shown is not None
    for count, one in enumerate(whole.rounds, 1):
        grown.rounds.append(one)
        moving.show(grown.snapshot(), pair)
        assert moving.picture is shown, "it is added to"
        assert (shown.picture.count, shown.picture.over) == (count, False)
    moving.show(whole, pair)
    assert moving.picture is shown
    assert (shown.picture.count, shown.picture.over) == (len(whole.rounds), True)
    # after a reset numbers begin anew: the same number is another run
    other = replace(whole, rounds=[replace(one) for one in whole.rounds])
    moving.show(other, pair)
    assert moving.picture is not shown


def test_an_open_moving_picture_follows_a_run(lab: LiveLab, pair: Pair) -> None:
    moving, tabs = lab.view.moving, lab.view._tabs
    tabs.selected_index = tabs.children.index(moving.box)
    lab.controls.set(new_tokens=64, method="autoregressive")
    lab.run()
    until(
        lambda: moving.picture is not None and moving.picture.picture.count > 2,
        "rounds are in the picture",
    )
    assert lab.runner.busy, "while the run goes on"
    assert moving.picture is not None
    assert not moving.picture.picture.over
    lab.stop()
    assert lab.wait(SECONDS)
    assert moving.picture.picture.over
    assert moving.picture.picture.count == len(lab.records[0].rounds)


def test_other_machines_are_a_tab_that_follows_the_panel(lab: LiveLab) -> None:
    tab, tabs = lab.view.elsewhere, lab.view._tabs
    assert tab.what_if is None
    lab.elsewhere("B1", machine="h200")
    assert tabs.children[tabs.selected_index] is tab.box
    assert tab.what_if is not None
    assert tab.what_if.controls.values["machine"] == "h200"
    lab.controls.set(gamma=5)
    assert tab.what_if.controls.values["gamma"] == 5
    tabs.selected_index = 0
    lab.controls.set(gamma=6)
    assert tab.what_if.controls.values["gamma"] == 5, "nobody looks"
    tabs.selected_index = tabs.children.index(tab.box)
    assert tab.what_if.controls.values["gamma"] == 6
    with pytest.raises(ValueError, match="machine"):
        lab.elsewhere("B1", machine="a stone")
