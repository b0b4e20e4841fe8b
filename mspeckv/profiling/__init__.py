"""Where the time of a run goes: torch's profiler, read by tier and step."""

from mspeckv.profiling.ceilings import Ceilings, calibrate
from mspeckv.profiling.result import Bar, OpRow, Profile, StepRow
from mspeckv.profiling.session import profile
from mspeckv.profiling.spans import Span, read_trace

__all__ = [
    "Bar",
    "Ceilings",
    "OpRow",
    "Profile",
    "Span",
    "StepRow",
    "calibrate",
    "profile",
    "read_trace",
]
