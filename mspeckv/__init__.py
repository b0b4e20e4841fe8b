"""MSpecKV: multilevel speculative decoding over a placed, quantized KV cache.

Public surface: `load_pair`, `generate`, `stream`, `as_custom_generate`, `KVPolicy`, `Speculation`,
`Sampling`, `Link`, the event records, `documents` and `retrieval` (policies); `experiments`,
`profile` and `calibrate`, `KVProbe`, `AttentionProbe`, `retrieval_report` and `next_distributions`;
`verify`, a judge of any engine; and, modelled, `what_if` and `plan`. Each is loaded when it is
first asked for, so that to import the package costs next to nothing.
"""

import os
import warnings
from importlib import import_module
from typing import TYPE_CHECKING

# Before torch starts its threads: let an idle one spin for some 0.1 ms, then sleep. By default it
# spins for milliseconds, and a browser beside a two-core run slows a step a hundredfold.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

if TYPE_CHECKING:
    # for editors and type checkers, which see no name that is loaded late
    from mspeckv.api import generate, load_pair, stream
    from mspeckv.events import Event, Guess, Memory, Pass, Plan, Prefill, Round, RunSummary
    from mspeckv.events import TierCount, Transfer
    from mspeckv.integrations.custom_generate import as_custom_generate
    from mspeckv.kv import chunk_policies as retrieval
    from mspeckv.kv import doors
    from mspeckv.models.pair import Pair
    from mspeckv.settings import KVPolicy, Link, RunConfig, Sampling, Speculation
    from mspeckv_study import documents, experiments
    from mspeckv_study.probes.attention_probe import AttentionProbe, RetrievalReport
    from mspeckv_study.probes.attention_probe import retrieval_report
    from mspeckv_study.probes.kv_probe import KVProbe, Packing
    from mspeckv_study.probes.next_token import next_distributions
    from mspeckv_study.profiling import Profile, calibrate, profile
    from mspeckv_study.verification import verify
    from mspeckv_study.whatif import what_if
    from mspeckv_study.whatif.search import plan

__version__ = "0.1.0"

_HOMES = {
    name: module
    for module, names in {
        "mspeckv.api": "doors generate load_pair stream",
        "mspeckv.events": "Event Guess Memory Pass Plan Prefill Round RunSummary TierCount"
        " Transfer",
        "mspeckv_study.experiments": "experiments",
        "mspeckv.integrations.custom_generate": "as_custom_generate",
        "mspeckv.kv.chunk_policies": "retrieval",
        "mspeckv.models.pair": "Pair",
        "mspeckv_study.documents": "documents",
        "mspeckv_study.probes.attention_probe": "AttentionProbe RetrievalReport retrieval_report",
        "mspeckv_study.probes.kv_probe": "KVProbe Packing",
        "mspeckv_study.probes.next_token": "next_distributions",
        "mspeckv_study.profiling": "Profile calibrate profile",
        "mspeckv.settings": "KVPolicy Link RunConfig Sampling Speculation",
        "mspeckv_study.verification": "verify",
        "mspeckv_study.whatif": "plan what_if",
    }.items()
    for name in names.split()
}
"""The module that holds each public name: the engine's own, or one of what runs and looks at it."""

__all__ = list(_HOMES)

_MODULES = ("documents", "experiments", "retrieval")
"""Public names that are their module itself."""


_GOING: dict[str, str] = {}
"""Public names that the next release drops, and what to use instead of each."""


def __getattr__(name: str) -> object:
    """A public name, loaded with what it needs when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _GOING:
        told = f"{__name__}.{name} goes with the next release: use {_GOING[name]}"
        warnings.warn(told, FutureWarning, stacklevel=2)
    module = import_module(_HOMES[name])
    value: object = module if name in _MODULES else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Every public name, loaded or not: notebooks complete from it."""
    return sorted({*globals(), *__all__})
