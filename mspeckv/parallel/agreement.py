"""Rank 0 decides: what several ranks must do alike, each does as rank 0 says.

Logits come out alike on every rank, but nothing may hang on their last bit, on a clock or on when
a signal arrives: a rank that drew another token would take part in other passes than the rest. So
draws, verdicts, lengths and the end of a run are sent from rank 0, each in one sum over ranks to
which the others add nothing but the wish to stop.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

import torch
from transformers import LogitsProcessorList

from mspeckv.adaptive.lengths import Held, Planner
from mspeckv.decoding.sampling import Sampler, check_finite
from mspeckv.events import Plan
from mspeckv.parallel.ranks import Ranks
from mspeckv.record import Progress
from mspeckv.settings import Sampling


class Agreement:
    """What ranks agree on in the course of one run.

    Args:
        ranks: this process among the others.
        cancel: this process's own wish to stop.

    Attributes:
        stop: set on every rank at the same decision, once any rank wishes to stop.
    """

    def __init__(self, ranks: Ranks, cancel: threading.Event | None) -> None:
        self.ranks, self.stop = ranks, threading.Event()
        self._cancel = cancel

    def decide(self, own: Callable[[], Sequence[float]], count: int) -> list[float]:
        """Rank 0's ``count`` numbers, on every rank; whole ones up to 2**53 arrive exactly.

        Raises:
            FloatingPointError: rank 0 met logits that are not finite; on every rank.
        """
        values: Sequence[float] = [0.0] * count
        if self.ranks.first:
            try:
                values = own()
            except FloatingPointError:
                values = [math.nan] * count
        wish = self._cancel is not None and self._cancel.is_set()
        *decided, wishes = self.ranks.add([*values, float(wish)])
        if wishes:
            self.stop.set()
        if any(math.isnan(value) for value in decided):
            check_finite(torch.tensor(decided))
        return decided

    def figure(self, own: float) -> float:
        """Rank 0's measurement in place of one's ``own``."""
        return self.decide(lambda: [own], 1)[0]

    def between_layers(self, report: Progress | None) -> Progress:
        """``report``, and a chance to stop with every layer of the prompt."""

        def progress(stage: str, done: int, total: int) -> None:
            self.decide(list, 0)
            if report is not None:
                report(stage, done, total)

        return progress

    def sampler(self, sampling: Sampling, processors: LogitsProcessorList | None) -> Sampler:
        """Draws on rank 0 alone."""
        return AgreedSampler(sampling, processors, self)

    def planner(self, own: Planner) -> Planner:
        """Chooses by what rank 0 measured."""
        return AgreedPlanner(own, self)


class AgreedSampler(Sampler):
    """Draws on rank 0 alone, for all; with a `Sampler`'s arguments."""

    def __init__(
        self, sampling: Sampling, processors: LogitsProcessorList | None, agreement: Agreement
    ) -> None:
        super().__init__(sampling, processors)
        self._own, self._decide = Sampler(sampling, processors), agreement.decide

    def draw(self, probs: torch.Tensor) -> int:
        """Rank 0's draw."""
        [token] = self._decide(lambda: [self._own.draw(probs)], 1)
        return int(token)

    def draw_held(self, probs: torch.Tensor, logits: torch.Tensor) -> tuple[int, float]:
        """Rank 0's draw, and how likely it is there."""
        token, held = self._decide(lambda: self._own.draw_held(probs, logits), 2)
        return int(token), held

    def verify(
        self, target: torch.Tensor, proposal: torch.Tensor, tokens: list[int]
    ) -> tuple[int, int]:
        """Rank 0's verdict."""
        accepted, token = self._decide(lambda: self._own.verify(target, proposal, tokens), 2)
        return int(accepted), int(token)


class AgreedPlanner(Planner):
    """Chooses by what rank 0 measured, instead of this rank's ``own`` planner."""

    def __init__(self, own: Planner, agreement: Agreement) -> None:
        super().__init__(own.speculation, own.has_draft, own.has_middle, own.free_draft, own.costs)
        self._agreement = agreement

    def choose(self, room: int, held: Held = ()) -> Plan:
        """Rank 0's choice."""

        def own() -> Sequence[float]:
            plan = super(AgreedPlanner, self).choose(room, held)
            return 0 in plan.path, 1 in plan.path, plan.gamma, plan.draft_gamma, plan.stop

        bottom, middle, gamma, draft_gamma, stop = self._agreement.decide(own, 5)
        path = (*((0,) if bottom else ()), *((1,) if middle else ()), 2)
        return Plan(path, int(gamma), int(draft_gamma), float(stop))
