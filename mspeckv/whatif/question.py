"""What is asked of the cost model: one setting, or arrays of them, checked and broadcast."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mspeckv.kv.sizes import chunk_counts
from mspeckv.settings import KVPolicy, RunConfig, Speculation, check_count, check_number, refuse
from mspeckv.whatif.acceptance import Acceptance

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_COUNTS = ("on_chip", "resident")
POLICY_FIELDS = tuple(part.name for part in fields(KVPolicy))
LENGTHS = (
    "gamma", "draft_gamma", "budget", "chunk", "refresh", "recent", "sinks", "window", "draft_vocab"
)  # fmt: skip
"""Fields of `Speculation` that may be arrays."""


@dataclass(frozen=True)
class Question:
    """Arrays of one shape, one entry per setting.

    Attributes:
        method: of all of them.
        layers: of the target.
        prefill, new_tokens, on_chip, resident: whole numbers.
        link_gbps: 1e9 bytes per second.
        lengths: `LENGTHS` of the speculation, by name.
        speculation: its other fields, of all settings.
        policies: the policies that occur, without their counts.
        which: of each setting, its place in ``policies``.
        rates: acceptance at each nesting, by the names of `Acceptance`.
    """

    method: str
    layers: int
    prefill: Ints
    new_tokens: Ints
    on_chip: Ints
    resident: Ints
    link_gbps: Floats
    lengths: Mapping[str, Ints]
    speculation: Speculation
    policies: tuple[KVPolicy, ...]
    which: Ints
    rates: Mapping[str, Floats]

    @property
    def context(self) -> Floats:
        """Mean tokens of context while decoding: half of the new ones are there."""
        return np.asarray(self.prefill + self.new_tokens / 2, dtype=float)

    @property
    def tier1(self) -> tuple[Ints, Ints]:
        """Prompt tokens in tier 1's cache, and chunks they are chosen from; see `ChunkPlan`."""
        budget, chunk, recent = (self.lengths[name] for name in ("budget", "chunk", "recent"))
        chunks, chosen, rest = chunk_counts(budget, chunk, recent, self.prefill - 1)
        return chosen * chunk + rest, chunks

    @property
    def fixed_resident(self) -> Ints:
        """Layers with a resident place of their own; see `KVPolicy.placement`."""
        return self._resident("static")

    @property
    def cached(self) -> Ints:
        """Offloaded layers that an LRU cache can hold; see `KVPolicy.cached_layers`."""
        return self._resident("lru")

    def _resident(self, residency: str) -> Ints:
        """Resident layers of packed policies with this residency; 0 of others."""
        own = [not one.lossless and one.residency == residency for one in self.policies]
        return np.where(np.array(own)[self.which], self.resident, 0)

    @property
    def offloaded(self) -> Ints:
        """Layers on the host."""
        return self.layers - self.on_chip - self.fixed_resident

    def plain(self, on_chip: Ints) -> Question:
        """Autoregressive decoding of unquantized KV with so many layers on-chip."""
        policy = KVPolicy(bits="full")
        return replace(
            self,
            method="autoregressive",
            on_chip=on_chip,
            resident=np.zeros_like(on_chip),
            policies=(policy,),
            which=np.zeros_like(on_chip),
        )


