"""Predicts time, traffic and memory of a run on a machine that need not be here; decodes nothing.

`what_if` predicts a setting, `plan` searches for the fastest; models, machines and acceptance have
catalogues of their own.
"""

from mspeckv.whatif.acceptance import Acceptance, expected_tokens, inner_passes, rate_of
from mspeckv.whatif.catalogue import MODELS, model_shape
from mspeckv.whatif.footprint import Footprint
from mspeckv.whatif.forecast import EqualMemory, Forecast, hardware, what_if
from mspeckv.whatif.here import kept_machine, this_machine
from mspeckv.whatif.machines import HARDWARE, Hardware, origin_machine
from mspeckv.whatif.measure import slowdown
from mspeckv.whatif.published_tables import Published, published
from mspeckv.whatif.round import STEPS
from mspeckv.whatif.search import DevicePlan, plan
from mspeckv.whatif.shapes import ModelShape

__all__ = [
    "HARDWARE",
    "MODELS",
    "STEPS",
    "Acceptance",
    "DevicePlan",
    "EqualMemory",
    "Footprint",
    "Forecast",
    "Hardware",
    "ModelShape",
    "Published",
    "expected_tokens",
    "hardware",
    "inner_passes",
    "kept_machine",
    "model_shape",
    "origin_machine",
    "plan",
    "published",
    "rate_of",
    "slowdown",
    "this_machine",
    "what_if",
]
