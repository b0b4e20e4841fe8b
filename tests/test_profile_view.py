"""The views of a profile draw what the profile says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mspeckv import KVPolicy, Profile, Sampling, profile
from mspeckv_study.profiling import Bar, Ceilings, StepRow
from mspeckv_widgets import MemoryMap, Roofline, TierBreakdown, Timeline
from mspeckv_widgets.charts.theme import TIERS
from mspeckv_widgets.panels.profile_view import STEPS, longest_rest, overlap_ms, rows_html
from tests.random_models import random_pair, random_prompt

CEILINGS = Ceilings("cpu", "2", 5.0, 5.0, 10.0, 100.0, 2.0, 0.0)


@pytest.fixture(scope="module")
def taken() -> Profile:
    """A random pair over a slow link: fetches and waits are plain to see."""
    return profile(
        random_pair(), random_prompt(300), new_tokens=24, link=0.01, overhead=False,
        policy=KVPolicy(8, on_chip=1, resident=1, block=16),
        sampling=Sampling(0, stop_at_eos=False),
    )  # fmt: skip


def trace(view: Any, name: str) -> Any:
    (found,) = (one for one in view.figure.data if one.name == name)
    return found


def test_a_timeline_shows_every_range_and_transfer_of_its_round(taken: Profile) -> None:
    view = Timeline(taken, 1)
    one = taken.rounds[1]
    assert len(trace(view, "tier2/verify").x) == 1
    assert len(trace(view, "tier1/verify").x) == sum(p.tier == 1 for p in one.passes)
    moved = [t for t in one.transfers if t.purpose == "verify"]
    link = trace(view, "verify")
    assert list(link.y) == ["link"] * len(moved)
    assert sum(data[1] for data in link.customdata) == pytest.approx(
        sum(t.bytes for t in moved) / 1e6
    )
    assert all(start >= -1 for start in trace(view, "tier2/verify").base)
    assert link.marker.color not in {style.colour for style in TIERS.values()}
    assert "link was busy for" in view.table.value


def test_a_transfer_overlaps_what_is_computed_meanwhile(taken: Profile) -> None:
    shares = []
    for index in range(len(taken.rounds)):
        busy, hidden = overlap_ms(taken.timeline(index))
        if busy:
            shares.append(hidden / busy)
    assert shares
    # layers are fetched while lower tiers guess and other layers are computed
    assert max(shares) > 0.1
    assert min(shares) >= 0


def test_without_transfers_there_is_nothing_to_overlap() -> None:
    assert overlap_ms([Bar("compute", "tier2/verify", 0, 5, 0, 2)]) == (0, 0)


def test_the_breakdown_adds_up_to_the_wall(taken: Profile) -> None:
    view = TierBreakdown(taken)
    shown = sum(sum(one.x) for one in view.figure.data)
    assert shown == pytest.approx(taken.wall_ms)
    assert {one.name for one in view.figure.data} <= STEPS.keys()
    assert "not attributed" in view.table.value


def test_the_roofline_has_ceilings_and_a_point_per_kind_of_pass(taken: Profile) -> None:
    view = Roofline(taken, CEILINGS)
    ceiling, *points = view.figure.data
    assert max(ceiling.y) == 100.0
    assert ceiling.y[0] == pytest.approx(10.0 * ceiling.x[0])
    assert ceiling.x[1] == view.ridge == 10.0
    rows = [row for row in taken.rows if row.step.startswith("tier") and row.bytes]
    assert [point.name for point in points] == [row.step for row in rows]
    assert all(point.y[0] > 0 for point in points)
    assert "measured" in view.table.value
    assert "weights and KV (counted)" in view.figure.layout.xaxis.title.text


def test_a_points_place_counts_weights_and_kv(taken: Profile) -> None:
    view = Roofline(taken, CEILINGS)
    (draft,) = (row for row in taken.rows if row.step == "tier0/draft")
    kv = sum(one.kv_bytes for done in taken.rounds for one in done.passes if one.tier == 0)
    assert draft.bytes == draft.calls * taken.weights[0] + kv
    assert view.intensity["tier0/draft"] == pytest.approx(draft.gflop * 1e9 / draft.bytes)
    assert list(trace(view, "tier0/draft").x) == [view.intensity["tier0/draft"]]


def test_the_side_of_the_ridge_is_said(taken: Profile) -> None:
    steep = replace(CEILINGS, matrix_gflops=1e6)
    flat = replace(CEILINGS, matrix_gflops=1e-3)
    assert all("left of the ridge" in words for words in Roofline(taken, steep).sides)
    assert all("right of the ridge" in words for words in Roofline(taken, flat).sides)
    assert Roofline(taken, flat).sides[0] in Roofline(taken, flat).table.value


def test_the_memory_map_has_every_layer_once_and_their_bytes(taken: Profile) -> None:
    view = MemoryMap(taken.summary)
    layers = {one.name: list(one.x) for one in view.figure.data}
    assert layers == {"on-chip": [0], "resident": [1], "offloaded": [2, 3]}
    drawn = {one.name: 1e6 * sum(one.y) for one in view.figure.data}
    memory = taken.summary.memory
    assert drawn["on-chip"] == pytest.approx(memory.on_chip_bytes)
    assert drawn["resident"] == pytest.approx(memory.resident_bytes)
    assert drawn["offloaded"] == pytest.approx(memory.offloaded_bytes)
    assert view.figure.layout.yaxis.title.text == "MB of KV (modelled)"
    assert view.figure.layout.yaxis.visible is not False
    assert "modelled" in view.table.value


def test_the_longest_rest_lies_between_transfers() -> None:
    bars = [Bar("link", "verify, layer 0", *span, 0, 2, 9) for span in ((40, 5), (0, 10), (12, 4))]
    assert longest_rest(bars) == 24
    assert longest_rest([*bars, Bar("compute", "tier1/verify", 16, 24, 0, 1)]) == 24
    assert longest_rest([*bars, Bar("link", "verify, layer 1", 5, 33, 0, 2, 9)]) == 2
    assert longest_rest([]) == 0


def test_a_round_that_was_not_profiled_is_refused(taken: Profile) -> None:
    with pytest.raises(ValueError, match="round: 99 is not allowed"):
        Timeline(taken, 99)


def test_views_can_be_displayed(taken: Profile) -> None:
    views = (Timeline(taken), TierBreakdown(taken), Roofline(taken, CEILINGS))
    for view in (*views, MemoryMap(taken.summary)):
        assert "application/vnd.jupyter.widget-view+json" in view._repr_mimebundle_()


def test_a_gpus_own_milliseconds_have_a_column_where_there_are_any() -> None:
    row = StepRow(2, "tier2/verify", 3, 4.0, 2.0, 0.5, 0.0, 0.0, 0, 0.0)
    assert "device ms" not in rows_html([row])
    shown = rows_html([replace(row, device_ms=7.25)])
    assert "device ms" in shown
    assert "7.2" in shown
