"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from mspeckv.experiments.findings import findings
from mspeckv.experiments.matching import Match
from mspeckv.experiments.report_tables import Grid, grids, speedup_summary

LABELS = {
    "measured": "a clock on the machine named below",
    "emulated": "the same clock, in runs that waited for a throttled copy standing in for the link",
    "counted": "bytes or tokens, counted where they moved",
    "modelled": "computed from shapes; a speed so labelled is the cost model's for the published "
    "machine, under the variant's own policy (the published mspeckv kept layers by LRU)",
    "published": "the original project's figure, of a 7B model on a GPU: compare ratios and "
    "shapes, not tokens/s",
}
"""What the words beside numbers mean."""


def page(matches: Sequence[Match]) -> str:
    """The whole report."""
    parts = ["# Ablations of MSpecKV", *(f"- **{name}**: {text}" for name, text in LABELS.items())]
    for match in matches:
        parts += ["", *section(match)]
    return "\n".join(parts) + "\n"


def section(match: Match) -> list[str]:
    """One experiment's lines."""
    known, table = match.experiment, match.table
    out = [
        f"## {known.id}, {known.title.lower()} ({table.preset})",
        "",
        known.question,
        "",
        *(
            f"- **{one.topic}**{f' ({one.verdict})' if one.verdict else ''}: {one.text}"
            for one in findings(match)
        ),
        "",
    ]
    if known.id == "A1":
        blocks = [speedup_summary(match), speedup_summary(match, theirs=True)]
        out += [line for block in blocks for line in ("```", block, "```", "")]
    for grid in grids(match):
        out += [*table_lines(grid), ""]
    out += [f"- Made on {machine}." for machine in table.machines]
    out += [f"- Versions: {versions}." for versions in table.versions]
    out += [f"- Seeds {', '.join(map(str, table.seeds))}; {settings(match)}."]
    out += [f"- Published: {note}" for note in match.paper.notes]
    return out


def table_lines(grid: Grid) -> list[str]:
    """A table under its caption."""
    rules = ["---" if place < grid.words else "---:" for place in range(len(grid.heads))]
    rows = [grid.heads, tuple(rules), *grid.rows]
    return [f"{grid.caption}:", "", *("| " + " | ".join(map(_safe, row)) + " |" for row in rows)]


def settings(match: Match) -> str:
    """What the rows' runs had in common, in words; from mspeckv's where there are any."""
    found = [row for outcome in match.table.cells.values() for row in outcome.finished.values()]
    if not found:
        return "no trial finished"
    row = next((row for row in found if row.variant == "mspeckv"), found[0])
    assert row.result is not None
    config = row.result["config"]
    policy, guess, draw = config["policy"], config["speculation"], config["sampling"]
    fixed = {
        "prefill": f"{config['prompt_tokens']} prompt tokens",
        "new_tokens": f"{config['new_tokens']} new tokens",
        "on_chip": f"{policy['on_chip']} layers on-chip",
        "resident": f"{policy['resident']} resident",
    }
    words = [text for name, text in fixed.items() if name != match.table.axis]
    words += [
        f"gamma {guess['gamma']}, draft gamma {guess['draft_gamma']}, budget {guess['budget']}",
        f"temperature {draw['temperature']:g}, top-p {draw['top_p']:g}",
        f"link {config['link']['preset']}, {config['target']} with draft {config['draft']}",
    ]
    return ", ".join(words)


def _safe(cell: str) -> str:
    return cell.replace("|", "\\|")
