"""When the live panel calls this machine slower than it was, by given times of steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from mspeckv import Pass, Round, RunConfig, RunSummary, Sampling, stream
from mspeckv.testing import SMALL, tiny_pair, tiny_prompt
from mspeckv.whatif import HARDWARE
from mspeckv.whatif.machines import MeasuredPasses
from mspeckv_widgets.panels.machine import DEFAULT_SHAPE, Machine
from mspeckv_widgets.panels.prediction import Model
from mspeckv_widgets.record import RunRecord, Setting

TABLE = MeasuredPasses(3, (1, 2), (10, 20), ((10.0, 10.0), (10.0, 10.0)), 8)
"""10 ms, whatever is read."""
OWN = (1.0, 1.08, 1.21)
"""Medians of a calibration's own three runs, in times of the table."""
# milliseconds of a pass that took 10 when it was calibrated
ALONE = (10.4, 9.9, 11.2, 10.8, 10.1, 13.0, 10.6)
WITH_A_BROWSER = (14.2, 15.9, 13.8, 16.4, 15.1, 22.7, 14.6)
BUSIER_BROWSER = (16.1, 15.8, 17.3, 15.2, 16.9, 31.0, 16.4)
WITH_TWO_LOOPS = (27.5, 21.9, 34.1, 30.2, 24.8, 41.0, 28.3)
WITH_LOOPS_ALONE = (21.0, 19.4, 23.8, 20.2, 21.7, 29.9, 20.6)


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


def with_steps(run: RunRecord, ms: Sequence[float]) -> RunRecord:
    """The run as if its steps had taken so long."""
    passes = tuple(Pass(1, "verify", 1, 360, 0.0, one) for one in ms)
    rounds: list[Round] = [replace(run.rounds[0], passes=passes, transfers=())]
    summary = run.summary
    assert isinstance(summary, RunSummary)
    return replace(run, rounds=rounds, summary=replace(summary))


@pytest.mark.parametrize(
    "runs",
    [
        (ALONE, ALONE),
        (WITH_A_BROWSER,),
        (WITH_A_BROWSER, BUSIER_BROWSER, WITH_A_BROWSER),
        (ALONE, WITH_A_BROWSER, BUSIER_BROWSER),
    ],
)
def test_a_browser_alone_is_no_slower_machine(
    machine: Machine, run: RunRecord, runs: Sequence[Sequence[float]]
) -> None:
    records: list[RunRecord] = []
    for steps in runs:
        records.insert(0, with_steps(run, steps))
        assert machine.slower(records) == ""


@pytest.mark.parametrize("before", [(), (ALONE,), (WITH_A_BROWSER,), (WITH_TWO_LOOPS,) * 4])
@pytest.mark.parametrize("steps", [WITH_TWO_LOOPS, WITH_LOOPS_ALONE])
def test_two_busy_loops_are_said_each_time(
    machine: Machine, run: RunRecord, before: Sequence[Sequence[float]], steps: Sequence[float]
) -> None:
    records: list[RunRecord] = []
    for one in before:
        records.insert(0, with_steps(run, one))
        machine.slower(records)
    records.insert(0, with_steps(run, steps))
    said = machine.slower(records)
    assert "times slower than when it was calibrated" in said
    # once they have ended, so has the warning
    records.insert(0, with_steps(run, WITH_A_BROWSER))
    assert machine.slower(records) == ""


def test_what_is_said_is_against_the_calibrations_median(machine: Machine, run: RunRecord) -> None:
    assert "2.6 times slower" in machine.slower([with_steps(run, WITH_TWO_LOOPS)])


def test_a_calibration_that_jittered_warns_later(machine: Machine, run: RunRecord) -> None:
    slow = with_steps(run, WITH_LOOPS_ALONE)
    assert machine.slower([slow])
    machine.model.machine = replace(machine.model.machine, own=(1.0, 1.1, 1.9))
    again = with_steps(run, WITH_LOOPS_ALONE)
    assert machine.slower([again]) == ""


def test_a_run_at_work_is_not_judged(machine: Machine, run: RunRecord) -> None:
    quick, slow = with_steps(run, ALONE), with_steps(run, WITH_TWO_LOOPS)
    assert machine.slower([replace(slow, summary=None), quick]) == ""
    assert machine.slower([slow, quick])
