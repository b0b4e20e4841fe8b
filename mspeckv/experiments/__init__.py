"""The four ablations A1, A2, B1 and B2, run for real: definitions, trials, stores.

`run` runs what is missing of one into a folder and can be killed and run again; `load_rows` reads
what is there.
"""

from mspeckv.experiments.bench import Bench, Models
from mspeckv.experiments.definitions import (
    EXPERIMENTS,
    IDS,
    PRESETS,
    VARIANTS,
    Cell,
    Experiment,
    Preset,
    Trial,
    Variant,
    experiment,
)
from mspeckv.experiments.row import Row
from mspeckv.experiments.runner import SEEDS, missing, ordered, run
from mspeckv.experiments.store import Store, load_rows

__all__ = [
    "EXPERIMENTS",
    "IDS",
    "PRESETS",
    "SEEDS",
    "VARIANTS",
    "Bench",
    "Cell",
    "Experiment",
    "Models",
    "Preset",
    "Row",
    "Store",
    "Trial",
    "Variant",
    "experiment",
    "load_rows",
    "missing",
    "ordered",
    "run",
]
