"""The machine behind the live panel's predictions: assumed, then measured once and kept."""

from __future__ import annotations

from mspeckv.whatif import HARDWARE, MODELS

ASSUMED = HARDWARE["laptop-cpu"]
"""Until this machine has been measured."""
DEFAULT_SHAPE = MODELS["smollm2-135m"]
SLOWER = 1.25
"""From here on a machine is called slower than when it was measured."""
