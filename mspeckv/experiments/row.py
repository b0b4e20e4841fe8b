"""One trial's outcome, as it stands on one line of a store."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import psutil
import torch

from mspeckv.events import Round, RunSummary


@dataclass(frozen=True)
class Row:
    """One trial's outcome.

    Attributes:
        key: the trial's; see `mspeckv.experiments.Trial`.
        experiment: ``A1`` to ``B2``.
        preset: its name.
        axis: the setting that was varied.
        value: to what.
        variant: what was run.
        seed: of its sampling.
        status: ``"ok"`` or ``"failed"``.
        error: what failed, such as ``"ValueError: ..."``.
        result: `mspeckv.RunSummary` as plain dictionaries; None if it failed.
        link_bytes_per_token: bytes over the link while decoding, both ways, per token (counted).
        kv_read_per_token: bytes of KV that attention read while decoding, per token, by tier
            (counted).
        prefill_shared: whether an earlier trial's prefill was used again; then the result's
            ``prefill_seconds`` is the time of that, and its ``link`` counts nothing of a prefill.
        prefill_saved_seconds: what that saved: the time of reading less that of using it again
            (measured).
        started: when, in ISO 8601 with the zone.
        seconds: how long it took, prefill included, warm-up not (measured).
        hardware: see `hardware`.
        versions: of what the result depends on.
        mspeckv: version of this package.
    """

    key: str
    experiment: str
    preset: str
    axis: str
    value: int
    variant: str
    seed: int
    status: str
    error: str | None
    result: dict[str, Any] | None
    link_bytes_per_token: float
    kv_read_per_token: dict[str, float]
    prefill_shared: bool
    prefill_saved_seconds: float
    started: str
    seconds: float
    hardware: dict[str, Any]
    versions: dict[str, str]
    mspeckv: str

    @property
    def ok(self) -> bool:
        """Whether it has a result."""
        return self.status == "ok"

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The row of a parsed line; keys of later versions are left out.

        Raises:
            ValueError: a key is missing.
        """
        missing = [part.name for part in fields(cls) if part.name not in values]
        if missing:
            raise ValueError(f"not a row of an experiment: it lacks {', '.join(missing)}")
        return cls(**{part.name: values[part.name] for part in fields(cls)})


def link_bytes_per_token(rounds: Sequence[Round]) -> float:
    """Bytes over the link while decoding, per token."""
    tokens = sum(len(done.tokens) for done in rounds)
    return sum(done.link_bytes() for done in rounds) / tokens if tokens else 0.0


def kv_read_per_token(summary: RunSummary, rounds: Sequence[Round]) -> dict[str, float]:
    """Bytes of KV that attention read while decoding, per token, by tier in use."""
    tokens = len(summary.tokens)
    read = {str(tier.tier): 0.0 for tier in summary.tiers}
    for done in rounds:
        for one in done.passes:
            read[str(one.tier)] += one.kv_bytes / tokens
    return read


def hardware(device: torch.device) -> dict[str, Any]:
    """The machine: ``machine`` ``cores`` ``threads`` ``memory_gb``, and ``gpu`` where it ran."""
    found: dict[str, Any] = {
        "machine": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_properties(device).name
    return found


def _processor() -> str:
    """The processor's name, as far as the system tells it."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
