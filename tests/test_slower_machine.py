"""When the live panel calls this machine slower than it was, by recorded times of passes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from mspeckv import Pass, Round, RunConfig, RunSummary, Sampling, stream
from mspeckv.testing import SMALL, tiny_pair, tiny_prompt
from mspeckv_study.whatif import HARDWARE
from mspeckv_study.whatif.machines import MeasuredPasses
from mspeckv_widgets.panels.machine import DEFAULT_SHAPE, DRAWN, SLOWER, Machine
from mspeckv_widgets.panels.prediction import Model
from mspeckv_widgets.record import RunRecord, Setting

TABLE = MeasuredPasses(3, (1, 2), (10, 20), ((10.0, 10.0), (10.0, 10.0)), 8)
"""10 ms, whatever is read."""
RECORDED = json.loads(Path(__file__).with_name("panel_steps.json").read_text(encoding="utf-8"))
"""Times of passes of real runs, in times of a calibrated one: `tests.browser.record_steps`."""
OWN = tuple(RECORDED["own"])
"""Medians of the calibration's own three runs."""
QUIET = (*RECORDED["alone"], *RECORDED["browser"])


def typical(place: str) -> Sequence[float]:
    """The run of a place whose median is their middle one."""
    runs: list[list[float]] = RECORDED[place]
    return sorted(runs, key=median)[len(runs) // 2]


@pytest.fixture(scope="module")
def run() -> RunRecord:
    """A finished run of a tiny pair."""
    config = RunConfig("mspeckv", 8, speculation=SMALL, sampling=Sampling(0, stop_at_eos=False))
    record = RunRecord(1, Setting("", 40, config))
    for event in stream(tiny_pair(), tiny_prompt(), config):
        record.add(event)
    return record


@pytest.fixture
def machine() -> Machine:
    """A panel's machine, calibrated."""
    made = Machine(None)
    known = replace(HARDWARE["laptop-cpu"], passes={"target": TABLE, "draft": TABLE}, own=OWN)
    made.model = Model(DEFAULT_SHAPE, known)
    return made


def with_steps(run: RunRecord, times: Sequence[float]) -> RunRecord:
    """The run as if its passes had taken so many times as long as calibrated ones."""
    passes = tuple(Pass(1, "verify", 1, 360, 0.0, 10 * one) for one in times)
    rounds: list[Round] = [replace(run.rounds[0], passes=passes, transfers=())]
    summary = run.summary
    assert isinstance(summary, RunSummary)
    return replace(run, rounds=rounds, summary=replace(summary))


def test_a_browser_alone_is_no_slower_machine(machine: Machine, run: RunRecord) -> None:
    records: list[RunRecord] = []
    for times in (*QUIET, *reversed(QUIET)):
        records.insert(0, with_steps(run, times))
        assert machine.slower(records) == ""


def test_what_a_browser_costs_is_as_recorded() -> None:
    seen = [median(times) / median(OWN) for times in RECORDED["browser"]]
    assert min(seen) <= DRAWN <= SLOWER * max(seen)


@pytest.mark.parametrize("place", ["loops", "browser and loops"])
def test_two_busy_loops_are_said_each_time(machine: Machine, run: RunRecord, place: str) -> None:
    records: list[RunRecord] = []
    said = 0
    for times in RECORDED[place]:
        records.insert(0, with_steps(run, times))
        said += "times slower than when it was calibrated" in machine.slower(records)
        # once they have ended, so has the warning
        records.insert(0, with_steps(run, typical("browser")))
        assert machine.slower(records) == ""
    # one run beside loops alone was hardly slowed: Linux gave it the processor
    assert said >= len(RECORDED[place]) - (place == "loops")


def test_what_is_said_is_against_the_calibrations_median(machine: Machine, run: RunRecord) -> None:
    times = typical("browser and loops")
    said = re.search(r"now (\d\.\d) times", machine.slower([with_steps(run, times)]))
    assert said
    assert float(said[1]) == pytest.approx(median(times) / median(OWN), abs=0.06)


def test_a_calibration_that_jittered_warns_later(machine: Machine, run: RunRecord) -> None:
    times = typical("loops")
    assert machine.slower([with_steps(run, times)])
    machine.model.machine = replace(machine.model.machine, own=(1.0, 1.1, 2.1))
    assert machine.slower([with_steps(run, times)]) == ""


def test_a_run_at_work_is_not_judged(machine: Machine, run: RunRecord) -> None:
    quick, slow = with_steps(run, typical("alone")), with_steps(run, typical("browser and loops"))
    assert machine.slower([replace(slow, summary=None), quick]) == ""
    assert machine.slower([slow, quick])
