"""Intervals, paired comparisons and the noise floor, against numbers worked out otherwise."""

from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mspeckv import KVPolicy, Speculation, what_if
from mspeckv_study.experiments import Row
from mspeckv_study.experiments.intervals import (
    CONFIDENCE,
    Ratio,
    Sample,
    best_rank,
    coverage,
    together,
)
from mspeckv_study.experiments.matching import match_rows
from mspeckv_study.experiments.noise import Noise, noise_floor
from mspeckv_study.experiments.statistics import Table, summarise
from mspeckv_study.whatif import Acceptance, rate_of
from mspeckv_study.whatif.published_tables import TABLES, MeanStd, published, read_table
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
    # 10/5, 12/4, 9/6: ratios 2, 3 and 1.5
    ours, theirs = {1: 10.0, 2: 12.0, 3: 9.0}, {1: 5.0, 2: 4.0, 3: 6.0}
    rows = [row("A2", 0, "mspeckv", seed, speed) for seed, speed in ours.items()]
    rows += [row("A2", 0, "triforce", seed, speed) for seed, speed in theirs.items()]
    pair, inverse = (
        one_table(rows).compare(0, *names)
        for names in (("mspeckv", "triforce"), ("triforce", "mspeckv"))
    )
    assert pair is not None
    assert inverse is not None
    assert pair.by_seed == pytest.approx({1: 2, 2: 3, 3: 1.5})
    assert pair.centre == pytest.approx(9 ** (1 / 3))
    assert pair.centre * inverse.centre == pytest.approx(1), "whichever is put on top"
    assert pair.text() == "2.08x (range of 3: 1.50 to 3.00)"


def test_only_seeds_that_finished_both_are_compared() -> None:
    rows = [row("A2", 0, "mspeckv", seed, 10.0 * seed) for seed in (1, 2, 3)]
    rows += [row("A2", 0, "triforce", 2, 5.0), row("A2", 0, "triforce", 3, error="OSError: x")]
    pair = one_table(rows).compare(0, "mspeckv", "triforce")
    assert pair is not None
    assert pair.text() == "4.00x (one run)"
    assert not pair.sure
    assert one_table(rows).compare(0, "mspeckv", "all-float") is None


