"""What a run would cost: closed forms from shapes, a machine and acceptance. Modelled throughout.

A round drafts for D milliseconds, then verifies. With K layers on-chip, R resident and M offloaded
in that order, c one layer's compute, q its unpacking and t its transfer, the verification can start
its offloaded layers at ``before = D + K c + R (c + q)``, and the round ends at the latest of

    before + M (c + q)                         compute is what lasts
    t + M (c + q)                              the same, once the first layer is there
    M t + c + q                                the link is: busy since the round began
    before + q + t + L (c + q)                 the link had to stop with its slots full, and
    before + q + L t + c + q                   what was left of it, L = M - ahead, lasts

the last two only where L > 0: the maximum over a pipeline's critical paths, its fill included. A
loop that does not prefetch (`Loop`) takes ``before + t + (M - 1) max(t, c + q) + c + q``.
Under LRU all M layers hit once M of them fit, and none does while they do not (a decoder's scan
is cyclic). Not modelled: rounds cut short at flush boundaries, packing itself, memory traffic of an
unthrottled copy on a CPU, prefill.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from transformers import PretrainedConfig

from mspeckv.config import METHODS, KVPolicy, Speculation, check_choice, default_width, refuse
from mspeckv.cost.acceptance import (
    Acceptance,
    expected_tokens,
    inner_passes,
    likely_acceptance,
)
from mspeckv.cost.footprint import Footprint, footprint, packing, plain_placement
from mspeckv.cost.hardware import Hardware, hardware
from mspeckv.cost.passes import choose_ms, pass_time, unpack_ms
from mspeckv.cost.setting import Setting, build_setting
from mspeckv.cost.shapes import ModelShape, draft_shape, model_shape
from mspeckv.decoding.sizes import USES_TIER1, WINDOW_SLACK
from mspeckv.kv.plan import LayerBytes, chunk_counts

Floats = NDArray[np.float64]

STEPS = (
    "tier 0 draft", "tier 1 verify", "tier 2 compute", "tier 2 unpack", "tier 2 wait",
    "retrieve", "draw",
)  # fmt: skip
"""Where a round's time goes: `WhatIf.steps`, in this order."""


@dataclass(frozen=True)
class EqualMemory:
    """The control: plain autoregressive decoding, unquantized, with the same device bytes.

    Attributes:
        on_chip: layers that these bytes can hold unquantized.
        fits: whether it fits at all.
        ms_per_token: its time.
        speedup: its time over the setting's.
    """

    on_chip: Any
    fits: Any
    ms_per_token: Any
    speedup: Any


@dataclass(frozen=True)
class WhatIf:
    """Predictions, numbers or arrays of the settings' shape; all modelled.

    Attributes:
        model, hardware, method: what was asked.
        ms_per_token: decoding alone, as in `RunSummary`.
        tokens_per_round: tokens that a round settles.
        round_ms: time of a round.
        steps: milliseconds per token by step, see `STEPS`; they add up to ``ms_per_token``.
        link_bytes_per_token: to the device, for verification.
        link_ms_per_token: time that the link is busy.
        passes_per_round: by tier, such as ``(20.1, 6.4, 1)``.
        memory: bytes by part.
        fits: whether the device's memory holds it.
        equal_memory: the control; None where it was not asked for.
    """

    model: str
    hardware: str
    method: str
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
    def host_bytes(self) -> Any:
        """KV on the host."""
        return self.memory.offloaded


