"""Checkers of labs 06 and 07, and the plan's view: wrong answers get a reason, right ones pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mspeckv import plan, what_if
from mspeckv.settings import METHODS
from mspeckv_study.whatif import HARDWARE, MODELS, origin_machine
from mspeckv_study.whatif.origin import cells
from mspeckv_study.whatif.search import DevicePlan
from mspeckv_widgets import PlanView
from mspeckv_widgets.course.exercise import Verdict, find_exercises, judge
from mspeckv_widgets.course.exercises import lab07
from mspeckv_widgets.course.exercises.lab06 import LAUNCHES, published_passes

CARD: dict[str, Any] = {"prefill": 32768, "gpu_gb": 24, "link_gbps": 11.3}


def verdict(lab: str, name: str, answer: Any) -> Verdict:
    return judge(find_exercises(lab)[name], answer)


@pytest.fixture(scope="module")
def planned() -> DevicePlan:
    return plan("llama-2-7b", "h100", **CARD)


def test_bytes_over_bandwidth_is_below_the_model() -> None:
    def bound(weights: float, kv: float, gbps: float) -> float:
        return (weights + kv) / gbps / 1e6

    assert verdict("06_what_if", "e1", bound).passed
    assert not verdict("06_what_if", "e1", lambda w, k, g: (w + k) / g / 1e9).passed
    assert "no answer yet" in verdict("06_what_if", "e1", lambda w, k, g: ...).message
    shape, machine = MODELS["llama-2-7b"], HARDWARE["h100"]
    weights = 2 * (shape.layers * shape.layer_params + shape.head_params)
    kv = shape.layers * shape.kv(machine.torch_dtype).token_bytes * (32768 + 128)
    found = what_if("llama-2-7b", "h100", method="autoregressive", prefill=32768, on_chip=32)
    assert 0.5 < bound(weights, kv, machine.memory_gbps) / found.ms_per_token < 1


def test_where_arithmetic_takes_over() -> None:
    machine = HARDWARE["h100"]
    right = machine.matrix_gflops / machine.memory_gbps
    assert verdict("06_what_if", "e2", right).passed
    assert "2 operations" in verdict("06_what_if", "e2", 2 * right).message
    assert "too small" in verdict("06_what_if", "e2", 9).message


def test_a_pass_that_streams() -> None:
    def right(held: int, streamed: int, compute: float, transfer: float) -> float:
        if not streamed:
            return held * compute
        return (held + 1) * compute + transfer + (streamed - 1) * max(compute, transfer)

    assert verdict("06_what_if", "e3", right).passed
    no_fill = verdict("06_what_if", "e3", lambda h, s, c, t: h * c + s * max(c, t))
    assert "is right" in no_fill.message
    always = verdict("06_what_if", "e3", lambda h, s, c, t: (h + 1) * c + t + (s - 1) * max(c, t))
    assert not always.passed, "nothing is waited for where nothing is streamed"


def least_squares(power: float) -> Any:
    """A fit by least squares of errors over ``ms ** power``."""

    def fit(streamed: Any, ms: Any) -> tuple[float, float]:
        slope, start = np.polyfit(streamed, ms, 1, w=ms**-power)
        return 1e3 * start / LAUNCHES, 1e-6 / slope

    return fit


def test_a_fitted_machine_is_judged_by_cells_that_it_never_saw() -> None:
    found, worse = (verdict("06_what_if", "e4", least_squares(power)) for power in (0, 1))
    assert found.passed, found.message
    assert found.score is not None
    assert (found.score.kind, found.score.less_is_better) == ("modelled", True)
    fair = [abs(cell.error) for cell in cells() if cell.counts]
    # the model's own fit, rounded as the score is
    assert found.score.value == pytest.approx(100 * float(np.median(fair)), abs=0.01)
    assert f"over {len(fair)} cells" in found.message.lower()
    assert worse.passed, "it meets the four latencies as well"
    assert worse.score is not None
    assert worse.score.value > 2 * found.score.value
    there = origin_machine()
    assert least_squares(0)(*published_passes()) == pytest.approx(
        (there.launch_us, there.link_gbps)
    )


def test_a_fit_that_is_none_is_told_with_what_was_tried() -> None:
    def message(fit: Any) -> str:
        found = verdict("06_what_if", "e4", fit)
        assert not found.passed
        return found.message

    known = origin_machine()
    # a machine that is known beforehand is no fit
    assert "another one" in message(lambda streamed, ms: (known.launch_us, known.link_gbps))
    swapped = verdict("06_what_if", "e4", lambda *case: least_squares(0)(*case)[::-1])
    assert swapped.attempt is not None
    assert swapped.attempt.wanted == "(10.0, 20.0)"

    def lifted(streamed: Any, ms: Any) -> tuple[float, float]:
        """Exact where all points lie on a line, and far off where they do not."""
        slope, start = np.polyfit(streamed, ms, 1)
        beside = np.abs(ms - start - slope * streamed).max()
        return 1e3 * (start + 10 * beside) / LAUNCHES, 1e-6 / slope

    assert "missed by" in message(lifted)
    assert "another one" in message(lambda streamed, ms: 3)
    assert "another one" in message(lambda streamed, ms: (-1.0, 5.0))
    assert "no answer yet" in message(lambda streamed, ms: (..., ...))
    assert "a function" in message(8.5)


def test_layers_that_fit() -> None:
    def bytes_of(count: int) -> int:
        found = what_if(
            "llama-2-7b", "h100", method="autoregressive", draft=None, prefill=32768,
            on_chip=count,
        )  # fmt: skip
        return int(found.device_bytes)

    most = max(count for count in range(33) if bytes_of(count) <= 24e9)
    assert verdict("07_plan_your_gpu", "e1", most).passed
    assert not verdict("07_plan_your_gpu", "e1", most + 1).passed


def best_of(gpu_gb: float, link_gbps: float, widths: tuple[Any, ...]) -> dict[str, Any]:
    """A search of one's own over layers; lengths are few."""
    names, tried = ("on_chip", "resident", "gamma", "draft_gamma"), []
    rows = [
        (chip, kept, gamma, 1)
        for chip in range(33) for kept in range(33 - chip) for gamma in (2, 4, 8, 16)
    ]  # fmt: skip
    for method in METHODS:
        for bits in widths:
            kind: dict[str, Any] = {
                "method": method, "bits": "full" if method == "triforce" else bits,
            }  # fmt: skip
            found = what_if(
                "llama-2-7b", "h100", prefill=32768, link_gbps=link_gbps, budget=4096,
                control=False, **kind, **dict(zip(names, np.array(rows).T, strict=True)),
            )  # fmt: skip
            ms = np.where(found.device_bytes <= gpu_gb * 1e9, found.ms_per_token, np.inf)
            place = dict(zip(names, rows[int(ms.argmin())], strict=True))
            tried.append((float(ms.min()), kind | place))
    return min(tried, key=lambda one: one[0])[1]


