"""Bytes on each side, by the formulas that a run is checked against before it starts.

`mspeckv.kv.sizes` sizes the caches, `mspeckv.decoding.fits` the rest; here they are asked for
arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from mspeckv.decoding.fits import RUNTIME_BYTES, USES_TIER1
from mspeckv.kv.chunk_policies import reads_keys
from mspeckv.kv.recurrent import reach_of, states_held
from mspeckv.kv.sizes import ON_DEVICE, LayerBytes, placed_sizes, streaming_bytes
from mspeckv.kv.streaming import streaming_slots
from mspeckv.kv.windows import WINDOW_SLACK
from mspeckv.models.widths import prefill_workspace
from mspeckv_study.whatif.machines import Hardware
from mspeckv_study.whatif.question import Question
from mspeckv_study.whatif.shapes import ModelShape


@dataclass(frozen=True)
class Footprint:
    """Bytes, numbers or one array entry per setting; all modelled.

    Attributes:
        parts: what lies on the device, by name: both models' ``weights``, shared tensors once;
            KV of ``on_chip`` layers, unquantized, and of ``resident`` ones, quantized; ``tail``,
            the newest tokens of packed layers; ``slots``, where offloaded layers arrive;
            ``scratch``, where a layer is unpacked; ``windows`` and ``states``, what layers keep
            that do not grow, for tier 1 as well, and of states as many copies as guesses may be
            taken back; ``retrieval``, tier 1's cache and landmarks;
            ``streaming``, tier 0's cache; ``head``, a copy of the draft's that scores less;
            ``workspace``, activations of the prefill; ``runtime``,
            the libraries' own, on a CPU.
        offloaded: KV on the host.
    """

    parts: Mapping[str, Any]
    offloaded: Any

    @property
    def device(self) -> Any:
        """Sum of `parts`: the peak on the device."""
        return sum(self.parts.values())

    @property
    def kv_device(self) -> Any:
        """Of that, all that is KV: the ``kv_device_bytes`` of a run's `mspeckv.Memory`."""
        return sum(self.parts[name] for name in ON_DEVICE)


def packing(asked: Question, shape: ModelShape, dtype: torch.dtype) -> LayerBytes:
    """Of every setting, the bytes that its policy's places are made of."""
    kv = shape.kv(dtype)
    each = [LayerBytes.of(kv, policy) for policy in asked.policies]
    columns = {
        part.name: np.array([getattr(one, part.name) for one in each])[asked.which]
        for part in fields(LayerBytes)
    }
    return LayerBytes(**columns)


def footprint(
    asked: Question, shape: ModelShape, draft: ModelShape | None, machine: Hardware
) -> Footprint:
    """Bytes of every part of every setting; see `mspeckv.decoding.fits.predict`."""
    dtype = machine.torch_dtype
    size, kv = dtype.itemsize, shape.kv(dtype)
    packed, tokens = packing(asked, shape, dtype), asked["prefill"] + asked["new_tokens"]
    places = placed_sizes(
        packed, asked["on_chip"], asked.fixed_resident, asked.offloaded, asked.cached, tokens
    )
    offloaded = places.pop("offloaded")
    nothing = np.zeros_like(asked["prefill"])
    retrieval = streaming = head = nothing
    tiers = 2 if asked.method in USES_TIER1 else 1
    slack = WINDOW_SLACK + asked["gamma"] + asked["draft_gamma"]
    # as mspeckv.decoding.fits
    copies = states_held(0) + (tiers - 1) * states_held(reach_of(slack))
    if asked.method in USES_TIER1 and asked.speculation.tier1 == "retrieval":
        plan = asked.tier1
        if kv.latent or reads_keys(asked.speculation.retrieval):
            plan = replace(plan, chunks=0)  # no landmarks
        retrieval = plan.bytes(kv, asked["new_tokens"] + 1)
    # as mspeckv.accelerate.weight_copies
    copied = machine.kind == "cpu" and dtype == torch.float32 and shape.weights == "float"
    weights = sum(
        model.own_bytes(dtype) + (model.product_params * size if copied else 0)
        for model in (shape, draft)
        if model is not None
    )
    if draft is not None and asked.uses_draft:
        slots = streaming_slots(asked["sinks"], asked["window"], slack)
        scored = asked["draft_vocab"] * draft.hidden
        head = draft.outer_bytes(dtype, scored) * (2 if copied else 1)
        # a draft's windows are of the same length
        own = draft.windows * draft.kv(dtype).token_bytes * slots
        streaming = streaming_bytes(draft.kv(dtype), slots) + own
    parts = {
        "weights": nothing + weights,
        **places,
        "windows": tiers * shape.window_bytes(dtype, tokens, slack),
        "states": nothing + copies * shape.state_bytes,
        "retrieval": retrieval,
        "streaming": streaming,
        "head": head,
        "workspace": prefill_workspace((shape.hidden, shape.intermediate), size, asked["prefill"]),
        "runtime": nothing + (RUNTIME_BYTES if machine.kind == "cpu" else 0),
    }
    return Footprint(parts, offloaded)
