"""Recorded acceptance: exact intervals, pairs by place, a chart that shows what rows say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mspeckv_widgets.at_length import FILES, Series, Spread, load_series, order_confidence
from mspeckv_widgets.explorers.at_length import LOOKS, DraftsAtLength

RESULTS = Path(__file__).resolve().parents[1] / "labs" / "results"


def row(place: int, context: int, text: str, **rates: float) -> dict[str, Any]:
    kept = {name: {"sampled": rate, "greedy": rate / 2} for name, rate in rates.items()}
    return {
        "place": place, "context": context, "text": text, "kept": kept,
        "target": "big", "draft": "small", "hardware": {"machine": "a processor", "cores": 2},
    }  # fmt: skip


@pytest.fixture
def series() -> Series:
    rows = [
        row(place, context, text, near=0.5 + place / 100, all=0.5 if context < 1024 else 0.1)
        for place in range(12)
        for context in (512, 2048)
        for text in ("document", "own")
    ]
    return Series(tuple(rows))


def test_the_interval_of_a_median_is_exact() -> None:
    found = Spread.of([7, 1, 12, 3, 9, 2, 11, 4, 10, 5, 8, 6])
    assert (found.median, found.low, found.high, found.count) == (6.5, 3, 10, 12)
    # 1 - 2 (1 + 12 + 66) / 4096
    assert found.confidence == pytest.approx(0.96142578125)
    assert order_confidence(12, 4) < 0.95
    few = Spread.of([3.0, 1.0, 2.0])
    assert (few.low, few.high, few.confidence) == (1, 3, 0.75)
    assert str(few) == "2.00 [1.00, 3.00]"


def test_intervals_that_touch_are_not_clear_of_each_other() -> None:
    low, high = Spread.of([0.1] * 6), Spread.of([0.2] * 6)
    assert low.clear_of(high)
    assert not low.clear_of(Spread.of([0.1, 0.1, 0.1, 0.2, 0.2, 0.2]))


def test_rates_are_paired_by_place(series: Series) -> None:
    assert series.contexts == (512, 2048)
    assert series.guessers == ("near", "all")
    assert series.spread("near", 512).median == pytest.approx(0.555)
    assert series.spread("near", 512, "own", 0).median == pytest.approx(0.2775)
    change = series.change("all", 512, 2048)
    assert (change.median, change.low, change.high) == pytest.approx((-0.4, -0.4, -0.4))
    lead = series.lead("near", "all", 2048)
    assert (lead.low, lead.high) == pytest.approx((0.42, 0.49))
    with pytest.raises(ValueError, match="guesser: 'nobody' is not allowed; "):
        series.rates("nobody", 512)


def test_the_chart_and_its_table_show_the_spreads(series: Series) -> None:
    view = DraftsAtLength({"here": series, "there": Series(series.rows[:24])})
    near, everything = view.figure.data[:2]
    assert list(near.x) == [512, 2048]
    assert list(near.y) == pytest.approx([0.555, 0.555])
    assert list(everything.y) == [0.5, 0.1]
    assert near.error_y.array[0] == pytest.approx(series.spread("near", 512).high - 0.555)
    assert len(view.figure.data) == 4
    assert str(series.spread("near", 2048)) in view._tables.value
    assert "12 places" in view._tables.value
    assert "a processor, 2 cores (measured)" in view._status.value
    view.set(temperature=0)
    assert list(view.figure.data[1].y) == [0.25, 0.05]
    assert "T = 0" in view.figure.layout.title.text


def test_what_was_not_recorded_is_said(series: Series) -> None:
    some = Series(tuple(one for one in series.rows if one["text"] == "document"))
    view = DraftsAtLength({"here": some})
    view.set(text="own")
    assert list(view.figure.data[0].x) == []
    assert "nothing recorded" in view._tables.value


def test_series_are_found_or_asked_for(tmp_path: Path, series: Series) -> None:
    with pytest.raises(ValueError, match="benchmarks.draft_context"):
        load_series("cpu", tmp_path)
    lines = [json.dumps(one) for one in series.rows]
    (tmp_path / FILES["cpu"]).write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert load_series("cpu", tmp_path) == series


@pytest.mark.parametrize(("name", "longest", "least"), [("cpu", 8192, 6), ("gpu", 32768, 6)])
def test_the_committed_rows_are_whole(name: str, longest: int, least: int) -> None:
    kept = load_series(name, RESULTS)
    places = {one["place"] for one in kept.rows}
    assert kept.contexts[0] == 512
    assert kept.contexts[-1] == longest
    assert "document" in kept.texts
    assert len(places) >= least
    assert len(kept.rows) == len(places) * len(kept.contexts) * len(kept.texts)
    for one in kept.rows:
        assert set(one["kept"]) == set(kept.guessers)
        rates = [rate for rates in one["kept"].values() for rate in rates.values()]
        assert 0 <= min(rates) <= max(rates) < 1.001
    assert len({one["hardware"]["machine"] for one in kept.rows}) == 1
    assert set(LOOKS) <= set(kept.guessers)


def test_the_page_says_what_the_rows_say() -> None:
    page = (RESULTS.parents[1] / "docs" / "tiers-and-speculation.md").read_text(encoding="utf-8")
    told = " ".join(page.split("## Long contexts")[1].split("\n## ")[0].split())
    kept = load_series("gpu", RESULTS)

    def rate(guesser: str, context: int) -> str:
        return f"{kept.spread(guesser, context).median:.2f}"

    dead, small = rate("draft, all", 1024), "tier 1, 256"
    assert f"from {rate('draft, all', 512)} to {dead} at 1,024 tokens" in told
    assert f"goes from {rate(small, 512)} at 512 to {rate(small, 32768)} at 32 k" in told
    assert f"over 1,024 tokens to {rate('tier 1, 1024', 32768)}" in told
    assert {rate("draft, sinks and window", at) for at in kept.contexts} <= {"0.50", "0.51", "0.52"}
