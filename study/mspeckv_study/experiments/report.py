"""``mspeckv report``: rows in; Markdown, CSV with a line per cell, JSON, and a page out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mspeckv.settings import refuse
from mspeckv_study.experiments.ablations import ALL_FLOAT, EQUAL_MEMORY
from mspeckv_study.experiments.findings import findings
from mspeckv_study.experiments.intervals import CONFIDENCE, Sample
from mspeckv_study.experiments.matching import Match, match_rows
from mspeckv_study.experiments.report_tables import TIERS, grids, speedup_summary
from mspeckv_study.experiments.rows import load_rows
from mspeckv_study.experiments.statistics import CellOutcome
from mspeckv_study.text_table import markdown
from mspeckv_study.whatif.published_tables import MeanStd

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
METHOD = (
    "Figures are medians of the repeats; in brackets the interval that holds the median in 95 % or "
    "more, by ranks alone; with fewer than six repeats, their range. A speed-up is the geometric "
    "mean of the repeats' ratios. Shown: the whole interval lies above the claim, by more than the "
    "noise floor. Contradicted: it lies below. Not shown: neither."
)
"""How to read the figures."""
Page = Callable[[Sequence[Match]], str]
"""What draws the report's page."""


@dataclass(frozen=True)
class Report:
    """What was written, and where."""

    matches: tuple[Match, ...]
    files: tuple[Path, ...]

    def describe(self) -> str:
        """Every finding and file, as lines of text."""
        lines = []
        for match in self.matches:
            lines.append(f"{match.experiment.id} ({match.table.preset}): {match.experiment.title}")
            for one in findings(match):
                verdict = f" [{one.verdict}]" if one.verdict else ""
                lines.append(f"  {one.topic}{verdict}: {one.text}")
        return "\n".join([*lines, *(f"wrote {path}" for path in self.files)])


def write_report(
    source: str | Path | Iterable[str | Path],
    out: str | Path,
    page: Page | None = None,
) -> Report:
    """Write ``report.md``, ``.csv``, ``.json`` and, with ``page``, ``.html``.

    Args:
        source: a folder of stores, or files; see `mspeckv_study.experiments.load_rows`.
        out: a folder, made if it is not there.
        page: draws the page; the lab's is ``mspeckv_widgets.panels.report_page.page``.

    Raises:
        ValueError: no rows there, or rows that do not belong to an experiment.
    """
    rows = load_rows(source)
    if not rows:
        raise refuse("results", str(source), "there are no rows yet: see `mspeckv run`")
    matches = match_rows(rows)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refuse("out", str(out), "use a folder that can be made") from error
    texts = {
        "report.md": as_markdown(matches),
        "report.csv": as_csv(matches),
        "report.json": json.dumps(as_json(matches), indent=1) + "\n",
    }
    if page is not None:
        texts["report.html"] = page(matches)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return Report(matches, tuple(folder / name for name in texts))


def as_markdown(matches: Sequence[Match]) -> str:
    """The whole report."""
    parts = ["# Ablations of MSpecKV", *(f"- **{name}**: {text}" for name, text in LABELS.items())]
    parts += ["", METHOD]
    for match in matches:
        parts += ["", *_section(match)]
    return "\n".join(parts) + "\n"


def _section(match: Match) -> list[str]:
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
        lines = markdown(grid.heads, grid.rows, left=range(grid.words))
        out += [f"{grid.caption}:", "", *lines, ""]
    out += [f"- Made on {machine}." for machine in table.machines]
    out += [f"- Versions: {versions}." for versions in table.versions]
    out += [f"- Seeds {', '.join(map(str, table.seeds))}; {settings(match)}."]
    out += [f"- Published: {note}" for note in match.paper.notes]
    return out


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


def as_csv(matches: Sequence[Match]) -> str:
    """One line per cell; units are in the heads, empty is unknown."""
    lines = [_line(match, one) for match in matches for one in match.table.cells.values()]
    heads = list(dict.fromkeys(name for line in lines for name in line))
    out = io.StringIO()
    writer = csv.DictWriter(out, heads, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def as_json(matches: Sequence[Match]) -> dict[str, Any]:
    """Plain dictionaries: per experiment its cells, comparisons, findings and origins."""
    noise = matches[0].noise.factor if matches else 1.0
    found = [_experiment(match) for match in matches]
    return {"confidence": CONFIDENCE, "noise_factor": noise, "experiments": found}


def _experiment(match: Match) -> dict[str, Any]:
    table = match.table
    return {
        "experiment": table.experiment,
        "preset": table.preset,
        "title": match.experiment.title,
        "axis": table.axis,
        "clock": table.clock,
        "values": list(table.values),
        "published_values": [match.value(value) for value in table.values],
        "seeds": list(table.seeds),
        "cells": [_line(match, outcome) for outcome in table.cells.values()],
        "failed": [
            {"value": value, "variant": variant, "seed": seed, "error": error}
            for value, variant, seed, error in table.failed
        ],
        "findings": [asdict(finding) for finding in findings(match)],
        "machines": list(table.machines),
        "versions": list(table.versions),
        "published_notes": list(match.paper.notes),
    }


def _line(match: Match, outcome: CellOutcome) -> dict[str, Any]:
    """A cell's columns: ours with ``_low`` and ``_high``, published ones with ``_std``."""
    table, value, variant = match.table, outcome.value, outcome.variant
    figures: dict[str, Sample | MeanStd | None] = {
        "tokens_per_second": outcome.speed,
        "published_tokens_per_second": match.speed(value, variant),
        "modelled_tokens_per_second": match.modelled_speed(value, variant),
        "ms_per_token": outcome.latency,
        "accepted_per_round": outcome.accepted,
        "published_accepted_per_round": match.accepted(value, variant),
        "link_bytes_per_token": outcome.link,
    }
    for tier in TIERS:
        figures[f"tier{tier}_ms_per_token"] = outcome.tier_ms(tier)
        figures[f"kv_read_tier{tier}_bytes_per_token"] = outcome.kv_read(tier)
    line: dict[str, Any] = {
        "experiment": table.experiment,
        "preset": table.preset,
        "axis": table.axis,
        "value": value,
        "published_value": match.value(value),
        "variant": variant,
        "clock": outcome.clock,
        "finished": len(outcome.finished),
        "failed": len(outcome.failed),
        **_spreads(figures),
        "found_on_device": outcome.hit_rate,
        "device_kv_bytes_modelled": outcome.device_kv_bytes,
    }
    for name in (*match.references, EQUAL_MEMORY, ALL_FLOAT):
        ours = None if variant == name else table.compare(value, variant, name)
        paper = match.speedup(value, variant, name)
        line |= _spreads({f"speedup_over_{name}": ours})
        line[f"verdict_over_{name}"] = ours and ours.verdict(noise=match.noise.factor)
        line[f"published_speedup_over_{name}"] = None if paper is None else paper.mean
    return line


def _spreads(figures: Mapping[str, Sample | MeanStd | None]) -> dict[str, float | None]:
    columns: dict[str, float | None] = {}
    for name, one in figures.items():
        if isinstance(one, Sample):
            columns[name] = one.centre
            columns[f"{name}_low"], columns[f"{name}_high"] = one.interval
        else:
            columns[name] = one.mean if one else None
            if name.startswith("published"):
                columns[f"{name}_std"] = one.std if one else None
    return columns
