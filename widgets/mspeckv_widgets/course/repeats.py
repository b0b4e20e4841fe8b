"""Runs of a few ways, several times and in turns: what may be said of their times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mspeckv import RunSummary
from mspeckv_widgets.compared import ENOUGH, Spread, apart
from mspeckv_widgets.conclusion import ordered


@dataclass(frozen=True)
class Repeated:
    """Runs by way, in the order in which they came.

    Shown as text, it says each way's median and range, and which differences are beyond the
    runs' own spread.
    """

    runs: Mapping[str, tuple[RunSummary, ...]]

    def __getitem__(self, name: str) -> RunSummary:
        """The first run of a way: what is counted is the same in all of them."""
        return self.runs[name][0]

    @property
    def ms(self) -> dict[str, Spread]:
        """Milliseconds per token by way (measured)."""
        return {
            name: Spread.of([one.ms_per_token for one in runs]) for name, runs in self.runs.items()
        }

    def faster(self, one: str, other: str) -> bool:
        """Whether one way may be called faster: see `mspeckv_widgets.compared.apart`."""
        fast, slow = self.ms[one], self.ms[other]
        return apart(fast, slow) and fast.middle < slow.middle

    @property
    def fastest(self) -> str:
        """The way with the least median, whether or not that may be claimed."""
        return min(self.ms, key=lambda name: self.ms[name].middle)

    def __str__(self) -> str:
        lines = [
            f"{name}: {one.middle:.0f} ms per token, {one.low:.0f} to {one.high:.0f}"
            for name, one in self.ms.items()
        ]
        counts = {one.count for one in self.ms.values()}
        head = f"Median and range of {min(counts)} runs each, taken in turns (measured):"
        said = ordered("Time", list(self.ms.values()), list(self.ms))
        claims = "; ".join(said.claims)
        end = (
            f"Beyond the runs' own spread: {claims}."
            if claims
            else "No difference is beyond the runs' own spread, so nothing can be said."
        )
        return "\n".join([head, *lines, end])


def in_turns(ways: Mapping[str, Callable[[], RunSummary]], repeats: int = ENOUGH) -> Repeated:
    """Run every way once, then every way again, and so on, so that a busy moment hits all alike.

    Args:
        ways: what to run, by name.
        repeats: runs of each.
    """
    runs: dict[str, tuple[RunSummary, ...]] = dict.fromkeys(ways, ())
    for _ in range(repeats):
        for name, run in ways.items():
            runs[name] += (run(),)
    return Repeated(runs)
