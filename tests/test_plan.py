"""The planner against brute force, and its printed account of one GPU."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from mspeckv.settings import WIDTHS, Width
from mspeckv_study.cli import main
from mspeckv_study.whatif import MODELS, Acceptance, ModelShape, what_if
from mspeckv_study.whatif.acceptance import likely_acceptance
from mspeckv_study.whatif.answers import plan_text
from mspeckv_study.whatif.search import (
    WIDTH_ACCEPTANCE,
    DevicePlan,
    Grid,
    budget_acceptance,
    plan,
)

ACCEPTANCE = Acceptance(0.3, 0.85, 0.25)
SMALL = Grid(budgets=(256, 1024), gammas=(2, 5, 9), draft_gammas=(1, 3))


def small_model() -> ModelShape:
    """Five layers of a Llama-2-7B."""
    whole = MODELS["llama-2-7b"]
    sizes = {part.name: getattr(whole, part.name) for part in fields(whole)}
    params = 5 * whole.layer_params + 2 * whole.head_params + whole.hidden
    return ModelShape(**{**sizes, "name": "five layers", "layers": 5, "own_params": params})


def settings(layers: int, grid: Grid, least: float) -> Iterator[dict[str, Any]]:
    """Every setting, one by one, in the plainest way."""
    for method, bits, on_chip, resident, budget, gamma, inner in itertools.product(
        grid.methods, grid.bits, range(layers + 1), range(layers + 1), grid.budgets,
        grid.gammas, grid.draft_gammas,
    ):  # fmt: skip
        if on_chip + resident > layers or WIDTH_ACCEPTANCE[bits] < least:
            continue
        if method == "triforce" and bits != "full":
            continue
        yield {
            "method": method, "bits": bits, "on_chip": on_chip, "resident": resident,
            "budget": budget, "gamma": gamma, "draft_gamma": inner,
        }  # fmt: skip


def rate_at(budget: int, grid: Grid) -> Acceptance:
    rate = budget_acceptance(0.85, budget, max(grid.budgets))
    return Acceptance(0.3, float(rate), 0.25)


@pytest.mark.parametrize("gpu_gb", [6.25, 6.4, 6.8, 9.0])
def test_the_choice_is_that_of_brute_force(gpu_gb: float) -> None:
    shape = small_model()
    asked: dict[str, Any] = {"prefill": 16384, "new_tokens": 64, "link_gbps": 11.3}
    grid = Grid(bits=(8, 4), methods=SMALL.methods, budgets=(256, 1024), gammas=(2, 9),
                draft_gammas=(1, 3))  # fmt: skip
    found = plan(shape, "a10g", gpu_gb=gpu_gb, acceptance=ACCEPTANCE, grid=grid, **asked)
    best, least = np.inf, []
    for one in settings(5, grid, 0.9):
        here = what_if(shape, "a10g", acceptance=rate_at(one["budget"], grid), control=False,
                       **asked, **one)  # fmt: skip
        if here.device_bytes <= gpu_gb * 1e9:
            best = min(best, here.ms_per_token)
            least.append((here.device_bytes, here.ms_per_token))
    assert found.choice.ms_per_token == pytest.approx(best, rel=1e-9)
    assert found.choice.device_bytes <= gpu_gb * 1e9
    # nothing on the front is beaten, and everything else is
    front = [(one.device_bytes, one.ms_per_token) for one in found.front]
    for size, ms in least:
        assert any(s <= size and t <= ms * (1 + 1e-9) for s, t in front)
    for (size, ms), (more, faster) in itertools.pairwise(front):
        assert more > size
        assert faster < ms
    assert front[-1][1] == pytest.approx(best, rel=1e-9)


def whole_grid(model: str, prefill: int, room: float, link: float) -> Iterator[float]:
    """Least time of each method, width, budget and inner length, over all placements."""
    grid = Grid()
    places = [(k, r) for k in range(33) for r in range(33 - k)]
    on_chip, resident, gamma = np.array([(k, r, g) for k, r in places for g in grid.gammas]).T
    for method, bits, budget, inner in itertools.product(
        grid.methods, ("full", 8, 4), grid.budgets, grid.draft_gammas
    ):
        nested = method in ("triforce", "mspeckv")
        if not nested and (budget, inner) != (grid.budgets[0], grid.draft_gammas[0]):
            continue
        if method == "triforce" and bits != "full":
            continue
        likely = likely_acceptance(model, "llama-68m", method, prefill)
        middle = budget_acceptance(float(np.asarray(likely.middle_full)), budget, 4096)
        found = what_if(
            model, method=method, prefill=prefill, link_gbps=link, control=False, bits=bits,
            budget=budget, draft_gamma=inner, gamma=gamma,
            on_chip=on_chip, resident=resident,
            acceptance=Acceptance(likely.draft_middle, middle, likely.draft_full),
        )  # fmt: skip
        fits = found.device_bytes <= room
        yield float(found.ms_per_token[fits].min()) if fits.any() else np.inf


@pytest.fixture(scope="module")
def big() -> DevicePlan:
    return plan("llama-2-7b", prefill=32768, gpu_gb=24, link_gbps=11.3)


def test_llama_2_7b_at_32k_on_24_gb_is_optimal_and_explained(big: DevicePlan) -> None:
    choice = big.choice
    assert choice.device_bytes <= 24e9
    best = min(whole_grid("llama-2-7b", 32768, 24e9, 11.3))
    assert choice.ms_per_token == pytest.approx(best, rel=1e-9)
    text = plan_text(big)
    assert "modelled" in text
    assert f"{choice.device_bytes / 1e9:.3f} GB" in text
    parts = choice.prediction.memory.parts
    assert sum(parts.values()) == choice.device_bytes
    for name, size in parts.items():
        assert size == 0 or name in text


def test_the_choice_can_be_run(big: DevicePlan) -> None:
    choice = big.choice
    again = what_if(
        "llama-2-7b", method=choice.method, prefill=32768, link_gbps=11.3, policy=choice.policy,
        speculation=choice.speculation,
    )  # fmt: skip
    assert again.device_bytes == choice.device_bytes
    assert choice.on_chip + choice.resident + choice.offloaded == 32


def test_more_memory_or_a_faster_link_is_never_slower() -> None:
    shape = small_model()
    by_memory = [
        plan(shape, "a10g", gpu_gb=gb, link_gbps=11.3, prefill=16384, grid=SMALL).choice
        for gb in (6.25, 6.5, 7.0, 10)
    ]
    by_link = [
        plan(shape, "a10g", gpu_gb=6.4, link_gbps=g, prefill=16384, grid=SMALL).choice
        for g in (1, 10, 50)
    ]
    for row in (by_memory, by_link):
        assert all(b.ms_per_token <= a.ms_per_token for a, b in itertools.pairwise(row))


def test_the_bound_on_quality_rules_widths_out() -> None:
    shape = small_model()
    for bound, allowed in ((0.9, {"full", 8, 4}), (0.99, {"full", 8}), (1.0, {"full"})):
        found = plan(shape, "a10g", gpu_gb=7, prefill=16384, min_acceptance=bound, grid=SMALL)
        assert {one.bits for one in found.front} <= allowed
    assert set(WIDTH_ACCEPTANCE) == set(WIDTHS)
    own: dict[Width, float] = {"full": 1.0, 8: 0.2, 4: 0.2, 3: 0.2, 2: 0.99}
    found = plan(shape, "a10g", gpu_gb=7, prefill=16384, width_acceptance=own, grid=SMALL)
    assert {one.bits for one in found.front} <= {"full", 2}


def test_acceptance_falls_with_the_budget() -> None:
    rates = budget_acceptance(0.91, np.array([1024, 512, 256]), 1024)
    assert rates == pytest.approx([0.91, 0.875, 0.826], abs=0.002)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"gpu_gb": 0.5}, "smallest setting needs"),
        ({"gpu_gb": -1}, "gpu_gb"),
        ({"link_gbps": 0}, "link_gbps"),
        ({"prefill": 1}, "prefill"),
        ({"new_tokens": 0}, "new_tokens"),
        ({"min_acceptance": 1.5}, "min_acceptance"),
        ({"grid": Grid(bits=(2,))}, "no width"),
        ({"machine": "abacus"}, "hardware"),
        ({"model": "llama-9"}, "model"),
    ],
)
def test_bad_questions_are_refused(asked: dict[str, Any], named: str) -> None:
    given: dict[str, Any] = {"model": small_model(), "machine": "a10g", "grid": SMALL, **asked}
    with pytest.raises(ValueError, match=named):
        plan(given.pop("model"), given.pop("machine"), **given)


def test_bad_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="methods"):
        Grid(methods=("magic",))
    with pytest.raises(ValueError, match="gammas"):
        Grid(gammas=())


def test_the_command_prints_the_plan(capsys: pytest.CaptureFixture[str], big: DevicePlan) -> None:
    asked = ["--prefill", "32768", "--gpu-gb", "24", "--link-gbps", "11.3"]
    assert main(["plan", "--target", "llama-2-7b", *asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["label"] == "modelled"
    assert found["choice"]["ms_per_token"] == pytest.approx(big.choice.ms_per_token)
    memory = found["choice"]["prediction"]["memory"]
    parts = [
        size for name, size in memory.items()
        if name.endswith("_bytes") and not name.startswith(("peak", "kv_", "offloaded"))
    ]  # fmt: skip
    assert sum(parts) == memory["peak_device_bytes"] <= 24e9
    assert main(["plan", "--gpu-gb", "5"]) == 2
    error = capsys.readouterr().err
    assert "smallest setting needs" in error
    assert len(error.strip().splitlines()) == 1
