"""The score card of runs: KV bytes and milliseconds per token, lower is better."""

from __future__ import annotations

from collections.abc import Sequence

from mspeckv import RunSummary
from mspeckv_widgets.charts.table import readable_bytes, table_html
from mspeckv_widgets.charts.theme import TIERS
from mspeckv_widgets.compared import flattened, names_among

CAPTION = (
    "Score card: runs named by what differs; lower is better everywhere. Bytes moved and read are "
    "counted, KV on the device is modelled, weights apart; times are measured, and called "
    "emulated where they hold waits for a throttled link."
)


def score_html(runs: Sequence[RunSummary]) -> str:
    """A table with a row for each run, without columns of which no run has anything.

    Where a number comes from stands in the column's head if it is the same for every run.
    """
    names = (
        "run", "ms per token", "KV fetched over the link, per token",
        *(f"KV read by {style.name}, per token" for style in TIERS.values()),
        "KV on the device",
    )  # fmt: skip
    columns = [
        _labelled(name, column)
        for name, column in zip(names, zip(*_rows(runs), strict=True), strict=True)
        if any(column)
    ]
    rows = list(zip(*(cells for _, cells in columns), strict=True))
    return table_html(CAPTION, [head for head, _ in columns], rows, text=1)


def _labelled(name: str, column: Sequence[str]) -> tuple[str, list[str]]:
    """A column's head and cells: the cells' common label goes into the head."""
    for label in ("measured", "emulated", "counted", "modelled"):
        if all(cell.endswith(f" {label}") for cell in column if cell):
            return f"{name} ({label})", [cell.removesuffix(f" {label}") for cell in column]
    return name, list(column)


def score_text(runs: Sequence[RunSummary]) -> str:
    """The same in plain lines."""
    lines = []
    for name, time, link, *tiers, held in _rows(runs):
        read = ", ".join(
            f"{style.name} {cell}"
            for style, cell in zip(TIERS.values(), tiers, strict=True)
            if cell
        )
        lines.append(f"{name}: {time} per token; per token {link} over the link; KV read: {read}")
        lines[-1] += f"; KV on the device {held}"
    return "\n".join(lines)


def kv_read_per_token(run: RunSummary) -> dict[int, float]:
    """Bytes of KV that each tier's attention read, per settled token (counted)."""
    tokens = max(1, len(run.tokens))
    return {
        count.tier: read / tokens for count, read in zip(run.tiers, run.kv_read_bytes, strict=True)
    }


def _rows(runs: Sequence[RunSummary]) -> list[tuple[str, ...]]:
    names = names_among([flattened(run.config) for run in runs])
    return [_row(name, run) for name, run in zip(names, runs, strict=True)]


def _row(name: str, run: RunSummary) -> tuple[str, ...]:
    clock = "emulated" if run.link.kind == "emulated" else "measured"
    read, held = kv_read_per_token(run), run.memory.kv_device_bytes
    return (
        name,
        f"{run.ms_per_token:.1f} ms {clock}",
        f"{_size(run.link.to_device_bytes / max(1, len(run.tokens)))} counted",
        *(f"{_size(read[tier])} counted" if tier in read else "" for tier in TIERS),
        "" if held is None else f"{_size(held)} modelled",
    )


def _size(count: float) -> str:
    return " ".join(readable_bytes(count))
