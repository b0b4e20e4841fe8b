"""The score card of runs: KV bytes and milliseconds per token, lower is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mspeckv import RunSummary, retrieval
from mspeckv_widgets.charts.table import readable_bytes, table_html
from mspeckv_widgets.charts.theme import TIERS

CAPTION = (
    "Score card: lower is better everywhere. KV bytes are counted, peak device memory is modelled; "
    "times are measured, and called emulated where they hold waits for a throttled link."
)


def score_html(runs: Sequence[RunSummary]) -> str:
    """A table with a row for each run."""
    heads = (
        "run", "ms per token", "KV fetched over the link, per token",
        *(f"KV read by {style.name}, per token" for style in TIERS.values()),
        "device memory, peak",
    )  # fmt: skip
    return table_html(CAPTION, heads, [_row(run) for run in runs], text=1)


def score_text(runs: Sequence[RunSummary]) -> str:
    """The same in plain lines."""
    lines = []
    for run in runs:
        name, time, link, *tiers, peak = _row(run)
        read = ", ".join(
            f"{style.name} {cell}"
            for style, cell in zip(TIERS.values(), tiers, strict=True)
            if cell
        )
        lines.append(f"{name}: {time} per token; per token {link} over the link; KV read: {read}")
        lines[-1] += f"; peak {peak}"
    return "\n".join(lines)


def run_name(config: dict[str, Any]) -> str:
    """A run in a few words: method, width, on-chip + resident layers, an unusual policy."""
    policy = config["policy"]
    widths = [policy["k_bits"] or policy["bits"], policy["v_bits"] or policy["bits"]]
    names = ["float" if width == "full" else f"int{width}" for width in widths]
    width = names[0] if names[0] == names[1] else f"K {names[0]} V {names[1]}"
    chooser = config["speculation"]["retrieval"]
    note = "" if chooser == retrieval.DEFAULT else f", {chooser}"
    return f"{config['method']}, {width}, {policy['on_chip']}+{policy['resident']}{note}"


def kv_read_per_token(run: RunSummary) -> dict[int, float]:
    """Bytes of KV that each tier's attention read, per settled token (counted)."""
    tokens = max(1, len(run.tokens))
    return {
        count.tier: read / tokens for count, read in zip(run.tiers, run.kv_read_bytes, strict=True)
    }


def _row(run: RunSummary) -> tuple[str, ...]:
    clock = "emulated" if run.link.kind == "emulated" else "measured"
    read = kv_read_per_token(run)
    return (
        run_name(run.config),
        f"{run.ms_per_token:.1f} ms {clock}",
        f"{_size(run.link.to_device_bytes / max(1, len(run.tokens)))} counted",
        *(f"{_size(read[tier])} counted" if tier in read else "" for tier in TIERS),
        f"{_size(run.memory.peak_device_bytes)} modelled",
    )


def _size(count: float) -> str:
    return " ".join(readable_bytes(count))
