"""Runs the four ablations A1, A2, B1 and B2 and says what they show; nothing here decodes itself.

`run` runs what is missing of one into a folder and can be killed and run again; `load_rows` reads
what is there, `match_rows` puts it beside the published figures, `findings` says what it shows and
`write_report` writes all that down.
"""

from mspeckv.experiments.ablations import (
    ALL_FLOAT,
    EQUAL_MEMORY,
    EXPERIMENTS,
    IDS,
    PRESETS,
    SQUARE,
    VARIANTS,
    Cell,
    Experiment,
    Preset,
    Trial,
    Variant,
    experiment,
)
from mspeckv.experiments.bench import Bench, Models
from mspeckv.experiments.findings import Finding, findings
from mspeckv.experiments.intervals import coverage
from mspeckv.experiments.matching import Match, match_rows
from mspeckv.experiments.noise import noise_floor
from mspeckv.experiments.report import Report, write_report
from mspeckv.experiments.report_tables import TextTable, grids, speedup_summary
from mspeckv.experiments.rows import Row, RowStore, load_rows
from mspeckv.experiments.runs import SEEDS, run
from mspeckv.experiments.schedule import missing, ordered
from mspeckv.experiments.statistics import cliff, summarise
from mspeckv.whatif.published_tables import published

__all__ = [
    "ALL_FLOAT",
    "EQUAL_MEMORY",
    "EXPERIMENTS",
    "IDS",
    "PRESETS",
    "SEEDS",
    "SQUARE",
    "VARIANTS",
    "Bench",
    "Cell",
    "Experiment",
    "Finding",
    "Match",
    "Models",
    "Preset",
    "Report",
    "Row",
    "RowStore",
    "TextTable",
    "Trial",
    "Variant",
    "cliff",
    "coverage",
    "experiment",
    "findings",
    "grids",
    "load_rows",
    "match_rows",
    "missing",
    "noise_floor",
    "ordered",
    "published",
    "run",
    "speedup_summary",
    "summarise",
    "write_report",
]
