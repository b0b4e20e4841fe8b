"""How long a step of the target takes here: by it an ``origin`` link is scaled."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import quantiles

import torch

from mspeckv.decoding.hooks import Engine
from mspeckv.decoding.run import target_alone
from mspeckv.kv.link import ORIGIN_CONTEXT, open_link
from mspeckv.models.kept import kept_step
from mspeckv.models.pair import Pair
from mspeckv.record import Ledger, Recorder, clock_of

_STEPS = 16
"""Steps whose time is measured, the first of them to warm up."""


def step_seconds(accelerations: Sequence[str], engine: Engine, pair: Pair) -> float:
    """Time of one target step with all KV on the device; measured once, and kept in a file.

    Of steps after `ORIGIN_CONTEXT` tokens, or as many as the target takes, the lower quartile
    counts: whatever else runs can only slow one down.
    """

    def measure() -> float:
        context = min(ORIGIN_CONTEXT, pair.max_positions - _STEPS)
        tokens = [place % pair.vocab_size for place in range(context + _STEPS)]
        recorder = Recorder(Ledger(clock_of(pair.device)))
        with open_link(recorder.ledger, None, pair.device) as link, torch.inference_mode():
            reader, _ = target_alone(engine, pair, len(tokens), link, recorder)
            reader.prefill(tokens[:context])
            for end in range(context, len(tokens)):
                reader.read(tokens[: end + 1], rows=1)
        return quantiles(p.ms for p in recorder.take().passes[2:])[0] / 1e3

    with engine.lock:
        if engine.step_seconds is None:
            engine.step_seconds = kept_step(accelerations, pair, measure)
        return engine.step_seconds