def what_if(
    model: str | ModelShape | PretrainedConfig = "llama-2-7b",
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
    control: bool = True,
    **fields: Any,
) -> WhatIf:
    """Predict time, traffic and memory of one setting, or of arrays of them.

    Any number may be an array; arrays broadcast. Ten thousand settings take less than a second.

    Args:
        model: a name of `mspeckv.cost.MODELS`, a `ModelShape`, a transformers configuration or a
            model's folder.
        machine: a name of `mspeckv.cost.HARDWARE`, ``origin``, ``this``, or a `Hardware`.
        draft: tier 0's model; ``default`` for the catalogue's, ``none`` for none.
        method: as in `mspeckv.generate`; not an array.
        prefill: prompt tokens.
        new_tokens: tokens produced; the mean context holds half of them.
        policy: default ``KVPolicy`` with the method's width.
        speculation: lengths must be numbers (not ``auto``); ``draft_threshold`` is not modelled.
        acceptance: per-token acceptance at each nesting; default `likely_acceptance`.
        link_gbps: instead of the machine's.
        graphs: replay passes as graphs, on machines that can.
        control: also say what plain decoding would do in the same memory.
        fields: fields of `KVPolicy` and `Speculation` that replace those given, numbers or arrays
            (``tier0`` and ``tier1`` single words).

    Raises:
        ValueError: an unknown name or a setting that is not allowed.
    """
    check_choice("method", method, METHODS)
    shape, where = model_shape(model), hardware(machine)
    guesser = draft_shape(shape, draft)
    name = guesser.name if guesser else None
    setting = build_setting(
        method,
        shape.layers,
        policy or KVPolicy(bits=default_width(method)),
        speculation or Speculation(),
        acceptance or likely_acceptance(shape.name, name, method, prefill),
        {
            "prefill": prefill,
            "new_tokens": new_tokens,
            "link_gbps": where.link_gbps if link_gbps is None else link_gbps,
        },
        fields,
    )
    uses_draft = guesser is not None and setting.speculation.tier0 == "draft"
    if method == "vanilla" and not uses_draft and setting.speculation.tier0 != "lookup":
        raise refuse("method", method, "there is no draft: use another method, or tier0='lookup'")
    done = _round(setting, shape, guesser, where, graphs)
    memory = footprint(setting, shape, guesser, where)
    ms = done.ms / done.settled
    plain = _control(setting, shape, where, graphs, memory, ms) if control else None
    return WhatIf(
        model=shape.name,
        hardware=where.name,
        method=setting.method,
        ms_per_token=_out(ms),
        tokens_per_round=_out(done.settled),
        round_ms=_out(done.ms),
        steps={name: _out(part / done.settled) for name, part in done.steps.items()},
        link_bytes_per_token=_out(done.link_bytes / done.settled),
        link_ms_per_token=_out(done.link_bytes / setting.link_gbps / 1e6 / done.settled),
        passes_per_round=(_out(done.draft_passes), _out(done.middle_passes), 1),
        memory=Footprint(
            **{
                name: _out(part)
                for name, part in {**memory.parts, "offloaded": memory.offloaded}.items()
            }
        ),
        fits=_out(memory.device <= where.memory_gb * 1e9),
        equal_memory=plain,
    )


def _control(
    setting: Setting,
    shape: ModelShape,
    where: Hardware,
    graphs: bool,
    memory: Footprint,
    ms: Floats,
) -> EqualMemory:
    """Unquantized autoregressive decoding with the setting's device bytes."""
    on_chip, fits = plain_placement(setting, shape, where, memory.device)
    plain = _round(setting.plain(on_chip), shape, None, where, graphs)
    plain_ms = plain.ms / plain.settled
    return EqualMemory(_out(on_chip), _out(fits), _out(plain_ms), _out(plain_ms / ms))


def _out(values: Any) -> Any:
    """A plain number where a single setting was asked for."""
    array = np.asarray(values)
    return array.item() if array.ndim == 0 else array


@dataclass(frozen=True)
class _Round:
    """One round: milliseconds by step, and what it moves and settles."""

    steps: dict[str, Floats]
    settled: Floats
    link_bytes: Floats
    draft_passes: Floats
    middle_passes: Floats

    @property
    def ms(self) -> Floats:
        return np.asarray(sum(self.steps.values()))


def _round(
    setting: Setting, shape: ModelShape, draft: ModelShape | None, where: Hardware, graphs: bool
) -> _Round:
    """Draft, verify, draw: the parts of a round added up."""
    zero = np.zeros(setting.prefill.shape)
    method, guess, lengths = setting.method, setting.speculation, setting.lengths
    gamma = lengths["gamma"] if method != "autoregressive" else np.zeros_like(lengths["gamma"])
    guesses = guess.tier0 == "lookup" or (guess.tier0 == "draft" and draft is not None)
    rates, settled = setting.rates, zero + 1
    draft_passes, middle_passes, middle_read = zero, zero, zero
    if method in USES_TIER1:
        inner = inner_passes(
            rates["draft_middle"],
            lengths["draft_gamma"] if guesses else np.zeros_like(gamma),
            gamma,
        )
        draft_passes, middle_passes, middle_read = inner.draft, inner.middle, inner.read
        settled = expected_tokens(rates["middle_full"], gamma)
    elif method == "vanilla":
        draft_passes = zero + gamma
        settled = expected_tokens(rates["draft_full"], gamma)
    packed = packing(setting, shape, where.torch_dtype)
    steps = dict.fromkeys(STEPS, zero)
    if guess.tier0 == "draft" and draft is not None and method != "autoregressive":
        passes = draft_passes + where.loop.closing_passes
        steps["tier 0 draft"] = passes * _draft_ms(setting, draft, where, graphs)
    if method in USES_TIER1:
        steps["tier 1 verify"] = middle_passes * _middle_ms(
            setting, shape, where, packed, middle_read / np.maximum(middle_passes, 1), graphs
        )
        steps["retrieve"] = _retrieve_ms(setting, shape, where, settled, graphs)
    drafting = steps["tier 0 draft"] + steps["tier 1 verify"]
    verification, link_bytes = _verify(setting, shape, where, packed, gamma + 1, drafting, graphs)
    rows = gamma + 1 + middle_read + (draft_passes if guess.tier0 == "draft" else 0)
    steps |= verification
    steps["draw"] = zero + (rows * where.row_us + where.round_us) / 1e3
    return _Round(steps, settled, link_bytes, draft_passes, middle_passes)


