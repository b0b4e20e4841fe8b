"""One run as the panel remembers it: its setting, its events, and the series drawn from them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mspeckv import Event, Prefill, Profile, Round, RunConfig, RunSummary, Transfer
from mspeckv_widgets.charts.theme import PURPOSES, TIERS, known

Series = NDArray[np.float64]
MEGA = 1e6


@dataclass(frozen=True)
class Setting:
    """Everything the panel's controls say: the prompt and the run's configuration."""

    document: str
    prefill: int
    config: RunConfig


@dataclass
class RunRecord:
    """A run's events so far. One thread adds, others read a `snapshot`."""

    number: int
    setting: Setting
    prefill: Prefill | None = None
    rounds: list[Round] = field(default_factory=list)
    summary: RunSummary | None = None
    profile: Profile | None = None

    @property
    def label(self) -> str:
        """Short name for legends and tables: ``#3 mspeckv, int8, 15+0``."""
        config = self.setting.config
        policy = config.policy
        width = "float" if policy.bits == "full" else f"int{policy.bits}"
        return f"#{self.number} {config.method}, {width}, {policy.on_chip}+{policy.resident}"

    def add(self, event: Event) -> None:
        """Remember one event."""
        if isinstance(event, Prefill):
            self.prefill = event
        elif isinstance(event, Round):
            self.rounds.append(event)
        else:
            self.summary = event

    def snapshot(self) -> RunRecord:
        """A copy that later events do not change."""
        return replace(self, rounds=list(self.rounds))

    @property
    def waits_are_emulated(self) -> bool:
        """Whether a throttled copy stood in for the link; known at the run's end."""
        return self.summary is not None and self.summary.link.kind == "emulated"

    @property
    def tokens(self) -> list[int]:
        """Settled token ids so far."""
        return [token for one in self.rounds for token in one.tokens]

    @property
    def settled_by(self) -> list[int]:
        """For each token, the tier whose guess it was."""
        return [tier for one in self.rounds for tier in one.settled_by]

    @property
    def decode_transfers(self) -> list[Transfer]:
        """Copies over the link after the prefill."""
        return [transfer for one in self.rounds for transfer in one.transfers]


def round_axis(record: RunRecord) -> Series:
    """Round numbers from 1."""
    return np.arange(1, len(record.rounds) + 1, dtype=np.float64)


def link_axis(record: RunRecord) -> Series:
    """Round numbers with the prefill as round 0, once it is there."""
    if record.prefill is None:
        return np.empty(0)
    return np.arange(len(record.rounds) + 1, dtype=np.float64)


def link_series(record: RunRecord) -> dict[str, Series]:
    """MB over the link in the prefill and each round, both directions, by purpose."""
    if record.prefill is None:
        return {purpose: np.empty(0) for purpose in PURPOSES}
    steps = [record.prefill.transfers, *(one.transfers for one in record.rounds)]
    series = {purpose: np.zeros(len(steps)) for purpose in PURPOSES}
    for place, transfers in enumerate(steps):
        for transfer in transfers:
            series[known(transfer.purpose)][place] += transfer.bytes / MEGA
    return series


def acceptance_series(record: RunRecord) -> dict[int, Series]:
    """Percent of each proposing tier's tokens kept by the tier above, over the run so far.

    The running share is drawn because single rounds propose too few tokens to read.
    """
    series: dict[int, Series] = {}
    for tier in TIERS:
        proposed = accepted = 0
        shares: list[float] = []
        for one in record.rounds:
            for count in one.tiers:
                if count.tier == tier:
                    proposed += count.proposed
                    accepted += count.accepted
            shares.append(100.0 * accepted / proposed if proposed else np.nan)
        if proposed:
            series[tier] = np.asarray(shares)
    return series


def latency_series(record: RunRecord) -> dict[int, Series]:
    """Milliseconds each tier took in each round; a tier that is not used has no series."""
    series: dict[int, Series] = {}
    for tier in TIERS:
        times = [
            sum(count.ms for count in one.tiers if count.tier == tier) for one in record.rounds
        ]
        if any(times):
            series[tier] = np.asarray(times)
    return series


def total_link_series(record: RunRecord) -> Series:
    """MB over the link in the prefill and each round, all purposes."""
    parts = list(link_series(record).values())
    return np.sum(parts, axis=0) if parts else np.empty(0)


def total_latency_series(record: RunRecord) -> Series:
    """Milliseconds of each round."""
    return np.asarray([one.ms for one in record.rounds], dtype=np.float64)


def top_acceptance_series(record: RunRecord) -> Series:
    """Running percent of the tokens put to tier 2 that it kept; empty where none were."""
    proposed = np.cumsum([one.proposed for one in record.rounds], dtype=np.float64)
    accepted = np.cumsum([one.accepted for one in record.rounds], dtype=np.float64)
    if not len(proposed) or proposed[-1] == 0:
        return np.empty(0)
    return 100.0 * accepted / np.where(proposed > 0, proposed, np.nan)
