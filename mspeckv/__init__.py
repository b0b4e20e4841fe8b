"""MSpecKV: multilevel speculative decoding over a placed, quantized KV cache.

Public surface: `load_pair`, `generate`, `stream`, `as_custom_generate`, `KVPolicy`, `Speculation`,
`Sampling`, `Link`, `profile`, `calibrate`, the event records, `documents`, `experiments`,
`retrieval` (policies), `KVProbe`, `AttentionProbe` and `retrieval_report`, and, modelled, `what_if`
and `plan`.
"""

import os

# Before torch starts its threads: let an idle one spin for some 0.1 ms, then sleep. By default it
# spins for milliseconds, and a browser beside a two-core run slows a step a hundredfold.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from mspeckv import documents, experiments, retrieval
from mspeckv.api import generate, load_pair, stream
from mspeckv.config import KVPolicy, Link, RunConfig, Sampling, Speculation
from mspeckv.cost import what_if
from mspeckv.decoding.next_token import next_distributions
from mspeckv.drop_in import as_custom_generate
from mspeckv.events import (
    Event,
    Guess,
    Memory,
    Pass,
    Plan,
    Prefill,
    Round,
    RunSummary,
    TierCount,
    Transfer,
)
from mspeckv.kv.attention_probe import AttentionProbe, RetrievalReport, retrieval_report
from mspeckv.kv.probe import KVProbe, Packing
from mspeckv.models import Pair
from mspeckv.planner import plan
from mspeckv.profiling import Profile, calibrate, profile

__version__ = "0.1.0"

__all__ = [
    "AttentionProbe",
    "Event",
    "Guess",
    "KVPolicy",
    "KVProbe",
    "Link",
    "Memory",
    "Packing",
    "Pair",
    "Pass",
    "Plan",
    "Prefill",
    "Profile",
    "RetrievalReport",
    "Round",
    "RunConfig",
    "RunSummary",
    "Sampling",
    "Speculation",
    "TierCount",
    "Transfer",
    "as_custom_generate",
    "calibrate",
    "documents",
    "experiments",
    "generate",
    "load_pair",
    "next_distributions",
    "plan",
    "profile",
    "retrieval",
    "retrieval_report",
    "stream",
    "what_if",
]
