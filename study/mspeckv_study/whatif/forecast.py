"""What a run would cost: closed forms from shapes, a machine and acceptance. Modelled throughout.

`mspeckv_study.whatif.round` has a round's time, `mspeckv_study.whatif.footprint` the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from transformers import PretrainedConfig, PreTrainedModel

from mspeckv.models.load import parse_weights
from mspeckv.settings import (
    METHODS,
    KVPolicy,
    Speculation,
    check_choice,
    check_kind,
    default_width,
    refuse,
)
from mspeckv_study.whatif.acceptance import Acceptance, Floats, likely_acceptance
from mspeckv_study.whatif.catalogue import draft_shape, model_shape
from mspeckv_study.whatif.footprint import Footprint, footprint
from mspeckv_study.whatif.here import this_machine
from mspeckv_study.whatif.machines import HARDWARE, NAMES, Hardware, origin_machine
from mspeckv_study.whatif.question import Question, ask
from mspeckv_study.whatif.round import round_cost
from mspeckv_study.whatif.shapes import ModelShape


@dataclass(frozen=True)
class EqualMemory:
    """The control: plain autoregressive decoding, unquantized, with the same device bytes.

    Attributes:
        on_chip: layers that these bytes can hold unquantized.
        fits: whether it fits at all.
        speedup: its time over the setting's.
    """

    on_chip: Any
    fits: Any
    ms_per_token: Any
    speedup: Any


@dataclass(frozen=True)
class Forecast:
    """Predictions, numbers or arrays of the settings' shape; all modelled.

    Attributes:
        grows: which layers grow, where not all do.
        ms_per_token: decoding alone, as in `RunSummary`.
        tokens_per_round: tokens that a round settles.
        steps: milliseconds per token by step, see `STEPS`; they add up to ``ms_per_token``.
        link_bytes_per_token: to the device, for verification.
        link_ms_per_token: time that the link is busy.
        passes_per_round: by tier, such as ``(20.1, 6.4, 1)``.
        fits: whether the device's memory holds it.
        equal_memory: the control; None where it was not asked for.
    """

    model: str
    hardware: str
    method: str
    grows: str
    ms_per_token: Any
    tokens_per_round: Any
    round_ms: Any
    steps: Mapping[str, Any]
    link_bytes_per_token: Any
    link_ms_per_token: Any
    passes_per_round: tuple[Any, Any, Any]
    memory: Footprint
    fits: Any
    equal_memory: EqualMemory | None

    @property
    def tokens_per_second(self) -> Any:
        """Of decoding."""
        return 1e3 / self.ms_per_token

    @property
    def device_bytes(self) -> Any:
        """Peak on the device."""
        return self.memory.device

    @property
    def kv_device_bytes(self) -> Any:
        """Of that, KV alone."""
        return self.memory.kv_device

    @property
    def host_bytes(self) -> Any:
        """KV on the host."""
        return self.memory.offloaded


def what_if(
    model: str | ModelShape | PretrainedConfig | PreTrainedModel = "llama-2-7b",
    machine: str | Hardware = "h100",
    *,
    draft: str | ModelShape | None = "default",
    method: str = "mspeckv",
    prefill: ArrayLike = 16384,
    new_tokens: ArrayLike = 256,
    policy: KVPolicy | None = None,
    speculation: Speculation | None = None,
    acceptance: Acceptance | None = None,
    link_gbps: ArrayLike | None = None,
    graphs: bool = True,
    weights: str | None = None,
    control: bool = True,
    **fields: Any,
) -> Forecast:
    """Predict time, traffic and memory of one setting, or of arrays of them.

    Any number may be an array; arrays broadcast. Ten thousand settings take less than a second.

    Args:
        model: a name of `mspeckv_study.whatif.MODELS`, a `ModelShape`, a transformers
            configuration, a model's folder, or a loaded model, whose weights count as held.
        machine: a name of `mspeckv_study.whatif.HARDWARE`, ``origin``, ``this``, or a `Hardware`.
        draft: tier 0's model; ``default`` for the catalogue's, ``none`` for none.
        method: as in `mspeckv.generate`; not an array.
        new_tokens: tokens produced; the mean context holds half of them.
        policy: default ``KVPolicy`` with the method's width.
        speculation: lengths must be numbers (not ``auto``); ``draft_threshold`` is not modelled.
        acceptance: per-token acceptance at each nesting; default `likely_acceptance`.
        link_gbps: instead of the machine's.
        graphs: replay passes as graphs, on machines that can.
        weights: ``float``, ``int8`` or ``int4``, as `mspeckv.load_pair`; default: as ``model`` has
            them. What unpacking takes within a product is in measured passes only.
        control: also say what plain decoding would do in the same memory.
        fields: fields of `KVPolicy` and `Speculation` that replace those given, numbers or arrays
            (``tier0`` and ``tier1`` single words).

    Raises:
        ValueError: an unknown name or a setting that is not allowed.
    """
    check_choice("method", method, METHODS)
    numbers = {"prefill": prefill, "new_tokens": new_tokens, "link_gbps": link_gbps}
    for name, value in numbers.items():
        if value is not None and np.asarray(value).dtype.kind in "OSU":
            raise refuse(name, value, "use a number, or an array of them")
    check_kind("policy", policy, KVPolicy | None, "a KVPolicy")
    check_kind("speculation", speculation, Speculation | None, "a Speculation")
    check_kind("acceptance", acceptance, Acceptance | None, "an Acceptance")
    where = hardware(machine)
    shape = shape_on(where, model, weights)
    where = where if graphs else replace(where, graph_us=None)
    guesser = draft_shape(shape, draft)
    link = where.link_gbps if link_gbps is None else link_gbps
    asked = ask(
        method,
        shape.growing,
        policy or KVPolicy(bits=default_width(method)),
        speculation or Speculation(),
        acceptance
        or likely_acceptance(shape.name, guesser.name if guesser else None, method, prefill),
        {"prefill": prefill, "new_tokens": new_tokens, "link_gbps": link},
        fields,
    )
    tier0 = asked.speculation.tier0
    if method == "vanilla" and tier0 != "lookup" and (guesser is None or tier0 == "none"):
        raise refuse("method", method, "there is no draft: use another method, or tier0='lookup'")
    done = round_cost(asked, shape, guesser, where)
    memory = footprint(asked, shape, guesser, where)
    ms = done.ms / done.settled
    return Forecast(
        model=shape.name,
        hardware=where.name,
        method=method,
        grows=shape.described,
        ms_per_token=_out(ms),
        tokens_per_round=_out(done.settled),
        round_ms=_out(done.ms),
        steps={name: _out(part / done.settled) for name, part in done.steps.items()},
        link_bytes_per_token=_out(done.link_bytes / done.settled),
        link_ms_per_token=_out(done.link_bytes / asked["link_gbps"] / 1e6 / done.settled),
        passes_per_round=(_out(done.draft_passes), _out(done.middle_passes), 1),
        memory=Footprint(
            {name: _out(part) for name, part in memory.parts.items()}, _out(memory.offloaded)
        ),
        fits=_out(memory.device <= where.memory_gb * 1e9),
        equal_memory=_control(asked, shape, where, memory.device, ms) if control else None,
    )


def shape_on(
    where: Hardware,
    model: str | ModelShape | PretrainedConfig | PreTrainedModel,
    weights: str | None = None,
) -> ModelShape:
    """A model's shape, its weights as asked.

    Raises:
        ValueError: an unknown name, or a machine on which no weights are held so.
    """
    shape = model_shape(model)
    shape = replace(shape, weights=weights or shape.weights)
    device = torch.device("cpu" if where.kind == "cpu" else "cuda")
    parse_weights(shape.weights, device, where.torch_dtype)
    return shape


def hardware(machine: str | Hardware) -> Hardware:
    """A machine by its name, or as it is; ``origin`` is fitted, ``this`` is calibrated.

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(machine, Hardware):
        return machine
    name = str(machine).lower()
    if name not in NAMES:
        raise refuse("hardware", machine, f"use one of {', '.join(NAMES)}")
    if name in HARDWARE:
        return HARDWARE[name]
    return origin_machine() if name == "origin" else this_machine()


def _control(
    asked: Question, shape: ModelShape, where: Hardware, room: Any, ms: Floats
) -> EqualMemory:
    """Unquantized autoregressive decoding with as many layers on-chip as ``room`` bytes hold."""
    # every number of layers at once, along an axis in front of the settings' own
    counts = np.arange(shape.growing + 1).reshape(-1, *(1 for _ in asked.which.shape))
    plainly = asked.plain(np.broadcast_to(counts, (shape.growing + 1, *asked.which.shape)))
    enough = footprint(plainly, shape, None, where).device <= room
    on_chip, fits = (counts * enough).max(axis=0), enough.any(axis=0)
    plain = round_cost(asked.plain(on_chip), shape, None, where)
    plain_ms = plain.ms / plain.settled
    return EqualMemory(_out(on_chip), _out(fits), _out(plain_ms), _out(plain_ms / ms))


def _out(values: Any) -> Any:
    """A plain number where a single setting was asked for."""
    array = np.asarray(values)
    return array.item() if array.ndim == 0 else array
