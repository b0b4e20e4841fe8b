"""Runs of one setting together: what is certain of them, what jitters, and how they are named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median_low
from typing import Any

from mspeckv_widgets.charts.theme import TIERS
from mspeckv_widgets.record import RunRecord, Setting

ENOUGH = 3
"""Fewest runs of a setting from which a difference in time may be claimed."""


@dataclass(frozen=True)
class Spread:
    """Median, of an even number the lower one, and range of a few runs."""

    low: float
    middle: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(min(values), median_low(values), max(values), len(values))

    @property
    def width(self) -> float:
        """From the least to the most."""
        return self.high - self.low


def apart(a: Spread, b: Spread) -> bool:
    """Whether a difference may be claimed: enough runs, no overlap, more than either's range."""
    if min(a.count, b.count) < ENOUGH or (a.low <= b.high and b.low <= a.high):
        return False
    return abs(a.middle - b.middle) > max(a.width, b.width)


@dataclass(frozen=True)
class Split:
    """Where a settled token's time went, in milliseconds.

    Attributes:
        tiers: by tier, its passes (measured), tier 2's without its waits.
        wait: compute stood still for the link (measured; emulated where the link is).
        rest: drawing tokens, choosing, noting (measured).
    """

    tiers: Mapping[int, float]
    wait: float
    rest: float

    @property
    def total(self) -> float:
        """Milliseconds per token."""
        return self.compute + self.wait

    @property
    def compute(self) -> float:
        """All but the wait."""
        return sum(self.tiers.values()) + self.rest


def split_of(record: RunRecord) -> Split:
    """Where a run's tokens spent their time."""
    tokens = max(1, len(record.tokens))
    wait = sum(one.wait_ms for one in record.decode_transfers)
    spent = dict.fromkeys(TIERS, 0.0)
    for one in record.rounds:
        for count in one.tiers:
            spent[count.tier] += count.ms
    top = max(TIERS)
    # a wait before a pass, for one that was left in the middle, is no part of its time
    spent[top] = max(0.0, spent[top] - wait)
    rest = sum(one.ms for one in record.rounds) - sum(spent.values()) - wait
    return Split(
        {tier: ms / tokens for tier, ms in spent.items()}, wait / tokens, max(0.0, rest) / tokens
    )


def link_bytes(record: RunRecord) -> float:
    """Bytes over the link in decode, both directions, per settled token (counted)."""
    return sum(one.bytes for one in record.decode_transfers) / max(1, len(record.tokens))


@dataclass(frozen=True)
class Compared:
    """Finished runs of one setting, oldest first; at least one.

    Attributes:
        slot: which colour they have.
    """

    setting: Setting
    slot: int
    records: tuple[RunRecord, ...]

    @property
    def ms(self) -> Spread:
        """Milliseconds per token."""
        return self._spread(lambda record: split_of(record).total)

    @property
    def compute(self) -> Spread:
        """Milliseconds per token without waits for the link."""
        return self._spread(lambda record: split_of(record).compute)

    @property
    def wait(self) -> Spread:
        """Milliseconds per token that compute stood still for the link."""
        return self._spread(lambda record: split_of(record).wait)

    @property
    def link_bytes(self) -> Spread:
        """Bytes over the link per token."""
        return self._spread(link_bytes)

    @property
    def typical(self) -> RunRecord:
        """The run whose time is the median, or the shorter of the two in the middle."""
        ranked = sorted(self.records, key=lambda record: split_of(record).total)
        return ranked[(len(ranked) - 1) // 2]

    @property
    def split(self) -> Split:
        """Of the typical run."""
        return split_of(self.typical)

    @property
    def device_bytes(self) -> int:
        """KV on the device (modelled sizes, the same in every run)."""
        summary = self.records[-1].summary
        assert summary is not None
        assert summary.memory.kv_device_bytes is not None
        return summary.memory.kv_device_bytes

    @property
    def emulated(self) -> bool:
        """Whether the link is."""
        return self.records[-1].waits_are_emulated

    def _spread(self, of: Callable[[RunRecord], float]) -> Spread:
        return Spread.of([of(record) for record in self.records])


_WORDS: dict[str, Callable[[Any], str]] = {
    "method": str,
    "bits": lambda bits: "float" if bits == "full" else f"int{bits}",
    "k_bits": lambda bits: f"keys {bits or 'alike'}",
    "v_bits": lambda bits: f"values {bits or 'alike'}",
    "nibble": lambda on: "two planes" if on else "one plane",
    "preset": lambda preset: f"link {preset or 'of its own'}",
    "gbps": lambda gbps: f"link {gbps} GB/s" if gbps else "link as its name says",
    "tier0": lambda name: f"tier 0 {name}",
    "prefill": lambda count: f"prompt {count}",
    "new_tokens": lambda count: f"{count} new",
}
"""A setting's value in words; others are said as their name and value."""


def values_of(setting: Setting) -> dict[str, Any]:
    """A setting's fields by name, flat."""
    flat = flattened(asdict(setting.config))
    return {**flat, "prefill": setting.prefill, "document": setting.document}


def flattened(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration, as its summary has it, in one level.

    Where each layer lies is left out: it follows from the policy, and is no setting of its own.
    """
    flat = {"method": config["method"]}
    for part in ("policy", "speculation", "sampling", "link"):
        flat |= config[part]
    # the placement follows from the policy and the model
    rest = {n: v for n, v in config.items() if n != "placement" and not isinstance(v, Mapping)}
    return flat | rest


def word_for(name: str, value: Any) -> str:
    """A field and its value, short."""
    words = _WORDS.get(name)
    return (
        words(value) if words else f"{name.replace('on_chip', 'on-chip')} {value}".replace("_", " ")
    )


def names_of(settings: Sequence[Setting]) -> list[str]:
    """Each setting by what differs among them: ``gamma 16``; one alone by what matters most."""
    return names_among([values_of(setting) for setting in settings])


def names_among(flat: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same of settings as `flattened` gives them."""
    fields = flat[0] if flat else {}
    differ = [name for name in fields if len({repr(one[name]) for one in flat}) > 1]
    if not differ:
        differ = ["method", "bits", "on_chip", "resident"]
    return [
        ", ".join(word_for(name, one[name]) for name in differ if _is_said(name, one, differ))
        for one in flat
    ]


def _is_said(name: str, one: Mapping[str, Any], differ: Sequence[str]) -> bool:
    """Of a link's name and its speed one is said: a speed of its own, or else the name."""
    if {"preset", "gbps"} <= set(differ):
        return name != ("preset" if one["gbps"] else "gbps")
    return True


def changed(old: Setting, new: Setting) -> str:
    """What is no longer as it was: ``resident 8, now 15``; empty where nothing changed."""
    before, after = values_of(old), values_of(new)
    differ = [name for name in before if before[name] != after[name]]
    pairs = [(word_for(name, before[name]), word_for(name, after[name])) for name in differ]
    return ", ".join(f"{was}, now {_news(was, now)}" for was, now in pairs)


def _news(was: str, now: str) -> str:
    """What ``now`` says after the words with which both begin."""
    old, new = was.split(), now.split()
    same = next((i for i, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), 0)
    return " ".join(new[same:])
