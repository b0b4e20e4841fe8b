"""What a run would cost on a machine that may not be here: time, traffic and memory, modelled.

`what_if` is the entry; models, machines and acceptance have catalogues of their own.
"""

from mspeckv.cost.acceptance import Acceptance, expected_tokens, inner_passes, rate_of
from mspeckv.cost.footprint import Footprint
from mspeckv.cost.hardware import HARDWARE, Hardware, hardware, origin_machine, this_machine
from mspeckv.cost.model import EqualMemory, WhatIf, what_if
from mspeckv.cost.round import STEPS
from mspeckv.cost.shapes import MODELS, ModelShape, model_shape

__all__ = [
    "HARDWARE",
    "MODELS",
    "STEPS",
    "Acceptance",
    "EqualMemory",
    "Footprint",
    "Hardware",
    "ModelShape",
    "WhatIf",
    "expected_tokens",
    "hardware",
    "inner_passes",
    "model_shape",
    "origin_machine",
    "rate_of",
    "this_machine",
    "what_if",
]
