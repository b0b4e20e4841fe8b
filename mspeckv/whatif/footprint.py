"""Bytes on each side, by the formulas that a run is checked against before it starts.

`mspeckv.kv.sizes` sizes the caches, `mspeckv.decoding.fits` the rest; here they are asked for
arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from mspeckv.decoding.fits import RUNTIME_BYTES, USES_TIER1, WINDOW_SLACK
from mspeckv.kv.sizes import LayerBytes, placed_sizes
from mspeckv.kv.streaming import streaming_slots
from mspeckv.whatif.machines import Hardware
from mspeckv.whatif.question import Question
from mspeckv.whatif.shapes import ModelShape


@dataclass(frozen=True)
class Footprint:
    """Bytes, one array entry per setting; all modelled.

    Attributes:
        weights: both models', shared tensors once.
        on_chip: unquantized KV of on-chip layers.
        resident: quantized KV on the device.
        tail: newest tokens of packed layers, unquantized.
        slots: where offloaded layers arrive.
        scratch: where a layer is unpacked.
        retrieval: tier 1's cache and landmarks.
        streaming: tier 0's cache.
        workspace: activations of the prefill.
        runtime: the libraries' own, on a CPU.
        offloaded: KV on the host.
    """

    weights: Any
    on_chip: Any
    resident: Any
    tail: Any
    slots: Any
    scratch: Any
    retrieval: Any
    streaming: Any
    workspace: Any
    runtime: Any
    offloaded: Any

    @property
    def parts(self) -> dict[str, Any]:
        """What lies on the device, by name."""
        names = [part.name for part in fields(self) if part.name != "offloaded"]
        return {name: getattr(self, name) for name in names}

    @property
    def device(self) -> Any:
        """Sum of `parts`: the peak on the device."""
        return sum(self.parts.values())


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
    kv, size = shape.kv(machine.torch_dtype), machine.torch_dtype.itemsize
    lengths, guess = asked.lengths, asked.speculation
    sizes = placed_sizes(
        packing(asked, shape, machine.torch_dtype),
        asked.on_chip,
        asked.fixed_resident,
        asked.offloaded,
        asked.cached,
        asked.prefill + asked.new_tokens,
    )
    nothing = np.zeros_like(asked.prefill)
    retrieval = streaming = nothing
    if asked.method in USES_TIER1 and guess.tier1 == "retrieval":
        kept, chunks = asked.tier1
        grown = asked.new_tokens + 1
        retrieval = kv.layers * (2 * (kept + grown) + chunks) * kv.token_bytes // 2
    # as mspeckv.accelerate.weight_copies
    copied = machine.kind == "cpu" and machine.torch_dtype == torch.float32
    weights = sum(
        (model.own_params + (model.product_params if copied else 0)) * size
        for model in (shape, draft)
        if model is not None
    )
    if draft is not None and asked.method != "autoregressive" and guess.tier0 == "draft":
        slack: Any = WINDOW_SLACK + lengths["gamma"] + lengths["draft_gamma"]
        sinks: Any = lengths["sinks"]
        window: Any = lengths["window"]
        slots = streaming_slots(sinks, window, slack)
        head = lengths["draft_vocab"] * draft.hidden * size * (2 if copied else 1)
        streaming = draft.layers * slots * draft.kv(machine.torch_dtype).token_bytes + head
    return Footprint(
        weights=nothing + weights,
        **{name: sizes[name] for name in ("on_chip", "resident", "tail", "slots", "scratch")},
        retrieval=retrieval,
        streaming=streaming,
        # as mspeckv.decoding.fits.prefill_workspace
        workspace=asked.prefill * size * (4 * shape.intermediate + 6 * shape.hidden),
        runtime=nothing + (RUNTIME_BYTES if machine.kind == "cpu" else 0),
        offloaded=sizes["offloaded"],
    )


def plain_placement(
    asked: Question, shape: ModelShape, machine: Hardware, device_bytes: Any
) -> tuple[Any, Any]:
    """Most layers on-chip that unquantized autoregressive decoding can have in so many bytes.

    Returns:
        The number of layers, and whether even none on-chip needs no more than ``device_bytes``.
    """
    shape_of = asked.prefill.shape
    # every number of layers at once, along an axis in front of the settings' own
    counts = np.arange(shape.layers + 1).reshape(-1, *(1 for _ in shape_of))
    plain = asked.plain(np.broadcast_to(counts, (shape.layers + 1, *shape_of)))
    enough = footprint(plain, shape, None, machine).device <= device_bytes
    return (counts * enough).max(axis=0), enough.any(axis=0)