def ask(
    method: str,
    layers: int,
    policy: KVPolicy,
    speculation: Speculation,
    acceptance: Acceptance,
    numbers: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> Question:
    """Broadcast everything against everything.

    Args:
        numbers: ``prefill``, ``new_tokens``, ``link_gbps``.
        overrides: fields of `KVPolicy` and `Speculation`, numbers or arrays.

    Raises:
        ValueError: an unknown field, a value that the settings' own classes refuse, shapes that
            do not go together, or a length left to be chosen.
    """
    unknown = sorted(set(overrides) - set(POLICY_FIELDS) - set(LENGTHS) - {"tier0", "tier1"})
    if unknown:
        raise refuse("what_if", unknown[0], "use a field of KVPolicy or Speculation")
    changes = {name: overrides[name] for name in ("tier0", "tier1") if name in overrides}
    speculation = replace(speculation, **changes)
    if speculation.adaptive and method != "autoregressive":
        fixed = {name: overrides.get(name, getattr(speculation, name)) for name in LENGTHS[:2]}
        if any(isinstance(value, str) for value in fixed.values()):
            raise refuse("gamma", "auto", "the model needs a number; mspeckv.plan chooses lengths")
    given: dict[str, Any] = {
        **{name: overrides.get(name, getattr(policy, name)) for name in POLICY_FIELDS},
        **{name: overrides.get(name, _number(getattr(speculation, name))) for name in LENGTHS},
        **{part.name: getattr(acceptance, part.name) for part in fields(Acceptance)},
        **numbers,
    }
    try:
        arrays = np.broadcast_arrays(*(_array(value) for value in given.values()))
    except ValueError:
        shapes = {k: np.shape(v) for k, v in given.items() if np.shape(v)}
        raise refuse("what_if", shapes, "use arrays that broadcast against one another") from None
    table = dict(zip(given, arrays, strict=True))
    policies, which = _policies(method, speculation, table)
    asked = Question(
        method=method,
        layers=layers,
        prefill=_whole(table, "prefill"),
        new_tokens=_whole(table, "new_tokens"),
        on_chip=_whole(table, "on_chip"),
        resident=_whole(table, "resident"),
        link_gbps=table["link_gbps"].astype(float),
        lengths={name: _whole(table, name) for name in LENGTHS},
        speculation=speculation,
        policies=policies,
        which=which,
        rates={part.name: table[part.name].astype(float) for part in fields(Acceptance)},
    )
    _check(asked)
    return asked


def _array(value: Any) -> NDArray[Any]:
    """A list that mixes numbers and words keeps them as they are."""
    out = np.asarray(value)
    return np.asarray(value, dtype=object) if out.dtype.kind in "US" else out


def _number(value: int | str) -> int:
    """Autoregressive decoding has no use for lengths that are left to be chosen."""
    return 1 if isinstance(value, str) else value


def _whole(table: Mapping[str, NDArray[Any]], name: str) -> Ints:
    values = table[name]
    if values.dtype.kind not in "iu":
        whole = values.dtype.kind == "f" and bool(np.all(values == np.floor(values)))
        if not whole:
            raise refuse(name, values.flat[0] if values.size else values, "use whole numbers")
    return values.astype(np.int64)


def _policies(
    method: str, speculation: Speculation, table: Mapping[str, NDArray[Any]]
) -> tuple[tuple[KVPolicy, ...], Ints]:
    """The policies that occur, each checked by its own class, and of each setting which it is."""
    names = [name for name in POLICY_FIELDS if name not in _COUNTS]
    # an array broadcast from a single value need not be looked at entry by entry
    varying = [name for name in names if any(table[name].strides)]
    constant = {name: plain(table[name].flat[0]) for name in names if name not in varying}
    shape = table["on_chip"].shape
    columns = [table[name].ravel().tolist() for name in varying]
    rows = zip(*columns, strict=True) if columns else repeat((), math.prod(shape))
    found: dict[tuple[Any, ...], int] = {}
    which = [found.setdefault(row, len(found)) for row in rows]
    policies = tuple(KVPolicy(**constant, **dict(zip(varying, row, strict=True))) for row in found)
    for policy in policies:
        RunConfig(method=method, policy=policy, speculation=speculation)
    return policies, np.array(which, dtype=np.int64).reshape(shape)


def plain(value: Any) -> Any:
    """A number of numpy's as Python's own; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _check(asked: Question) -> None:
    """Let the settings' own classes judge the extremes and whatever stands out."""
    for name, least in (("prefill", 2), ("new_tokens", 1), ("on_chip", 0), ("resident", 0)):
        check_count(name, int(getattr(asked, name).min()), least)
    for value in (asked.link_gbps.min(), asked.link_gbps.max()):
        check_number("link_gbps", float(value), 0.0, 1e6, open_low=True)
    worst = np.unravel_index(int(np.argmax(asked.on_chip + asked.resident)), asked.on_chip.shape)
    KVPolicy(on_chip=int(asked.on_chip[worst]), resident=int(asked.resident[worst])).check_layers(
        asked.layers
    )
    lengths = asked.lengths
    slack = lengths["budget"] - lengths["recent"] - 2 * lengths["chunk"]
    tightest = np.unravel_index(int(np.argmin(slack)), slack.shape)
    at: dict[str, Any] = {name: int(values[tightest]) for name, values in lengths.items()}
    replace(asked.speculation, **at)
    for name, values in lengths.items():
        for extreme in (values.min(), values.max()):
            _check_length(asked.speculation, name, int(extreme))


def _check_length(speculation: Speculation, name: str, value: int) -> None:
    """One length alone, beside a budget that any chunk and recent window go with."""
    roomy = 4 * (1024 + abs(value))
    changes: dict[str, Any] = {"budget": roomy, "recent": 0, "chunk": 1, name: value}
    replace(speculation, **changes)
