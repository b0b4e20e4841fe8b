"""Settings of a run, as frozen dataclasses that check themselves.

Every rule about a setting stands in this package, so that Python, the command line and the widgets
refuse the same things with the same words: a ``ValueError`` naming the field, the value and what
is allowed.
"""

from mspeckv.config.checks import (
    check_choice,
    check_count,
    check_flag,
    check_number,
    refuse,
)
from mspeckv.config.link import LINK_PRESETS, Link
from mspeckv.config.policy import RESIDENCIES, RESIDENT_FORMATS, WIDTHS, KVPolicy, Placement, Width
from mspeckv.config.run import METHODS, RunConfig, Settings, default_width
from mspeckv.config.sampling import Sampling
from mspeckv.config.speculation import MIDDLES, Speculation

__all__ = [
    "LINK_PRESETS",
    "METHODS",
    "MIDDLES",
    "RESIDENCIES",
    "RESIDENT_FORMATS",
    "WIDTHS",
    "KVPolicy",
    "Link",
    "Placement",
    "RunConfig",
    "Sampling",
    "Settings",
    "Speculation",
    "Width",
    "check_choice",
    "check_count",
    "check_flag",
    "check_number",
    "default_width",
    "refuse",
]
