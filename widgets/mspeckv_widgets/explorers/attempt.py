"""One guess on its way through the engine's accept/reject test, a step at a time."""

from __future__ import annotations

import torch

from mspeckv.decoding.sampling import Sampler, residual


class ToldSampler(Sampler):
    """The engine's own sampler, which also tells the even number that it drew last."""

    even = 0.0

    def _uniform(self) -> float:
        self.even = super()._uniform()
        return self.even


class Attempt:
    """One guess on its way: proposed, tested, settled. The engine's sampler does each step.

    Attributes:
        guess: what the draft drew; None before.
        even: the number from 0 to 1 that the test drew; None before.
        accepted: what the test said; None before.
        emitted: the token that is settled; None before.
    """

    def __init__(self, p: torch.Tensor, q: torch.Tensor, sampler: ToldSampler) -> None:
        self.p, self.q, self._sampler = p, q, sampler
        self.guess: int | None = None
        self.even: float | None = None
        self.accepted: bool | None = None
        self.emitted: int | None = None

    def step(self) -> None:
        """Propose, then test, then settle: the guess itself, or a draw from the residual."""
        if self.guess is None:
            self.guess = self._sampler.pick(self.q)
        elif self.accepted is None:
            self.accepted = self._sampler.accepts(
                float(self.p[self.guess]), float(self.q[self.guess])
            )
            self.even = self._sampler.even
        elif self.emitted is None:
            left = residual(self.p, self.q)
            self.emitted = self.guess if self.accepted else self._sampler.pick(left)

    @property
    def chance(self) -> float | None:
        """With which the guess is accepted; None before there is one."""
        if self.guess is None:
            return None
        return min(1.0, float(self.p[self.guess] / self.q[self.guess]))

    def finish(self) -> int:
        """Take the steps that are left; returns the emitted token."""
        while self.emitted is None:
            self.step()
        return self.emitted
