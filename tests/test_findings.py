"""Findings and their verdicts, from rows whose figures are known; and of the stored rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mspeckv_study.experiments import Row, load_rows
from mspeckv_study.experiments.findings import Finding, findings
from mspeckv_study.experiments.intervals import Ratio
from mspeckv_study.experiments.matching import Match, match_rows
from mspeckv_study.experiments.statistics import cliff
from tests.experiment_rows import FACTORS, a1, a2, b1, b2, row


def match_of(rows: list[Row]) -> Match:
    (match,) = match_rows(rows)
    return match


def about(rows: list[Row], topic: str) -> Finding:
    """The one finding on a topic."""
    (found,) = (one for one in findings(match_of(rows)) if one.topic == topic)
    return found


def test_targets_are_judged_value_by_value() -> None:
    # 40/8 = 5, 36/4 = 9, 35/2.5 = 14, 28/2 = 14 against 4.75, 8.01, 12.94, 14.45
    found = about(a1(), "speed-up over autoregressive")
    assert found.verdict == "contradicted"
    assert "shown at 512, 1024, 1536 (5.00x to 14.00x; published 4.75x to 12.94x)" in found.text
    assert "contradicted at 2048 (14.00x [14.00, 14.00]; published 14.45x)" in found.text
    assert "a pass of tier 2 over a round's guesses takes 1.00x" in found.text, "why it may be less"
    # 2, 2.4, 3.5, 3.5 against 1.46, 2.13, 2.87, 3.69; without the last one all are shown
    assert about(a1(), "speed-up over triforce").verdict == "contradicted"
    shorter = about([one for one in a1() if one.value < 2048], "speed-up over triforce")
    assert shorter.verdict == "shown"
    assert "a pass of tier 2" not in shorter.text


def test_few_repeats_show_nothing() -> None:
    few = [one for one in a1() if one.seed <= 5]
    assert {one.verdict for one in findings(match_of(few))} == {"not shown", None}
    assert "5 repeats of a cell at least, too few for an interval" in about(few, "noise").text
    assert "an interval holds the median in 97.9%" in about(a1(), "noise").text


def test_order_holds_or_the_values_where_it_does_not_are_named() -> None:
    assert about(a1(), "order").verdict == "shown"
    assert "triforce over vanilla shown at 512, 1024, 1536, 2048" in about(a1(), "order").text
    swapped = [one for one in a1() if (one.value, one.variant) != (512, "vanilla")]
    swapped += [row("A1", 512, "vanilla", seed, 7.0 * factor) for seed, factor in FACTORS.items()]
    found = about(swapped, "order")
    assert found.verdict == "contradicted"
    assert "vanilla over autoregressive contradicted at 512 (0.88x [0.88, 0.88])" in found.text


def test_growth_with_the_context() -> None:
    # from 5 to 14 is 2.8 times; published 14.45 / 4.75 = 3.04
    found = about(a1(), "context")
    assert "2.80x [2.80, 2.80] as large (published 3.0x)" in found.text
    assert found.verdict == "shown"


def test_both_controls_are_judged_apart() -> None:
    # 40/20, 36/36, 35/35, 28/56
    equal, whole = about(a1(), "equal memory"), about(a1(), "all on device, float")
    assert equal.verdict == whole.verdict == "contradicted"
    assert "mspeckv over plain-int8: shown at 512 (2.00x" in equal.text
    assert "not shown at 1024, 1536 (1.00x)" in equal.text
    assert "contradicted at 512, 1024, 1536, 2048 (0.80x to 0.93x)" in whole.text
    assert "takes 1.00 times the KV memory (modelled)" in whole.text


def test_the_square_is_judged_side_by_side() -> None:
    names = {"plain-int8-streamed": 8.0, "mspeckv-streamed": 20.0, "autoregressive": 2.0}
    rows = [
        row("A1", 512, name, seed, speed * factor)
        for name, speed in {**names, "plain-int8": 16.0, "mspeckv": 19.0}.items()
        for seed, factor in FACTORS.items()
    ]
    found = {one.topic: one for one in findings(match_of(rows))}
    assert "4.00x" in found["packing, plain"].text
    assert "2.00x" in found["keeping, plain"].text
    assert "2.50x" in found["guessing, streamed"].text
    assert found["guessing, streamed"].verdict == "shown"
    # 19 over 20
    assert found["keeping, guessing"].verdict == "contradicted"
    assert "packing, guessing" not in found, "there is no triforce"


@pytest.mark.parametrize(
    ("alone", "full", "verdicts"),
    [
        # 2 times by packing, 1.04 times by residency: within the noise floor of 5 %
        (20.0, 20.8, ("shown", "not shown", "contradicted")),
        (10.0, 22.0, ("not shown", "shown", "shown")),
    ],
)
def test_quantization_and_residency_are_told_apart(
    alone: float, full: float, verdicts: tuple[str, ...]
) -> None:
    topics = "quantization alone", "residency", "residency or quantization"
    found = [about(a2(alone, full), topic) for topic in topics]
    assert tuple(one.verdict for one in found) == verdicts
    assert f"gives {alone / 10:.2f}x" in found[0].text
    assert "published 1.09 ± 0.10x" in found[0].text
    assert f"{full / alone:.2f}x" in found[1].text
    assert ("four bytes here and two there" in found[2].text) == (verdicts[2] != "shown")


def test_the_noise_floor_names_no_cell() -> None:
    """Finding them is an exercise; triforce's and plain-int8's differ by 5 % and not at all."""
    found = about(a2(), "noise").text
    assert "cells are in truth" in found
    assert "differ by up to 5%" in found
    assert "triforce" not in found
    assert "not known" in about([one for one in a1() if one.value == 512], "noise").text


def step(*ends: float) -> Ratio:
    """Ten repeats whose interval has these ends."""
    low, high = min(ends), max(ends)
    return Ratio(dict(enumerate([low / 2, low, *[(low + high) / 2] * 6, high, high * 2])))


def test_cliffs_are_judged_by_intervals() -> None:
    flat = step(1.0, 1.1)
    assert cliff({(4, 8): flat, (8, 12): flat, (12, 15): step(1.8, 2.0)}) == ((12, 15), "shown")
    wide = {(4, 8): flat, (8, 12): flat, (12, 15): step(1.2, 2.0)}
    assert cliff(wide) == ((12, 15), "not shown")
    rival = {(4, 8): flat, (8, 12): step(1.5, 1.7), (12, 15): step(1.8, 2.0)}
    assert cliff(rival) == ((12, 15), "not shown"), "another step is nearly as steep"
    assert cliff({(4, 8): flat, (8, 12): step(1.1, 1.3)})[1] == "contradicted"
    one = Ratio({1: 2.0})
    assert cliff({(4, 8): one, (8, 12): Ratio({1: 1.0})}) == ((4, 8), "not shown")


def test_b1_has_a_cliff_under_lru_alone() -> None:
    static, lru = about(b1(), "cliff, fixed places"), about(b1(), "cliff, LRU")
    assert (static.verdict, lru.verdict) == ("shown", "shown")
    # 45 over 40 ms of tier 2; 90 over 40
    assert "from 12 to 15 on-chip layers, 1.12x [1.12, 1.12] as fast" in static.text
    assert "A cliff under LRU? Tier 2's steepest step is from 12 to 15" in lru.text
    assert "2.25x [2.25, 2.25]" in lru.text
    assert "0%, 0%, 0%, 100%, 100%" in lru.text
    assert "1.84x between 12 and 16" in about(b1(), "cliff, published").text


def test_b1_the_other_way_round_is_contradicted() -> None:
    names = {"mspeckv": "mspeckv-lru", "mspeckv-lru": "mspeckv", "triforce": "triforce"}
    rows = [replace(one, variant=names[one.variant], key=f"{one.key}, renamed") for one in b1()]
    assert about(rows, "cliff, fixed places").verdict == "contradicted"
    assert about(rows, "cliff, LRU").verdict == "contradicted"


def test_output_length() -> None:
    rows = b2()
    assert about(rows, "output length").verdict == "shown"
    assert "shown at 16, 32, 48, 64, 96, 128 (2.00x)" in about(rows, "output length").text
    assert (
        "becomes 1.00x [1.00, 1.00] as large: a change is not shown" in about(rows, "change").text
    )
    slower = [
        row("B2", 128, "mspeckv", one.seed, 15 * FACTORS[one.seed])
        if (one.value, one.variant) == (128, "mspeckv")
        else one
        for one in rows
    ]
    assert "0.75x [0.75, 0.75] as large: a change is shown, a fall" in about(slower, "change").text


def test_failures_come_first() -> None:
    rows = [*b1(), row("B1", 4, "all-float", 1, error="MemoryError: 3 GB")]
    first, second, *_ = findings(match_of(rows))
    assert first.topic == "failed trials"
    assert "all-float at on-chip layers 4, seed 1: MemoryError: 3 GB" in first.text
    places = ", ".join(f"all-float at {value}" for value in (8, 12, 15, 17))
    assert second.text == f"No trial yet of {places}."


def test_the_stored_results_say_what_their_page_says() -> None:
    """Every speed-up in the page's tables, the noise floor, and what prose says of the rows."""
    folder = Path(__file__).resolve().parents[1] / "labs" / "results"
    rows = load_rows(folder)
    assert all(row.ok for row in rows)
    matches = {one.table.experiment: one for one in match_rows(rows)}
    page = (folder / "README.md").read_text(encoding="utf-8")
    name, values, told = "", [""], 0
    for line in page.splitlines():
        first, *cells = (part.strip() for part in line.strip("|").split("|"))
        if first[:3] in {f"{one}," for one in matches}:
            name, values = first[:2], cells
        elif "` over `" in first:
            variant, reference = first.replace("`", "").split(" over ")
            along = matches[name].table.along(variant, reference)
            assert dict(zip(map(int, values), cells, strict=True)) == {
                value: ratio.text() for value, ratio in along.items()
            }
            told += 1
    assert told >= 10
    assert matches["A1"].noise.text() in " ".join(page.split())
    assert f"{len(rows)} runs, none failed" in page
    assert {len(match.table.seeds) for match in matches.values()} == {10}
    # what docs and labs/README.md say in prose
    found = {
        (name, one.topic): one.verdict for name, match in matches.items() for one in findings(match)
    }
    assert all(found[name, "equal memory"] == "not shown" for name in matches)
    assert found["A2", "residency or quantization"] == "contradicted"
    assert found["B1", "cliff, LRU"] == found["B1", "cliff, fixed places"] == "shown"
    assert found["A1", "context"] == "shown"
