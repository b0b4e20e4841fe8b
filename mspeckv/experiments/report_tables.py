"""The tables of a report, as text cells: Markdown, HTML and widgets only lay them out."""

from __future__ import annotations

from dataclasses import dataclass

from mspeckv.experiments.matching import Match
from mspeckv.experiments.report_style import axis_words
from mspeckv.experiments.statistics import CONFIDENCE, CellOutcome
from mspeckv.whatif.published_tables import MeanStd

NOTHING = "-"


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        caption: what it shows, and the label of its numbers.
        words: how many of the first columns hold words; the others hold numbers.
    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 0


def grids(match: Match) -> tuple[Grid, ...]:
    """All tables of an experiment."""
    return (*published_layout(match), speeds(match), speedups(match), traffic(match))


def speeds(match: Match) -> Grid:
    """Every cell: speed and guesses kept, beside the published ones."""
    table = match.table
    rows = []
    for outcome in _outcomes(match):
        value, variant = outcome.value, outcome.variant
        rows.append(
            (
                variant,
                f"{value}",
                _place(match.value(value)),
                _cell(outcome.speed),
                _cell(match.speed(value, variant)),
                _cell(match.modelled_speed(value, variant)),
                _cell(outcome.latency, 1),
                *(_cell(outcome.tier_ms(tier), 1) for tier in (0, 1, 2)),
                _cell(outcome.accepted),
                _cell(match.accepted(value, variant)),
                _trials(outcome),
            )
        )
    caption = (
        f"Speed ({table.clock} here, mean ± standard deviation over seeds) and guesses kept per "
        "round (counted), beside the published figures"
    )
    heads = (
        "variant", axis_words(table.axis), "published at", f"tokens/s, {table.clock}",
        "tokens/s, published", "tokens/s, modelled", f"ms/token, {table.clock}",
        "of these tier 0", "tier 1", "tier 2",
        "kept/round, counted", "kept/round, published", "trials",
    )  # fmt: skip
    return Grid(caption, heads, tuple(rows), 1)


def speedups(match: Match) -> Grid:
    """Every cell over every reference, with its interval, beside the published ones."""
    table = match.table
    references = (*match.references, "control")
    heads = ["variant", axis_words(table.axis)]
    for reference in references:
        heads.append(f"over {reference}, {table.clock}")
        if reference != "control":
            heads += [f"over {reference}, published", f"over {reference}, modelled"]
    rows = []
    for outcome in _outcomes(match):
        cells = [outcome.variant, f"{outcome.value}"]
        for reference in references:
            own = outcome.variant == reference
            ours = table.compare(outcome.value, outcome.variant, reference)
            cells.append(NOTHING if own or ours is None else ours.text())
            if reference != "control":
                place = outcome.value, outcome.variant, reference
                papers = (match.speedup(*place), match.modelled_speedup(*place))
                cells += [NOTHING if own or one is None else f"{one.text()}x" for one in papers]
        rows.append(tuple(cells))
    caption = (
        f"Speed-up: mean of the seeds' ratios of tokens/s ({table.clock}), with a {CONFIDENCE:.0%} "
        "bootstrap interval of that mean"
    )
    return Grid(caption, tuple(heads), tuple(rows), 1)


def traffic(match: Match) -> Grid:
    """Every cell's bytes: over the link, read by each tier, and held."""
    rows = []
    for outcome in _outcomes(match):
        read = outcome.kv_read
        rate = outcome.hit_rate
        memory = device_kv_bytes(outcome)
        rows.append(
            (
                outcome.variant,
                f"{outcome.value}",
                _mega(outcome.link),
                *(_mega(read.get(tier)) for tier in (0, 1, 2)),
                NOTHING if rate is None else f"{rate:.0%}",
                NOTHING if memory is None else f"{memory / 1e6:.1f}",
            )
        )
    caption = (
        "KV bytes per token while decoding (counted, mean over seeds), packed layers found on the "
        "device (counted), and KV of the full context held there (modelled)"
    )
    heads = (
        "variant", axis_words(match.table.axis), "link, MB/token", "read by tier 0, MB/token",
        "tier 1, MB/token", "tier 2, MB/token", "found on device", "KV on device, MB, modelled",
    )  # fmt: skip
    return Grid(caption, heads, tuple(rows), 1)


