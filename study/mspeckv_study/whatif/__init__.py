"""Predicts time, traffic and memory of a run on a machine that need not be here; decodes nothing.

`what_if` predicts a setting, `plan` searches for the fastest; models, machines and acceptance have
catalogues of their own.
"""

from mspeckv_study.whatif.acceptance import Acceptance, expected_tokens, inner_passes, rate_of
from mspeckv_study.whatif.catalogue import MODELS, model_shape
from mspeckv_study.whatif.footprint import Footprint
from mspeckv_study.whatif.forecast import EqualMemory, Forecast, hardware, what_if
from mspeckv_study.whatif.here import kept_machine, this_machine
from mspeckv_study.whatif.machines import HARDWARE, Hardware, origin_machine
from mspeckv_study.whatif.measure import slowdown
from mspeckv_study.whatif.published_tables import Published, published
from mspeckv_study.whatif.round import STEPS
from mspeckv_study.whatif.search import DevicePlan, plan
from mspeckv_study.whatif.shapes import ModelShape

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
