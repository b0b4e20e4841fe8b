"""What is asked of the cost model: one setting, or arrays of them, checked and broadcast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mspeckv.kv.sizes import ChunkPlan, chunk_counts
from mspeckv.settings import KVPolicy, RunConfig, Speculation, check_count, check_number, refuse
from mspeckv_study.whatif.acceptance import Acceptance

COUNTS = ("prefill", "new_tokens", "on_chip", "resident")
_MOST = 10**9
"""Of tokens; bytes are counted in 64 bits."""
LENGTHS = (
    "gamma", "draft_gamma", "budget", "chunk", "refresh", "recent", "sinks", "window", "draft_vocab"
)  # fmt: skip
"""Fields of `Speculation` that may be arrays."""
RATES = tuple(part.name for part in fields(Acceptance))
_POLICY = tuple(part.name for part in fields(KVPolicy))


@dataclass(frozen=True)
class Question:
    """Arrays of one shape, one entry per setting; ``asked["gamma"]`` is one of ``numbers``.

    Attributes:
        layers: of the target, those that grow.
        numbers: by name: `COUNTS` and `LENGTHS`, whole; `RATES` and ``link_gbps``.
        speculation: its other fields, of all settings.
        policies: the policies that occur, without their counts.
        which: of each setting, its place in ``policies``.
    """

    method: str
    layers: int
    numbers: Mapping[str, NDArray[Any]]
    speculation: Speculation
    policies: tuple[KVPolicy, ...]
    which: NDArray[np.int64]

    def __getitem__(self, name: str) -> Any:
        return self.numbers[name]

    @property
    def uses_draft(self) -> bool:
        """Whether a draft guesses, if there is one."""
        return self.method != "autoregressive" and self.speculation.tier0 == "draft"

    @property
    def context(self) -> NDArray[np.float64]:
        """Mean tokens of context while decoding: half of the new ones are there."""
        return np.asarray(self["prefill"] + self["new_tokens"] / 2, dtype=float)

    @property
    def tier1(self) -> ChunkPlan:
        """What tier 1 can choose of each prompt, and how much it does."""
        prompt, chunk = self["prefill"] - 1, self["chunk"]
        counts = chunk_counts(self["budget"], chunk, self["recent"], prompt)
        return ChunkPlan(prompt, chunk, *counts)

    @property
    def fixed_resident(self) -> NDArray[Any]:
        """Layers with a resident place of their own; see `KVPolicy.placement`."""
        return self._resident("static")

    @property
    def cached(self) -> NDArray[Any]:
        """Offloaded layers that an LRU cache can hold; see `KVPolicy.cached_layers`."""
        return self._resident("lru")

    def _resident(self, residency: str) -> NDArray[Any]:
        """Resident layers of packed policies with this residency; 0 of others."""
        own = [not one.lossless and one.residency == residency for one in self.policies]
        return np.where(np.array(own)[self.which], self["resident"], 0)

    @property
    def offloaded(self) -> Any:
        """Layers on the host."""
        return self.layers - self["on_chip"] - self.fixed_resident

    def plain(self, on_chip: NDArray[Any]) -> Question:
        """Autoregressive decoding of unquantized KV with so many layers on-chip."""
        return replace(
            self,
            method="autoregressive",
            numbers={**self.numbers, "on_chip": on_chip, "resident": np.zeros_like(on_chip)},
            policies=(KVPolicy(bits="full"),),
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
    unknown = sorted(set(overrides) - {*_POLICY, *LENGTHS, "tier0", "tier1"})
    if unknown:
        raise refuse("what_if", unknown[0], "use a field of KVPolicy or Speculation")
    words = {name: overrides[name] for name in ("tier0", "tier1") if name in overrides}
    speculation = replace(speculation, **words)
    lengths = {name: overrides.get(name, getattr(speculation, name)) for name in LENGTHS}
    for name in ("gamma", "draft_gamma"):
        if isinstance(lengths[name], str) and lengths[name] == "auto":
            if method != "autoregressive":
                raise refuse(name, "auto", "the model needs a number; mspeckv.plan chooses lengths")
            lengths[name] = 1
    given: dict[str, Any] = {
        **{name: overrides.get(name, getattr(policy, name)) for name in _POLICY},
        **lengths,
        **{name: getattr(acceptance, name) for name in RATES},
        **numbers,
    }
    try:
        arrays = np.broadcast_arrays(*(_array(value) for value in given.values()))
    except ValueError:
        shapes = {k: np.shape(v) for k, v in given.items() if np.shape(v)}
        raise refuse("what_if", shapes, "use arrays that broadcast against one another") from None
    table = dict(zip(given, arrays, strict=True))
    # the policies that occur: only fields that were given as arrays can differ
    names = [name for name in _POLICY if name not in COUNTS]
    varying = [name for name in names if np.ndim(given[name])]
    alike = {name: np.asarray(given[name]).tolist() for name in names if name not in varying}
    columns = [table[name].ravel().tolist() for name in varying]
    rows = list(zip(*columns, strict=True)) or [()] * table["prefill"].size
    places = {row: place for place, row in enumerate(dict.fromkeys(rows))}
    asked = Question(
        method=method,
        layers=layers,
        numbers={
            **{name: _whole(name, table[name]) for name in (*COUNTS, *LENGTHS)},
            **{name: table[name].astype(float) for name in (*RATES, "link_gbps")},
        },
        speculation=speculation,
        policies=tuple(KVPolicy(**alike, **dict(zip(varying, row, strict=True))) for row in places),
        which=np.array([places[row] for row in rows]).reshape(table["prefill"].shape),
    )
    _check(asked)
    return asked


def _array(value: Any) -> NDArray[Any]:
    """A list that mixes numbers and words keeps them as they are."""
    out = np.asarray(value)
    return np.asarray(value, dtype=object) if out.dtype.kind in "US" else out


def _whole(name: str, values: NDArray[Any]) -> NDArray[np.int64]:
    if values.dtype.kind not in "iu":
        whole = values.dtype.kind == "f" and bool(np.all(values == np.floor(values)))
        if not whole:
            raise refuse(name, values.flat[0] if values.size else values, "use whole numbers")
    return values.astype(np.int64)


def _check(asked: Question) -> None:
    """Let the settings' own classes judge the extremes, and where two fields are at odds most."""
    for policy in asked.policies:
        RunConfig(method=asked.method, policy=policy, speculation=asked.speculation)
    for name, least in zip(COUNTS, (2, 1, 0, 0), strict=True):
        for extreme in (asked[name].min(), asked[name].max()):
            check_count(name, int(extreme), least, _MOST)
    for value in (asked["link_gbps"].min(), asked["link_gbps"].max()):
        check_number("link_gbps", float(value), 1e-6, 1e6)
    fullest = int(np.argmax(asked["on_chip"] + asked["resident"]))
    on_chip, resident = (int(asked[name].flat[fullest]) for name in ("on_chip", "resident"))
    KVPolicy(on_chip=on_chip, resident=resident).check_layers(asked.layers)
    tightest = int(np.argmin(asked["budget"] - asked["recent"] - 2 * asked["chunk"]))
    tight = {name: int(asked[name].flat[tightest]) for name in LENGTHS}
    low = {name: int(asked[name].min()) for name in LENGTHS}
    high = {name: int(asked[name].max()) for name in LENGTHS}
    # the largest of each may stand in different settings: any budget goes with them
    high["budget"] += high["recent"] + 2 * high["chunk"]
    lengths: Any
    for lengths in (tight, low, high):
        replace(asked.speculation, **lengths)