def published_layout(match: Match) -> tuple[Grid, ...]:
    """A2, B1 and B2 as the published tables have them; A1's is `speedup_summary`."""
    if match.table.experiment == "A1":
        return ()
    heads = (match.paper.axis, "baseline", "quant", "delta", "speedup")
    ours = []
    for value in match.table.values:
        pair = match.table.compare(value, "mspeckv", "triforce")
        if pair is not None:
            cells = match.table.cells
            sides = [_cell(cells[value, name].speed) for name in ("triforce", "mspeckv")]
            ours.append((f"{value}", *sides, pair.delta.text(), pair.speedup.text()))
    caption = "tokens/s in the published layout: triforce is the baseline, mspeckv quant"
    theirs = []
    for value in match.paper.values:
        sides = [match.paper.speeds[value, name].text() for name in ("triforce", "mspeckv")]
        speedup = match.paper.speedups[value, "mspeckv", "triforce"].text()
        theirs.append((f"{value}", *sides, speedup))
    return (
        Grid(f"Ours, {match.table.clock}: {caption}", heads, tuple(ours)),
        Grid(
            f"Published: {caption}",
            tuple(name for name in heads if name != "delta"),
            tuple(theirs),
        ),
    )


def speedup_summary(match: Match, theirs: bool = False) -> str:
    """A1's speed-ups in the layout of the published summary: ours, or the published ones."""
    columns = {
        "vanilla_vs_base": ("vanilla", "autoregressive"),
        "no_kv_quant_vs_base": ("triforce", "autoregressive"),
        "kv_quant_vs_base": ("mspeckv", "autoregressive"),
        "quant_vs_no_quant": ("mspeckv", "triforce"),
    }
    heads = [" prefill", *columns]
    line = " | ".join(heads)
    lines = [line, "-" * len(line)]
    for value in match.paper.values if theirs else match.table.values:
        cells = [f"{value}"]
        for pair in columns.values():
            if theirs:
                found = match.paper.speedups.get((value, *pair))
            else:
                ours = match.table.compare(value, *pair)
                found = None if ours is None else ours.speedup
            cells.append(NOTHING if found is None else f"{found.mean:.2f}x")
        parts = [cell.rjust(len(head)) for cell, head in zip(cells, heads, strict=True)]
        lines.append(" | ".join(parts))
    label = "published" if theirs else f"ours, {match.table.clock}"
    frame = "=" * len(line)
    title = f"SPEEDUP SUMMARY (latency-based; {label})"
    return "\n".join([frame, title, frame, "", *lines])


def device_kv_bytes(outcome: CellOutcome) -> float | None:
    """Bytes of on-chip and resident KV of the full context (modelled)."""
    for row in outcome.finished.values():
        assert row.result is not None
        memory = row.result["memory"]
        return float(memory["on_chip_bytes"] + memory["resident_bytes"])
    return None


def _outcomes(match: Match) -> list[CellOutcome]:
    """Every cell there is, by variant, then along the axis."""
    table = match.table
    places = ((value, name) for name in table.variants for value in table.values)
    return [table.cells[place] for place in places if place in table.cells]


def _trials(outcome: CellOutcome) -> str:
    done, failed = len(outcome.finished), len(outcome.failed)
    return f"{done} ok, {failed} FAILED" if failed else f"{done} ok"


def _place(value: int | None) -> str:
    return NOTHING if value is None else f"{value}"


def _cell(spread: MeanStd | None, digits: int = 2) -> str:
    return NOTHING if spread is None else spread.text(digits)


def _mega(spread: MeanStd | None) -> str:
    return NOTHING if spread is None else f"{spread.mean / 1e6:.3f}"
