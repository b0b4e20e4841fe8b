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
from functools import cached_property
from typing import Any

import numpy as np

from mspeckv.decoding.fits import USES_TIER1
from mspeckv.kv.sizes import LayerBytes, packed_blocks
from mspeckv.kv.windows import WINDOW_SLACK
from mspeckv_study.whatif.acceptance import Floats, expected_tokens, inner_passes
from mspeckv_study.whatif.footprint import packing
from mspeckv_study.whatif.machines import Hardware
from mspeckv_study.whatif.passes import choose_ms, pass_time, unpack_ms
from mspeckv_study.whatif.question import Question
from mspeckv_study.whatif.shapes import ModelShape

STEPS = (
    "tier 0 draft", "tier 1 verify", "tier 2 compute", "tier 2 unpack", "tier 2 wait",
    "retrieve", "draw",
)  # fmt: skip
"""Where a round's time goes: `Forecast.steps`, in this order."""


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
    asked: Question, shape: ModelShape, draft: ModelShape | None, where: Hardware
) -> RoundCost:
    """Draft, verify, draw: the parts of a round added up."""
    method, zero = asked.method, np.zeros(asked["prefill"].shape)
    gamma = zero if method == "autoregressive" else zero + asked["gamma"]
    drafted = asked.uses_draft and draft is not None
    settled, draft_passes, middle_passes, middle_read = zero + 1, zero, zero, zero
    if method in USES_TIER1:
        guesses = drafted or asked.speculation.tier0 == "lookup"
        inner = inner_passes(asked["draft_middle"], asked["draft_gamma"] * guesses, asked["gamma"])
        draft_passes, middle_passes, middle_read = inner.draft, inner.middle, inner.read
        settled = expected_tokens(asked["middle_full"], gamma)
    elif method == "vanilla":
        draft_passes, settled = gamma, expected_tokens(asked["draft_full"], gamma)
    model = _Round(asked, shape, where)
    steps = dict.fromkeys(STEPS, zero)
    if draft is not None and drafted:
        passes = draft_passes + where.loop.closing_passes
        steps["tier 0 draft"] = passes * model.draft_ms(draft)
    if method in USES_TIER1:
        each = model.middle_ms(middle_read / np.maximum(middle_passes, 1))
        steps["tier 1 verify"] = middle_passes * each
        steps["retrieve"] = model.retrieve_ms(settled)
    drafting = steps["tier 0 draft"] + steps["tier 1 verify"]
    verification, link_bytes = model.verify(gamma + 1, drafting)
    rows = gamma + 1 + middle_read + (draft_passes if asked.uses_draft else 0)
    steps |= verification
    steps["draw"] = (rows * where.row_us + where.round_us) / 1e3
    return RoundCost(steps, settled, link_bytes, draft_passes, middle_passes)


@dataclass(frozen=True)
class _Round:
    """What the steps of a round take, each for every setting asked about."""

    asked: Question
    shape: ModelShape
    where: Hardware

    @cached_property
    def packed(self) -> LayerBytes:
        """Bytes that each setting's places are made of."""
        return packing(self.asked, self.shape, self.where.torch_dtype)

    def draft_ms(self, draft: ModelShape) -> Floats:
        """One pass of tier 0 over sinks, window and half of the slack."""
        asked = self.asked
        seen = np.minimum(asked.context, asked["sinks"] + asked["window"] + WINDOW_SLACK / 2)
        scored = asked["draft_vocab"]
        share = np.where(scored > 0, scored / draft.vocab, 1.0)
        return pass_time(draft, self.where, "draft", 1.0, seen, share).total

    def middle_ms(self, read: Floats) -> Floats:
        """One pass of tier 1: over its retrieval cache, or over the upper planes of everything."""
        asked, shape = self.asked, self.shape
        nibble = asked.speculation.tier1 == "nibble"
        context = asked.context if nibble else asked.tier1.kept + asked["new_tokens"] / 2
        floats = pass_time(shape, self.where, "target", read, context).total
        if not nibble:
            return floats
        coarse = self.unpack(self.packed.record - self.packed.streamed)
        return np.asarray(floats + (shape.growing - asked["on_chip"]) * coarse)

    def retrieve_ms(self, settled: Floats) -> Floats:
        """Choosing chunks anew: at most once a round, once in ``refresh`` tokens otherwise."""
        if self.asked.speculation.tier1 == "nibble":
            return np.zeros_like(settled)
        plan, refresh = self.asked.tier1, self.asked["refresh"]
        chooses = (refresh > 0) & (plan.kept < plan.prompt)
        often = np.where(chooses, settled / np.maximum(refresh, settled), 0.0)
        # landmarks are read, chosen tokens read and written
        moved = (plan.chunks / 2 + 2 * plan.kept) * self.packed.token
        return np.asarray(often * self.shape.growing * choose_ms(self.where, moved))

    def unpack(self, record: Any) -> Floats:
        """Milliseconds of unpacking one layer, of whose blocks ``record`` bytes are read."""
        context, out = self.asked.context, np.zeros(self.asked["prefill"].shape)
        moved = packed_blocks(self.packed, context) * record + context * self.packed.token
        for place, policy in enumerate(self.asked.policies):
            widths = ("nibble",) if policy.nibble else tuple(str(width) for width in policy.widths)
            each = [unpack_ms(self.where, one, moved, context) for one in widths]
            out = np.where(self.asked.which == place, sum(each) / len(each), out)
        return out

    def verify(self, tokens: Any, drafting: Floats) -> tuple[dict[str, Floats], Floats]:
        """The steps of tier 2's pass, and the bytes over the link for it; see the module."""
        asked, where, packed, layers = self.asked, self.where, self.packed, self.shape.growing
        one = pass_time(self.shape, where, "target", tokens, asked.context)
        compute, unpack = one.layer, self.unpack(packed.record)
        offloaded = asked.offloaded
        hit = (asked.cached >= offloaded) & (offloaded > 0)
        missing = np.where(hit, 0, offloaded)
        held_unpack = 0.0 if where.loop.keeps_unpacked else unpack
        held = (asked.fixed_resident + np.where(hit, offloaded, 0)) * held_unpack
        layer_bytes = packed_blocks(packed, asked.context) * packed.streamed
        transfer = layer_bytes / asked["link_gbps"] / 1e6 + where.copy_us / 1e3
        start = (layers - missing) * compute + held
        work = start + missing * (compute + unpack)
        if where.loop.prefetch:
            late, one_more = missing - packed.ahead, compute + unpack
            linked = np.maximum(transfer + missing * one_more, missing * transfer + one_more)
            stopped = np.maximum(transfer + late * one_more, late * transfer + one_more)
            stopped = np.where(late > 0, start + unpack + stopped, 0.0)
            waiting = np.maximum(0.0, np.maximum(linked - drafting, stopped) - work)
        else:
            slower = np.maximum(0.0, transfer - compute - unpack)
            waiting = transfer + (missing - 1) * slower
        steps = {
            "tier 2 compute": layers * compute + one.outside,
            "tier 2 unpack": held + missing * unpack,
            "tier 2 wait": np.where(missing > 0, waiting, 0.0),
        }
        return steps, missing * layer_bytes
