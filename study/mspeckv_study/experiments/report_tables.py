"""The tables of a report, as text cells: Markdown, HTML and widgets only lay them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mspeckv_study.experiments.ablations import ALL_FLOAT, EQUAL_MEMORY, axis_words
from mspeckv_study.experiments.intervals import Ratio, Sample
from mspeckv_study.experiments.matching import Match
from mspeckv_study.experiments.statistics import CellOutcome
from mspeckv_study.text_table import aligned
from mspeckv_study.whatif.published_tables import MeanStd

NOTHING = "-"
TIERS = (0, 1, 2)
_Column = tuple[str, Callable[[CellOutcome], str]]
"""A head, and what stands under it of each cell."""
_Ask = Callable[[int, str, str], Ratio | MeanStd | None]
"""A speed-up, by value, variant and reference."""


@dataclass(frozen=True)
class TextTable:
    """A table.

    Attributes:
        caption: what it shows, and the label of its numbers.
        words: how many of the first columns hold words; the others hold numbers.
    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 0


def grids(match: Match) -> tuple[TextTable, ...]:
    """All tables of an experiment."""
    return (*published_layout(match), speeds(match), speedups(match), traffic(match))


def speeds(match: Match) -> TextTable:
    """Every cell: speed and guesses kept, beside the published ones."""
    clock = match.table.clock
    caption = (
        f"Speed ({clock} here) and guesses kept per round (counted): median of the repeats and "
        "its interval, beside the published mean ± standard deviation"
    )
    columns: list[_Column] = [
        ("published at", lambda one: _text(match.value(one.value))),
        (f"tokens/s, {clock}", lambda one: _text(one.speed)),
        ("tokens/s, published", lambda one: _text(match.speed(one.value, one.variant))),
        ("tokens/s, modelled", lambda one: _text(match.modelled_speed(one.value, one.variant))),
        (f"ms/token, {clock}", lambda one: _text(one.latency, 1)),
        ("of these tier 0", lambda one: _text(one.tier_ms(0), 1)),
        ("tier 1", lambda one: _text(one.tier_ms(1), 1)),
        ("tier 2", lambda one: _text(one.tier_ms(2), 1)),
        ("kept/round, counted", lambda one: _text(one.accepted)),
        ("kept/round, published", lambda one: _text(match.accepted(one.value, one.variant))),
        ("trials", _trials),
    ]
    return _by_cell(match, caption, columns)


def speedups(match: Match) -> TextTable:
    """Every cell over every reference, with its interval, beside the published ones."""
    clock = match.table.clock

    def over(ask: _Ask, reference: str, one: CellOutcome) -> str:
        found = ask(one.value, one.variant, reference)
        if found is None or one.variant == reference:
            return NOTHING
        return found.text() if isinstance(found, Ratio) else f"{found.text()}x"

    asked: dict[str, _Ask] = {
        clock: match.table.compare,
        "published": match.speedup,
        "modelled": match.modelled_speedup,
    }
    columns: list[_Column] = [
        (f"over {name}, {label}", partial(over, ask, name))
        for name in (*match.references, EQUAL_MEMORY, ALL_FLOAT)
        for label, ask in asked.items()
        if label == clock or name in match.references
    ]
    caption = (
        f"Speed-up: geometric mean of the repeats' ratios of tokens/s ({clock}), and the interval "
        "of their median"
    )
    return _by_cell(match, caption, columns)


def traffic(match: Match) -> TextTable:
    """Every cell's bytes: over the link, read by each tier, and held."""
    caption = (
        "KV bytes per token while decoding (counted, median of repeats), packed layers found on "
        "the device (counted), and tier 2's KV of the full context held there (modelled)"
    )
    columns: list[_Column] = [
        ("link, MB/token", lambda one: _mega(one.link)),
        ("read by tier 0, MB/token", lambda one: _mega(one.kv_read(0))),
        ("tier 1, MB/token", lambda one: _mega(one.kv_read(1))),
        ("tier 2, MB/token", lambda one: _mega(one.kv_read(2))),
        ("found on device", lambda one: _form(one.hit_rate, ".0%")),
        ("KV on device, MB, modelled", lambda one: _mega(one.device_kv_bytes, ".1f")),
    ]
    return _by_cell(match, caption, columns)


