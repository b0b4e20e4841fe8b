"""One round, step by step: drafting, verification with its overlap, drawing.

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

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mspeckv.cost.acceptance import expected_tokens, inner_passes
from mspeckv.cost.footprint import packing
from mspeckv.cost.hardware import Hardware
from mspeckv.cost.passes import choose_ms, pass_time, unpack_ms
from mspeckv.cost.setting import Setting
from mspeckv.cost.shapes import ModelShape
from mspeckv.decoding.sizes import USES_TIER1, WINDOW_SLACK
from mspeckv.kv.plan import LayerBytes, chunk_counts

Floats = NDArray[np.float64]

STEPS = (
    "tier 0 draft", "tier 1 verify", "tier 2 compute", "tier 2 unpack", "tier 2 wait",
    "retrieve", "draw",
)  # fmt: skip
"""Where a round's time goes: `WhatIf.steps`, in this order."""


@dataclass(frozen=True)
class RoundCost:
    """One round.

    Attributes:
        steps: milliseconds by step, see `STEPS`.
        settled: tokens.
        link_bytes: to the device, for verification.
        draft_passes: of tier 0.
        middle_passes: of tier 1.
    """

    steps: dict[str, Floats]
    settled: Floats
    link_bytes: Floats
    draft_passes: Floats
    middle_passes: Floats

    @property
    def ms(self) -> Floats:
        """Sum of the steps."""
        return np.asarray(sum(self.steps.values()))


def round_cost(
    setting: Setting, shape: ModelShape, draft: ModelShape | None, where: Hardware, graphs: bool
) -> RoundCost:
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
    return RoundCost(steps, settled, link_bytes, draft_passes, middle_passes)


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
    transfer = layer_bytes / setting.link_gbps / 1e6 + where.copy_us / 1e3
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