def _draft_ms(setting: Setting, draft: ModelShape, where: Hardware, graphs: bool) -> Floats:
    """One pass of tier 0 over sinks, window and half of the slack."""
    lengths = setting.lengths
    seen = np.minimum(setting.context, lengths["sinks"] + lengths["window"] + WINDOW_SLACK / 2)
    share = np.where(lengths["draft_vocab"] > 0, lengths["draft_vocab"] / draft.vocab, 1.0)
    return pass_time(draft, where, "draft", 1.0, seen, graphs, share).total


def _kept(setting: Setting) -> tuple[Floats, Floats]:
    """Prompt tokens in tier 1's cache, and chunks that they are chosen from."""
    lengths = setting.lengths
    chunks, chosen, rest = chunk_counts(
        lengths["budget"], lengths["chunk"], lengths["recent"], setting.prefill - 1
    )
    return chosen * lengths["chunk"] + rest, np.where(chosen < chunks, chunks, 0)


def _middle_ms(
    setting: Setting,
    shape: ModelShape,
    where: Hardware,
    packed: LayerBytes,
    read: Floats,
    graphs: bool,
) -> Floats:
    """One pass of tier 1: over its retrieval cache, or over the upper planes of everything."""
    if setting.speculation.tier1 == "nibble":
        coarse = _unpack(setting, where, packed, graphs, packed.record - packed.streamed)
        one = pass_time(shape, where, "target", read, setting.context, graphs)
        return np.asarray(one.total + (shape.layers - setting.on_chip) * coarse)
    kept, _ = _kept(setting)
    return pass_time(shape, where, "target", read, kept + setting.new_tokens / 2, graphs).total


def _retrieve_ms(
    setting: Setting, shape: ModelShape, where: Hardware, settled: Floats, graphs: bool
) -> Floats:
    """Choosing chunks anew: at most once a round, once in ``refresh`` tokens otherwise."""
    kept, chunks = _kept(setting)
    refresh = setting.lengths["refresh"]
    if setting.speculation.tier1 == "nibble":
        return np.zeros_like(settled)
    often = np.where((refresh > 0) & (chunks > 0), settled / np.maximum(refresh, settled), 0.0)
    token = shape.kv(where.torch_dtype).token_bytes
    # landmarks are read, chosen tokens read and written
    moved = (chunks / 2 + 2 * kept) * token
    return np.asarray(often * shape.layers * choose_ms(where, moved, graphs))


def _unpack(
    setting: Setting, where: Hardware, packed: LayerBytes, graphs: bool, record: Any
) -> Floats:
    """Milliseconds of unpacking one layer, of whose blocks ``record`` bytes are read."""
    context, out = setting.context, np.zeros(setting.prefill.shape)
    moved = packed.blocks(context) * record + context * packed.token
    for place, policy in enumerate(setting.policies):
        widths = ("nibble",) if policy.nibble else tuple(str(width) for width in policy.widths)
        each = [unpack_ms(where, width, moved, context, graphs) for width in widths]
        out = np.where(setting.which == place, sum(each) / len(each), out)
    return out


def _verify(
    setting: Setting,
    shape: ModelShape,
    where: Hardware,
    packed: LayerBytes,
    tokens: Any,
    drafting: Floats,
    graphs: bool,
) -> tuple[dict[str, Floats], Floats]:
    """The steps of tier 2's pass, and the bytes that cross the link for it; see the module."""
    one = pass_time(shape, where, "target", tokens, setting.context, graphs)
    compute, unpack = one.layer, _unpack(setting, where, packed, graphs, packed.record)
    offloaded, resident = setting.offloaded, setting.fixed_resident
    hit = (setting.cached >= offloaded) & (offloaded > 0)
    missing = np.where(hit, 0, offloaded)
    held_unpack = 0.0 if where.loop.keeps_unpacked else unpack
    unpacked_residents = np.where(packed.float_residents, 0.0, held_unpack)
    held = resident * unpacked_residents + np.where(hit, offloaded, 0) * held_unpack
    layer_bytes = packed.blocks(setting.context) * packed.streamed
    transfer = layer_bytes / setting.link_gbps / 1e6
    start = (shape.layers - missing) * compute + held
    work = start + missing * (compute + unpack)
    streams = missing > 0
    if where.loop.prefetch:
        late, one_more = missing - packed.ahead, compute + unpack
        linked = np.maximum(transfer + missing * one_more, missing * transfer + one_more)
        stopped = np.maximum(transfer + late * one_more, late * transfer + one_more)
        stopped = np.where(late > 0, start + unpack + stopped, 0.0)
        paths = np.maximum(linked - drafting, stopped)
        waiting = np.where(streams, np.maximum(0.0, paths - work), 0.0)
    else:
        slower = np.maximum(0.0, transfer - compute - unpack)
        waiting = np.where(streams, transfer + (missing - 1) * slower, 0.0)
    steps = {
        "tier 2 compute": shape.layers * compute + one.outside,
        "tier 2 unpack": held + missing * unpack,
        "tier 2 wait": waiting,
    }
    return steps, missing * layer_bytes
