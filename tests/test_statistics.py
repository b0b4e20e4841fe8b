"""Means, paired comparisons and intervals, against numbers worked out otherwise."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from scipy import stats

from mspeckv import KVPolicy, Speculation, what_if
from mspeckv.experiments import Row
from mspeckv.experiments.matching import Match
from mspeckv.experiments.statistics import Table, bootstrap_interval, summarise
from mspeckv.whatif import Acceptance, rate_of
from mspeckv.whatif.published_tables import TABLES, MeanStd, published, read_table
from tests.experiment_rows import row


def one_table(rows: list[Row]) -> Table:
    (table,) = summarise(rows)
    return table


def test_spread_is_the_sample_standard_deviation() -> None:
    values = [8.5, 7.0, 12.25]
    spread = MeanStd.of(values)
    assert spread.mean == pytest.approx(statistics.mean(values))
    assert spread.std == pytest.approx(statistics.stdev(values))
    assert MeanStd.of([3.0]) == MeanStd(3.0, None)
    assert MeanStd(12.4, 4.4).text() == "12.40 ± 4.40"
    assert MeanStd(12.4).text(1) == "12.4"


def test_comparisons_are_paired_by_seed() -> None:
    # 10/5, 12/4, 9/6: ratios 2, 3 and 1.5; differences 5, 8 and 3
    ours, theirs = {1: 10.0, 2: 12.0, 3: 9.0}, {1: 5.0, 2: 4.0, 3: 6.0}
    rows = [row("A2", 0, "mspeckv", seed, speed) for seed, speed in ours.items()]
    rows += [row("A2", 0, "triforce", seed, speed) for seed, speed in theirs.items()]
    pair = one_table(rows).compare(0, "mspeckv", "triforce")
    assert pair is not None
    assert pair.speedup.mean == pytest.approx(6.5 / 3)
    assert pair.speedup.std == pytest.approx(statistics.stdev([2, 3, 1.5]))
    assert pair.delta.mean == pytest.approx(16 / 3)
    assert pair.delta.std == pytest.approx(statistics.stdev([5, 8, 3]))
    assert pair.interval is not None
    assert 1.5 <= pair.interval[0] < pair.speedup.mean < pair.interval[1] <= 3


def test_only_seeds_that_finished_both_are_compared() -> None:
    rows = [row("A2", 0, "mspeckv", seed, 10.0 * seed) for seed in (1, 2, 3)]
    rows += [row("A2", 0, "triforce", 2, 5.0), row("A2", 0, "triforce", 3, error="OSError: x")]
    pair = one_table(rows).compare(0, "mspeckv", "triforce")
    assert pair is not None
    assert (pair.seeds, pair.speedup, pair.interval) == ((2,), MeanStd(4.0, None), None)
    assert one_table(rows).compare(0, "mspeckv", "all-float") is None


@pytest.mark.parametrize("values", [[2.0, 3.0, 1.5], [1.0, 1.1, 1.3, 0.9, 1.2]])
def test_few_values_are_resampled_in_every_way(values: list[float]) -> None:
    found = bootstrap_interval(values)
    assert found == bootstrap_interval(values, seed=99), "nothing is left to chance"
    oracle = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=200_000, rng=np.random.default_rng(3)
    ).confidence_interval
    assert found == pytest.approx((oracle.low, oracle.high))


def test_many_values_are_resampled_by_chance() -> None:
    values = list(np.random.default_rng(7).normal(5.0, 1.0, 40))
    found = bootstrap_interval(values)
    assert found == bootstrap_interval(values)
    oracle = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=50_000, rng=np.random.default_rng(4)
    ).confidence_interval
    assert found == pytest.approx((oracle.low, oracle.high), abs=0.02)
    assert bootstrap_interval([4.0]) is None


def test_failed_trials_are_kept_apart_and_named() -> None:
    rows = [
        row("B1", 4, "mspeckv", 1, 10.0),
        row("B1", 4, "mspeckv", 2, error="RuntimeError: out of memory"),
        row("B1", 4, "mspeckv", 3, 0.0),
    ]
    table = one_table(rows)
    outcome = table.cells[4, "mspeckv"]
    assert outcome.speed == MeanStd(10.0, None)
    assert dict(outcome.failed) == {2: "RuntimeError: out of memory", 3: "it produced no token"}
    assert table.failed[0] == (4, "mspeckv", 2, "RuntimeError: out of memory")


def test_bytes_and_guesses_are_averaged_by_tier() -> None:
    rows = [
        row("A1", 512, "mspeckv", 1, accepted=4, link_bytes=100, kv_read={"0": 1, "2": 30}),
        row("A1", 512, "mspeckv", 2, accepted=6, link_bytes=300, kv_read={"0": 3, "2": 10}),
        row("A1", 512, "all-float", 1),
    ]
    table = one_table(rows)
    outcome = table.cells[512, "mspeckv"]
    assert outcome.link is not None
    assert (outcome.link.mean, outcome.link.std) == (200, statistics.stdev([100, 300]))
    assert {tier: one.mean for tier, one in outcome.kv_read.items()} == {0: 2, 2: 20}
    assert outcome.accepted is not None
    assert outcome.accepted.mean == 5
    assert table.cells[512, "all-float"].accepted is None, "it guesses nothing"


def test_a_tiers_time_is_per_token() -> None:
    table = one_table([row("B1", 4, "triforce", seed, tier2_ms=10.0 * seed) for seed in (1, 3)])
    # 7 ms of tier 1 over three tokens
    assert table.cells[4, "triforce"].tier_ms(1) == MeanStd.of([7 / 3, 7 / 3])
    assert table.cells[4, "triforce"].tier_ms(2) == MeanStd.of([10.0, 30.0])
    assert table.cells[4, "triforce"].tier_ms(0) is None


def test_hits_are_added_up_over_seeds() -> None:
    rows = [row("B1", 4, "mspeckv-lru", seed, residency=(seed, 9)) for seed in (1, 2)]
    assert one_table(rows).cells[4, "mspeckv-lru"].hit_rate == pytest.approx(3 / 21)
    assert one_table([row("B1", 4, "triforce")]).cells[4, "triforce"].hit_rate is None


def test_tables_are_by_experiment_and_preset_and_in_order() -> None:
    rows = [
        row("B1", 12, "all-float"),
        row("B1", 4, "triforce"),
        row("A1", 8192, "mspeckv", preset="origin", link="pcie"),
        row("B1", 4, "mspeckv"),
    ]
    first, second = summarise(rows)
    assert (first.experiment, first.preset, first.clock) == ("A1", "origin", "measured")
    assert (second.values, second.variants) == ((4, 12), ("triforce", "mspeckv", "all-float"))
    assert second.clock == "emulated"


def test_every_published_figure_is_there() -> None:
    for name in TABLES:
        paper = published(name)
        assert len(paper.values) >= 3
        for value in paper.values:
            for method in paper.methods:
                assert paper.speeds[value, method].std is not None
    a1 = published("A1")
    assert a1.methods == ("autoregressive", "vanilla", "triforce", "mspeckv")
    assert a1.speedups[32768, "mspeckv", "autoregressive"] == MeanStd(14.45)
    assert a1.accepted[8192, "vanilla"] == MeanStd(0.36, 0.02)
    a2 = published("A2")
    assert a2.speedups[0, "mspeckv", "triforce"] == MeanStd(1.09, 0.10)
    assert a2.accepted[16, "mspeckv"].mean == 6.04
    with pytest.raises(ValueError, match="use one of A1, A2, B1, B2"):
        published("A3")


def test_published_speedups_agree_with_published_speeds() -> None:
    """A ratio of means lies near the mean of ratios; A1's ratios are of one of three seeds."""
    for name in TABLES:
        paper = published(name)
        for (value, method, reference), speedup in paper.speedups.items():
            ratio = paper.speeds[value, method].mean / paper.speeds[value, reference].mean
            assert ratio == pytest.approx(speedup.mean, rel=0.2 if name == "A1" else 0.1)


