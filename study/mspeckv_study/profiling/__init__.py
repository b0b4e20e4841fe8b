"""Says where the time of a run goes, by tier and step, and what this machine can do at most."""

from mspeckv_study.profiling.ceilings import Ceilings, calibrate
from mspeckv_study.profiling.result import Bar, OpRow, Profile, StepRow
from mspeckv_study.profiling.session import profile
from mspeckv_study.profiling.spans import Span, read_trace

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