def published_layout(match: Match) -> tuple[TextTable, ...]:
    """A2, B1 and B2 as the published tables have them; A1's is `speedup_summary`."""
    if match.table.experiment == "A1":
        return ()
    table, paper = match.table, match.paper
    ours, theirs = [], []
    for value in table.values:
        pair = table.compare(value, "mspeckv", "triforce")
        if pair is not None:
            sides = [_text(table.cells[value, name].speed) for name in ("triforce", "mspeckv")]
            ours.append((f"{value}", *sides, pair.text()))
    for value in paper.values:
        sides = [paper.speeds[value, name].text() for name in ("triforce", "mspeckv")]
        theirs.append((f"{value}", *sides, paper.speedups[value, "mspeckv", "triforce"].text()))
    caption = "tokens/s in the published layout: triforce is the baseline, mspeckv quant"
    heads = (paper.axis, "baseline", "quant", "speedup")
    return (
        TextTable(f"Ours, {table.clock}: {caption}", heads, tuple(ours)),
        TextTable(f"Published: {caption}", heads, tuple(theirs)),
    )


def speedup_summary(match: Match, theirs: bool = False) -> str:
    """A1's speed-ups in the layout of the published summary: ours, or the published ones."""
    columns = {
        "vanilla_vs_base": ("vanilla", "autoregressive"),
        "no_kv_quant_vs_base": ("triforce", "autoregressive"),
        "kv_quant_vs_base": ("mspeckv", "autoregressive"),
        "quant_vs_no_quant": ("mspeckv", "triforce"),
    }
    rows = [[" prefill", *columns]]
    for value in match.paper.values if theirs else match.table.values:
        row = [f"{value}"]
        for pair in columns.values():
            ours = None if theirs else match.table.compare(value, *pair)
            paper = match.paper.speedups.get((value, *pair)) if theirs else None
            mean = ours.centre if ours is not None else None if paper is None else paper.mean
            row.append(_form(mean, ".2f", "x"))
        rows.append(row)
    head, *lines = aligned(rows, left=(), gap=" | ")
    frame = "=" * len(head)
    label = "published" if theirs else f"ours, {match.table.clock}"
    title = f"SPEEDUP SUMMARY (latency-based; {label})"
    return "\n".join([frame, title, frame, "", head, "-" * len(head), *lines])


def _by_cell(match: Match, caption: str, columns: Sequence[_Column]) -> TextTable:
    """A row for every cell there is, by variant, then along the axis."""
    table = match.table
    places = [(value, name) for name in table.variants for value in table.values]
    cells = [table.cells[place] for place in places if place in table.cells]
    heads = ("variant", axis_words(table.axis), *(head for head, _ in columns))
    rows = tuple(
        (one.variant, f"{one.value}", *(text(one) for _, text in columns)) for one in cells
    )
    return TextTable(caption, heads, rows, 1)


def _trials(outcome: CellOutcome) -> str:
    done, failed = len(outcome.finished), len(outcome.failed)
    return f"{done} ok, {failed} FAILED" if failed else f"{done} ok"


def _text(value: Sample | MeanStd | int | None, digits: int = 2) -> str:
    if isinstance(value, (Sample, MeanStd)):
        return value.text(digits)
    return NOTHING if value is None else f"{value}"


def _form(value: float | None, form: str, unit: str = "") -> str:
    return NOTHING if value is None else f"{value:{form}}{unit}"


def _mega(size: Sample | float | None, form: str = ".3f") -> str:
    """A count of bytes, or the median of several, in MB."""
    count = size.centre if isinstance(size, Sample) else size
    return NOTHING if count is None else f"{count / 1e6:{form}}"
