"""Runs the four ablations A1, A2, B1 and B2 and says what they show; nothing here decodes itself.

`run` runs what is missing of one into a folder and can be killed and run again; `load_rows` reads
what is there, `match_rows` puts it beside the published figures, `findings` says what it shows and
`write_report` writes all that down.
"""

from mspeckv_study.experiments.ablations import (
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
from mspeckv_study.experiments.bench import Bench, Models
from mspeckv_study.experiments.findings import Finding, findings
from mspeckv_study.experiments.intervals import coverage
from mspeckv_study.experiments.matching import Match, match_rows
from mspeckv_study.experiments.noise import noise_floor
from mspeckv_study.experiments.report import Report, write_report
from mspeckv_study.experiments.report_tables import TextTable, grids, speedup_summary
from mspeckv_study.experiments.rows import Row, RowStore, load_rows
from mspeckv_study.experiments.runs import SEEDS, run
from mspeckv_study.experiments.schedule import missing, ordered
from mspeckv_study.experiments.statistics import cliff, summarise
from mspeckv_study.whatif.published_tables import published

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