@pytest.mark.parametrize("count", range(1, 25))
def test_an_intervals_coverage_is_the_binomials(count: int) -> None:
    for rank in range(1, count // 2 + 1):
        outside = 2 * stats.binom.cdf(rank - 1, count, 0.5)
        assert coverage(count, rank) == pytest.approx(1 - outside)
    rank = best_rank(count)
    if coverage(count, rank) >= CONFIDENCE:
        assert rank + 1 > count // 2 or coverage(count, rank + 1) < CONFIDENCE, "the narrowest"
    else:
        assert (rank, count < 6) == (1, True)


def test_ten_repeats_give_second_least_to_second_largest() -> None:
    sample = Sample({seed: float(seed) for seed in range(1, 11)})
    assert (sample.centre, sample.interval) == (5.5, (2.0, 9.0))
    assert sample.coverage == pytest.approx(1 - 22 / 1024)
    assert sample.text(0) == "6 [2, 9]"
    five = Sample({seed: float(seed) for seed in range(1, 6)})
    assert (five.interval, five.sure) == ((1.0, 5.0), False)
    assert five.coverage == pytest.approx(0.9375)
    assert five.text(0) == "3 (range of 5: 1 to 5)"


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Drawn 4000 times: skewed times, and ratios of runs that a busy machine slowed together."""
    draw = np.random.default_rng(11)
    held = {"median": 0, "ratio": 0, "range of 3": 0}
    sweeps = 4000
    for _ in range(sweeps):
        times = draw.lognormal(0.0, 0.4, 10)
        busy = draw.exponential(0.5, 10)
        ours, theirs = (
            Sample(dict(enumerate(size * np.exp(busy + draw.normal(0, 0.1, 10)))))
            for size in (3.0, 1.0)
        )
        ratio = ours.over(theirs)
        assert ratio is not None
        samples = Sample(dict(enumerate(times))), ratio, Sample(dict(enumerate(times[:3])))
        for name, sample, truth in zip(held, samples, (1.0, 3.0, 1.0), strict=True):
            low, high = sample.interval
            held[name] += low <= truth <= high
    # a standard deviation of such a share is 0.0023, of 0.75 it is 0.007
    assert held["median"] / sweeps == pytest.approx(coverage(10, 2), abs=0.008)
    assert held["ratio"] / sweeps == pytest.approx(coverage(10, 2), abs=0.008)
    assert held["range of 3"] / sweeps == pytest.approx(0.75, abs=0.025)


@pytest.mark.parametrize(
    ("ratios", "claimed", "noise", "verdict"),
    [
        ((1.2, 1.3), 1.0, 1.0, "shown"),
        ((1.2, 1.3), 1.0, 1.25, "not shown"),
        ((1.2, 1.3), 1.25, 1.0, "not shown"),
        ((1.2, 1.3), 1.4, 1.05, "contradicted"),
        ((0.7, 0.8), 1.0, 1.2, "contradicted"),
        ((0.9, 1.3), 1.0, 1.0, "not shown"),
    ],
)
def test_verdicts_are_of_intervals(
    ratios: tuple[float, float], claimed: float, noise: float, verdict: str
) -> None:
    ends = [*np.linspace(*ratios, 8)]
    ten = Ratio(dict(enumerate([ratios[0] / 2, *ends, ratios[1] * 2])))
    assert ten.interval == pytest.approx(ratios)
    assert ten.verdict(claimed, noise) == verdict
    three = Ratio({seed: ten.by_seed[seed] for seed in (4, 5, 6)})
    assert three.verdict(claimed, noise) == "not shown", "a range shows nothing"


def test_a_claim_about_several_places() -> None:
    assert together(["shown", "shown"]) == "shown"
    assert together(["shown", "not shown"]) == "not shown"
    assert together(["shown", "not shown", "contradicted"]) == "contradicted"


def test_cells_of_one_configuration_are_found_by_what_was_run() -> None:
    rows = [row("A1", 1024, "mspeckv", seed, 10.0 + seed) for seed in (1, 2, 3)]
    rows += [row("A2", 15, "mspeckv", seed, 11.0 + seed) for seed in (1, 2, 3)]
    rows += [row("B1", 15, "mspeckv", 1, 10.0), row("B1", 12, "mspeckv", 1, 99.0)]
    rows += [row("A2", at, "triforce", 1, 5.0 + at / 10) for at in (0, 8)]
    rows += [row("B1", 15, "mspeckv-lru", 1, 99.0), row("A1", 512, "mspeckv", 1, 99.0)]
    rows += [row("A1", 1024, "mspeckv-streamed", 1, 8.0), row("A2", 0, "mspeckv", 1, 9.0)]
    noise = noise_floor(rows)
    assert set(noise.groups) == {
        (("A1", 1024, "mspeckv"), ("A2", 15, "mspeckv"), ("B1", 15, "mspeckv")),
        (("A1", 1024, "mspeckv-streamed"), ("A2", 0, "mspeckv")),
        (("A2", 0, "triforce"), ("A2", 8, "triforce")),
    }
    # medians 12, 13, 10: 1.3; 9 over 8: 1.125; 5.8 over 5: 1.16
    assert noise.factor == pytest.approx(1.3)
    elsewhere = [
        replace(one, hardware={**one.hardware, "machine": "another"})
        for one in rows
        if (one.experiment, one.value) == ("A2", 15)
    ]
    rest = [one for one in rows if (one.experiment, one.value) != ("A2", 15)]
    assert noise_floor([*rest, *elsewhere]).factor == pytest.approx(1.2), "another machine's"
    assert noise_floor(rows[:3]) == Noise()


def test_failed_trials_are_kept_apart_and_named() -> None:
    rows = [
        row("B1", 4, "mspeckv", 1, 10.0),
        row("B1", 4, "mspeckv", 2, error="RuntimeError: out of memory"),
        row("B1", 4, "mspeckv", 3, 0.0),
    ]
    table = one_table(rows)
    outcome = table.cells[4, "mspeckv"]
    assert outcome.speed == Sample({1: 10.0})
    assert dict(outcome.failed) == {2: "RuntimeError: out of memory", 3: "it produced no token"}
    assert table.failed[0] == (4, "mspeckv", 2, "RuntimeError: out of memory")


def test_bytes_and_guesses_are_by_tier() -> None:
    rows = [
        row("A1", 512, "mspeckv", 1, accepted=4, link_bytes=100, kv_read={"0": 1, "2": 30}),
        row("A1", 512, "mspeckv", 2, accepted=6, link_bytes=300, kv_read={"0": 3, "2": 10}),
        row("A1", 512, "all-float", 1),
    ]
    table = one_table(rows)
    outcome = table.cells[512, "mspeckv"]
    assert outcome.link == Sample({1: 100, 2: 300})
    assert [outcome.kv_read(tier) for tier in (0, 1, 2)] == [
        Sample({1: 1, 2: 3}), None, Sample({1: 30, 2: 10}),
    ]  # fmt: skip
    assert outcome.accepted == Sample({1: 4, 2: 6})
    assert table.cells[512, "all-float"].accepted is None, "it guesses nothing"


def test_a_tiers_time_is_per_token_or_per_pass() -> None:
    table = one_table([row("B1", 4, "triforce", seed, tier2_ms=10.0 * seed) for seed in (1, 3)])
    cell = table.cells[4, "triforce"]
    # 7 ms of tier 1 over three tokens, in five passes
    assert cell.tier_ms(1) == Sample({1: 7 / 3, 3: 7 / 3})
    assert cell.tier_ms(1, per_pass=True) == Sample({1: 7 / 5, 3: 7 / 5})
    assert cell.tier_ms(2) == Sample({1: 10.0, 3: 30.0})
    assert cell.tier_ms(0) is None


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
    (match,) = match_rows([row("B1", 15, "mspeckv"), row("B1", 9, "mspeckv")])
    assert match.value(15) == 16
    assert match.speed(15, "mspeckv") == MeanStd(20.01, 2.47)
    assert match.value(9) is None
    assert match.speedup(9, "mspeckv", "triforce") is None
    assert match.references == ("triforce",)
    (scaled,) = match_rows([row("A1", 2048, "mspeckv")])
    assert scaled.speedup(2048, "mspeckv", "autoregressive") == MeanStd(14.45)
    assert scaled.references == ("autoregressive", "triforce")


def test_modelled_speeds_are_the_cost_models_for_the_published_machine() -> None:
    rows = [row("B1", value, name) for value in (12, 15) for name in ("mspeckv", "mspeckv-lru")]
    (match,) = match_rows([*rows, row("B1", 12, "all-float"), row("B1", 9, "mspeckv")])
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
    for other in ("all-float", "plain-int8", "mspeckv-streamed"):
        assert match.modelled_speed(12, other) is None
    assert match.modelled_speed(9, "mspeckv") is None
