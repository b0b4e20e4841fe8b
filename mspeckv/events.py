"""What a run reports: immutable records, the one stream that charts, experiments and files read.

`mspeckv.stream` yields one `Prefill`, then a `Round` per tier-2 pass, then one `RunSummary`.
Times are seconds since the run began (``start``) and durations in milliseconds (``ms``), both
measured with the host's monotonic clock; a link's ``kind`` says whether its times are emulated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from operator import add
from typing import Any, Literal

Purpose = str
"""Why bytes cross the link; one of `PURPOSES`, or what an extension calls its own."""
Direction = Literal["to_device", "to_host"]
Step = Literal["prefill", "draft", "verify", "decode"]

PURPOSES: tuple[Purpose, ...] = ("prefill", "verify", "flush")
"""The engine's: a prompt's KV leaves, tier 2 fetches a layer, finished blocks leave."""


@dataclass(frozen=True)
class Transfer:
    """One copy over the link, counted where the bytes were copied.

    Attributes:
        bytes: sum of the sizes of the tensors copied.
        ms: time from the copy's start to its arrival (emulated on CPU with a throttled link).
        wait_ms: time that compute stood still for it.
    """

    direction: Direction
    purpose: Purpose
    layer: int
    tier: int
    bytes: int
    start: float
    ms: float
    wait_ms: float = 0.0


@dataclass(frozen=True)
class Pass:
    """One forward pass of a tier's model.

    Attributes:
        tier: 0 draft, 1 target over its retrieval cache, 2 target over its full cache.
        step: ``prefill``, ``draft`` (the lowest tier guesses one token), ``verify`` or ``decode``.
        tokens: input tokens of the pass.
        kv_bytes: bytes of keys and values that attention read.
        hits: packed layers, of tier 2, that the pass found on the device; of tier 1, chunks chosen
            since its last pass (`mspeckv.extensions.hot_chunks`).
        misses: those that had to cross the link for it.
        builds: whether a GPU's graph of such passes was still to be captured: part of its time is
            taken but once.
    """

    tier: int
    step: Step
    tokens: int
    kv_bytes: int
    start: float
    ms: float
    hits: int = 0
    misses: int = 0
    builds: bool = False


@dataclass(frozen=True)
class TierCount:
    """Tokens a tier handed up (``proposed``) and how many the next tier kept (``accepted``).

    What the next tier kept after the token that ended the run is not counted as accepted. The top
    tier proposes to nobody: both are 0.
    """

    tier: int
    passes: int
    proposed: int
    accepted: int
    ms: float

    @property
    def acceptance_rate(self) -> float | None:
        """``accepted / proposed``, or None where nothing was proposed."""
        return self.accepted / self.proposed if self.proposed else None


@dataclass(frozen=True)
class Memory:
    """Bytes of KV and of the tiers' buffers, by place.

    Attributes:
        on_chip_bytes: unquantized KV of on-chip layers.
        resident_bytes: quantized KV of resident layers.
        offloaded_bytes: KV held in host memory.
        peak_device_bytes: everything a device would hold at most: weights, on-chip and resident
            KV, tail, scratch and double buffers, retrieval and streaming caches, and the
            prefill's activations (see `mspeckv.decoding.fits`).
        kv_device_bytes: of that, all that is KV: `peak_device_bytes` less weights, copies of them
            and activations. None where it is not known: in results of earlier versions.
    """

    on_chip_bytes: int
    resident_bytes: int
    offloaded_bytes: int
    peak_device_bytes: int
    kv_device_bytes: int | None = None


@dataclass(frozen=True)
class Prefill:
    """The prompt has been read by every tier."""

    tokens: int
    seconds: float
    passes: tuple[Pass, ...]
    transfers: tuple[Transfer, ...]
    memory: Memory


@dataclass(frozen=True)
class Plan:
    """The lengths of one round: the settings', or what ``"auto"`` chose for it.

    Attributes:
        path: tiers in use, bottom first, such as ``(0, 1, 2)``; ``(2,)`` where nothing is guessed.
        gamma: tokens proposed to tier 2 at most.
        draft_gamma: tokens tier 0 proposes to tier 1 at most; 0 where it does not.
        stop: tier 0 ends a chain of guesses once the chance that all of it is kept falls under
            this (`mspeckv.adaptive.lengths`); 0 for never.
    """

    path: tuple[int, ...]
    gamma: int
    draft_gamma: int
    stop: float = 0.0


@dataclass(frozen=True)
class Guess:
    """Tokens that one tier put to another, and what came of them.

    In a round's order, each guess starts where the text of the one before it ended: a guess of
    tier 0 to tier 1 hands on ``accepted + 1`` tokens, which are part of tier 1's own guess.

    Attributes:
        tier: who guessed.
        verifier: the tier that tested it in one pass.
        tokens: guessed token ids; none where the guesser had nothing to say.
        accepted: how many of them, from the first on, the verifier kept; those after the token
            that ended a run too.
        reply: the verifier's own token after those: a correction, or a bonus where all were kept.
        held: how likely a lookup, or a draft that was asked, held each of its tokens.
    """

    tier: int
    verifier: int
    tokens: tuple[int, ...]
    accepted: int
    reply: int
    held: tuple[float, ...] = ()

    @property
    def rejected(self) -> tuple[int, ...]:
        """What was not kept: the token that failed the test, and those built on it."""
        return self.tokens[self.accepted :]


@dataclass(frozen=True)
class Round:
    """One tier-2 pass and the drafting before it.

    Attributes:
        index: 0, 1, ...
        tokens: token ids settled by this round, at least one.
        text: what they add to the text (whole characters only).
        settled_by: for each token, the tier whose guess it was: 0 and 1 were accepted by every
            tier above; 2 is the target's own correction or bonus.
        proposed: tokens put to tier 2.
        accepted: how many of them tier 2 kept, up to the token that ended the run.
        plan: the lengths it was run with.
        guesses: what was guessed and tested, in time's order; the last one is tier 2's test.
        tiers: counts of this round alone, one per tier in use.
    """

    index: int
    start: float
    ms: float
    tokens: tuple[int, ...]
    text: str
    settled_by: tuple[int, ...]
    proposed: int
    accepted: int
    plan: Plan
    guesses: tuple[Guess, ...]
    tiers: tuple[TierCount, ...]
    passes: tuple[Pass, ...]
    transfers: tuple[Transfer, ...]

    def link_bytes(self, purpose: Purpose | None = None) -> int:
        """Bytes over the link in this round, both directions, optionally of one purpose."""
        return sum(t.bytes for t in self.transfers if purpose in (None, t.purpose))


@dataclass(frozen=True)
class LinkSummary:
    """Traffic of a whole run.

    Attributes:
        kind: ``emulated`` (throttled RAM copy), ``memory`` (unthrottled RAM copy) or ``pcie``.
        gbps: the emulated bandwidth in 1e9 bytes/s; None where the link is not throttled.
        ms: time the link was busy during decode.
    """

    kind: str
    gbps: float | None
    to_device_bytes: int
    to_host_bytes: int
    ms: float


@dataclass(frozen=True)
class Residency:
    """How often tier 2 found a packed layer on the device, over all decoding passes.

    Attributes:
        hits: lookups of layers that were there.
        misses: lookups that had to fetch over the link.
        hit_rate: ``hits / (hits + misses)``; None where every layer is on-chip.
    """

    hits: int
    misses: int
    hit_rate: float | None

    @classmethod
    def of(cls, passes: Iterable[Pass]) -> Residency:
        """Add up what passes saw."""
        counted = tuple(one for one in passes if one.tier == 2)
        hits, misses = sum(p.hits for p in counted), sum(p.misses for p in counted)
        return cls(hits, misses, hits / (hits + misses) if hits + misses else None)


@dataclass(frozen=True)
class RunSummary:
    """A finished (or cancelled) run: the figures of the JSON contract.

    ``tokens_per_second`` and ``ms_per_token`` are measured over decode alone. ``kv_read_bytes``
    has a number for each record of ``tiers``: the KV that its decoding passes read.
    """

    tokens: tuple[int, ...]
    text: str
    settled_by: tuple[int, ...]
    tokens_per_second: float
    ms_per_token: float
    prefill_seconds: float
    rounds: int
    accepted_per_round: float
    tiers: tuple[TierCount, ...]
    kv_read_bytes: tuple[int, ...]
    link: LinkSummary
    residency: Residency
    memory: Memory
    cancelled: bool
    config: dict[str, Any]
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries with the keys of the command line's ``--json``."""
        return asdict(self)


Event = Prefill | Round | RunSummary


def total_bytes(transfers: Iterable[Transfer], direction: Direction) -> int:
    """Bytes that crossed the link in one direction."""
    return sum(t.bytes for t in transfers if t.direction == direction)


def count_tiers(parts: Iterable[TierCount]) -> tuple[TierCount, ...]:
    """Counts of several rounds added up, one record per tier, in tier order."""
    sums: dict[int, tuple[Any, ...]] = {}
    for part in parts:
        counts = part.passes, part.proposed, part.accepted, part.ms
        sums[part.tier] = tuple(map(add, sums.get(part.tier, (0, 0, 0, 0.0)), counts))
    return tuple(TierCount(tier, *sums[tier]) for tier in sorted(sums))
