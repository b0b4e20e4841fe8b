"""The four ablations A1, A2, B1 and B2, run for real: definitions, trials, stores.

`run` runs what is missing of one into a folder and can be killed and run again; `load_rows` reads
what is there, `match_rows` puts it beside the published figures, `findings` says what it shows and
`write_report` writes all that down.
"""

from mspeckv.experiments.bench import Bench, Models
from mspeckv.experiments.cliffs import cliff, largest_step, tier2_rates
from mspeckv.experiments.definitions import (
    EXPERIMENTS,
    IDS,
    PRESETS,
    VARIANTS,
    Cell,
    Experiment,
    Trial,
    Variant,
    experiment,
)
from mspeckv.experiments.findings import Finding, findings
from mspeckv.experiments.matching import Match, match_rows
from mspeckv.experiments.presets import Preset
from mspeckv.experiments.report import Report, write_report
from mspeckv.experiments.report_tables import Grid, grids, speedup_summary
from mspeckv.experiments.row import Row
from mspeckv.experiments.runner import SEEDS, missing, ordered, run
from mspeckv.experiments.statistics import CellOutcome, Comparison, Table, summarise
from mspeckv.experiments.store import Store, load_rows
from mspeckv.whatif.published_tables import MeanStd, Published, published

__all__ = [
    "EXPERIMENTS",
    "IDS",
    "PRESETS",
    "SEEDS",
    "VARIANTS",
    "Bench",
    "Cell",
    "CellOutcome",
    "Comparison",
    "Experiment",
    "Finding",
    "Grid",
    "Match",
    "MeanStd",
    "Models",
    "Preset",
    "Published",
    "Report",
    "Row",
    "Store",
    "Table",
    "Trial",
    "Variant",
    "cliff",
    "experiment",
    "findings",
    "grids",
    "largest_step",
    "load_rows",
    "match_rows",
    "missing",
    "ordered",
    "published",
    "run",
    "speedup_summary",
    "summarise",
    "tier2_rates",
    "write_report",
]