def test_a_published_file_says_what_it_is() -> None:
    remark, rows = read_table("B1_on_chip_layers")
    assert remark.startswith("prefill 16384")
    assert [int(one["on_chip_layers"]) for one in rows] == [4, 8, 12, 16, 18]


def test_values_stand_for_the_published_ones_by_place() -> None:
    match = Match.of(one_table([row("B1", 15, "mspeckv"), row("B1", 9, "mspeckv")]))
    assert match.value(15) == 16
    assert match.speed(15, "mspeckv") == MeanStd(20.01, 2.47)
    assert match.value(9) is None
    assert match.speedup(9, "mspeckv", "triforce") is None
    assert match.references == ("triforce",)
    scaled = Match.of(one_table([row("A1", 2048, "mspeckv")]))
    assert scaled.speedup(2048, "mspeckv", "autoregressive") == MeanStd(14.45)
    assert scaled.references == ("autoregressive", "triforce")


def test_modelled_speeds_are_the_cost_models_for_the_published_machine() -> None:
    rows = [row("B1", value, name) for value in (12, 15) for name in ("mspeckv", "mspeckv-lru")]
    match = Match.of(one_table([*rows, row("B1", 12, "all-float"), row("B1", 9, "mspeckv")]))
    for variant, residency in (("mspeckv", "static"), ("mspeckv-lru", "lru")):
        found = match.modelled_speed(12, variant)
        assert found is not None
        # published values stand for ours by place: 12 for 12, 16 for 15
        expected = what_if(
            "llama-2-7b", "origin", method="mspeckv", prefill=16384, new_tokens=256, on_chip=12,
            resident=16, policy=KVPolicy(8, block=128, group=128, tail=0, residency=residency),
            speculation=Speculation(
                gamma=8, draft_gamma=1, budget=4096, refresh=0, sinks=16, window=240
            ),
            acceptance=Acceptance(rate_of(0.19, 8), rate_of(5.43, 8), rate_of(0.19, 8)),
        )  # fmt: skip
        assert found.mean == pytest.approx(expected.tokens_per_second)
    ratio = match.modelled_speedup(12, "mspeckv", "mspeckv-lru")
    assert ratio is not None
    assert ratio.mean > 1.2, "LRU finds nothing where not all layers fit"
    even = match.modelled_speedup(15, "mspeckv", "mspeckv-lru")
    assert even is not None
    assert even.mean == pytest.approx(1.0)
    assert match.modelled_speed(12, "all-float") is None
    assert match.modelled_speed(9, "mspeckv") is None
