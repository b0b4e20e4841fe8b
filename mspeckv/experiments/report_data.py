"""A report's numbers for other programs: CSV with a line per cell, JSON with everything."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mspeckv.experiments.findings import findings
from mspeckv.experiments.matching import Match
from mspeckv.experiments.report_tables import device_kv_bytes
from mspeckv.experiments.statistics import CONFIDENCE, CellOutcome
from mspeckv.whatif.published_tables import MeanStd

TIERS = (0, 1, 2)


def as_csv(matches: Sequence[Match]) -> str:
    """One line per cell; units are in the heads, empty is unknown."""
    lines = [line for match in matches for line in _lines(match)]
    heads = list(dict.fromkeys(name for line in lines for name in line))
    out = io.StringIO()
    writer = csv.DictWriter(out, heads, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def as_json(matches: Sequence[Match]) -> dict[str, Any]:
    """Plain dictionaries: per experiment its cells, comparisons, findings and origins."""
    return {"confidence": CONFIDENCE, "experiments": [_experiment(match) for match in matches]}


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
        "cells": _lines(match),
        "failed": [
            {"value": value, "variant": variant, "seed": seed, "error": error}
            for value, variant, seed, error in table.failed
        ],
        "findings": [asdict(finding) for finding in findings(match)],
        "machines": list(table.machines),
        "versions": list(table.versions),
        "published_notes": list(match.paper.notes),
    }


def _lines(match: Match) -> list[dict[str, Any]]:
    return [_line(match, outcome) for outcome in match.table.cells.values()]


def _line(match: Match, outcome: CellOutcome) -> dict[str, Any]:
    table, value, variant = match.table, outcome.value, outcome.variant
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
    }
    pairs: dict[str, MeanStd | None] = {
        "tokens_per_second": outcome.speed,
        "published_tokens_per_second": match.speed(value, variant),
        "modelled_tokens_per_second": match.modelled_speed(value, variant),
        "ms_per_token": outcome.latency,
        "accepted_per_round": outcome.accepted,
        "published_accepted_per_round": match.accepted(value, variant),
        "link_bytes_per_token": outcome.link,
    }
    for tier in TIERS:
        pairs[f"tier{tier}_ms_per_token"] = outcome.tier_ms(tier)
        pairs[f"kv_read_tier{tier}_bytes_per_token"] = outcome.kv_read.get(tier)
    for name, spread in pairs.items():
        line[name] = None if spread is None else spread.mean
        line[f"{name}_std"] = None if spread is None else spread.std
    line["found_on_device"] = outcome.hit_rate
    line["device_kv_bytes_modelled"] = device_kv_bytes(outcome)
    for reference in (*match.references, "control"):
        line |= _over(match, outcome, reference)
    return line


def _over(match: Match, outcome: CellOutcome, reference: str) -> dict[str, Any]:
    """The comparison with one reference."""
    value, variant = outcome.value, outcome.variant
    ours = None if variant == reference else match.table.compare(value, variant, reference)
    paper = match.speedup(value, variant, reference)
    low, high = (None, None) if ours is None or ours.interval is None else ours.interval
    return {
        f"delta_over_{reference}": None if ours is None else ours.delta.mean,
        f"delta_over_{reference}_std": None if ours is None else ours.delta.std,
        f"speedup_over_{reference}": None if ours is None else ours.speedup.mean,
        f"speedup_over_{reference}_std": None if ours is None else ours.speedup.std,
        f"speedup_over_{reference}_low": low,
        f"speedup_over_{reference}_high": high,
        f"published_speedup_over_{reference}": None if paper is None else paper.mean,
    }