def test_layers_are_placed_about_as_well_as_the_planner_does() -> None:
    found = verdict("07_plan_your_gpu", "e2", best_of)
    assert found.passed, found.message
    assert found.score is not None
    assert (found.score.kind, found.score.less_is_better) == ("modelled", True)
    planners = [
        plan(
            "llama-2-7b", "h100", prefill=32768, gpu_gb=gpu_gb, link_gbps=link,
            min_acceptance=0.9 if 4 in widths else 0.99,
        ).choice.ms_per_token
        for gpu_gb, link, widths in lab07.CARDS
    ]  # fmt: skip
    assert found.score.value == pytest.approx(float(np.exp(np.mean(np.log(planners)))), rel=0.05)


def test_a_place_that_will_not_do_is_told() -> None:
    def message(**setting: Any) -> str:
        return verdict("07_plan_your_gpu", "e2", lambda *card: setting).message

    assert "GB (modelled)" in message(method="vanilla", bits="full", on_chip=32, gamma=2)
    slow = message(method="autoregressive", bits="full")
    assert "24 GB, a link of 11.3 GB/s" in slow
    assert "can be had (modelled)" in slow
    assert "none of the allowed" in message(method="vanilla", bits=2)
    assert "return a dict of method" in message(method="vanilla", bits=4, ahead=9)
    assert "return a dict of method" in message(on_chip=3)
    assert "no answer yet" in verdict("07_plan_your_gpu", "e2", lambda *card: ...).message
    asks = verdict("07_plan_your_gpu", "e2", lambda *card: {"ms": plan(*card)})
    assert "asks the planner" in asks.message


def test_a_front() -> None:
    def right(settings: list[tuple[float, float]]) -> list[tuple[float, float]]:
        def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
            return a != b and a[0] <= b[0] and a[1] <= b[1]

        return [one for one in settings if not any(beats(other, one) for other in settings)]

    assert verdict("07_plan_your_gpu", "e3", right).passed
    assert "beaten" in verdict("07_plan_your_gpu", "e3", lambda s: s).message
    assert "missing" in verdict("07_plan_your_gpu", "e3", lambda s: [min(s)]).message
    assert "pairs" in verdict("07_plan_your_gpu", "e3", lambda s: [1, 2]).message
    assert "no answer yet" in verdict("07_plan_your_gpu", "e3", lambda s: ...).message


def test_what_paid(planned: DevicePlan) -> None:
    control = planned.choice.prediction.equal_memory
    assert control is not None
    plain = planned.best["autoregressive"].ms_per_token
    assert verdict("07_plan_your_gpu", "e4", control.ms_per_token / plain).passed
    whole = control.ms_per_token / planned.choice.ms_per_token
    assert "whole gain" in verdict("07_plan_your_gpu", "e4", whole).message


def test_a_plan_is_drawn_whole(planned: DevicePlan) -> None:
    view = PlanView(planned)
    *fronts, star = view.figure.data
    assert sum(len(one.x) for one in fronts) == len(planned.front)
    assert {one.name.split()[0] for one in fronts} <= set(METHODS)
    assert star.y[0] == planned.choice.ms_per_token
    assert star.x[0] * 1e9 == pytest.approx(planned.choice.device_bytes)
    assert all("modelled" in one.name for one in view.figure.data)
    assert "modelled" in view.figure.layout.xaxis.title.text
    assert "modelled" in view.figure.layout.yaxis.title.text
    table = view._table.value
    for one in planned.best.values():
        assert f"{one.ms_per_token:.2f}" in table
    assert "(modelled)" in table
