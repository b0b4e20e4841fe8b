"""Caches that have read one prompt, from which every way of decoding begins, as often as wanted.

Reading 16 k tokens takes longer than decoding 40, so the ways of a cell share it: a run's caches
are put back to where the prompt ended. Each way has readers, graphs and measured costs of its own,
as a run with its settings would.
"""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

import torch

from mspeckv import KVPolicy, Pair, RunConfig, Sampling, Speculation
from mspeckv.accelerate.graphs import Direct, Graphs
from mspeckv.accelerate.static_passes import StaticReader
from mspeckv.adaptive.estimates import Costs, PassCost
from mspeckv.adaptive.lengths import Planner
from mspeckv.adaptive.rounds import Adaptive
from mspeckv.api import engine_of
from mspeckv.decoding.reader import ModelReader
from mspeckv.decoding.sampling import Sampler
from mspeckv.decoding.speculate import Autoregress, Level, nest_over
from mspeckv.decoding.tiers import build_tiers
from mspeckv.events import Guess, Pass
from mspeckv.kv.link import open_link
from mspeckv.record import Ledger, Recorder, clock_of

Way = tuple[int, int] | str
"""Gamma and draft gamma, or ``"auto"``."""


@dataclass
class Turn:
    """One decoding.

    Attributes:
        ms: per token.
        tokens: token ids.
        rounds: for each, when it began and ended in seconds, its passes and guesses.
        plans: of a way that chooses.
    """

    ms: float
    tokens: list[int]
    rounds: list[tuple[float, float, tuple[Pass, ...], tuple[Guess, ...]]]
    plans: list[tuple[Any, ...]] = field(default_factory=list)


class Rewound:
    """Use as a context manager.

    Args:
        pair: who decodes, in three tiers.
        prompt: what is read first.
        policy: tier 2's KV.
        guess: the tiers below; its lengths do not matter. Its choice must not be refreshed.
        ways: which are wanted, with a name for each: equal names share measured costs and graphs.
        new_tokens: of a turn.
    """

    def __init__(
        self,
        pair: Pair,
        prompt: list[int],
        policy: KVPolicy,
        guess: Speculation,
        ways: list[Way],
        new_tokens: int,
    ) -> None:
        self.pair, self.prompt, self.new_tokens, self.guess = pair, prompt, new_tokens, guess
        self.policy, self.ways = policy, ways
        self._lent = ExitStack()
        self.costs: dict[object, Costs] = {}

    @torch.inference_mode()
    def __enter__(self) -> Self:
        engine, pair, lent = engine_of(self.pair), self.pair, self._lent
        guess = replace(self.guess, gamma="auto", draft_gamma="auto")
        config = RunConfig("mspeckv", self.new_tokens, self.policy, guess)
        self.recorder = Recorder(Ledger(clock_of(pair.device)))
        self.link = lent.enter_context(open_link(self.recorder.ledger, None, pair.device))
        begun = time.perf_counter()
        tiers = build_tiers(
            engine, config, pair, self.prompt, self.link, self.recorder, lent=lent
        )  # fmt: skip
        root = tiers.root
        assert isinstance(root, Adaptive)
        assert isinstance(root.guesser, Autoregress)
        assert isinstance(root.middle, ModelReader)
        assert isinstance(root.top, ModelReader)
        assert isinstance(root.guesser.reader, ModelReader)
        self.full = tiers.full
        base = root.guesser.reader, root.middle, root.top
        self.readers = {way: self._of_its_own(base, way) for way in self.ways}
        for reader in tiers.prefilled:
            reader.prefill(self.prompt[:-1])
        self.link.drain()
        self.recorder.take()
        self._keep([reader.cache for reader in base])
        self.prefill_seconds = time.perf_counter() - begun
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.link.drain()
        self.readers.clear()
        self._lent.__exit__(kind, error, at)

    def _of_its_own(self, base: tuple[ModelReader, ...], way: Way) -> list[ModelReader]:
        """A reader of each tier, with graphs that only this way's runs capture."""
        out: list[ModelReader] = []
        lengths = (0, 7, 32) if way == "auto" else (0, 0, 0)
        for reader, longest in zip(base, lengths, strict=True):
            seat = replace(reader.seat, longest=longest)
            if isinstance(reader, StaticReader):
                device = self.pair.device
                runner = Graphs(device) if device.type == "cuda" else Direct()
                out.append(StaticReader(seat, runner))
            else:
                out.append(ModelReader(seat))
        return out

    def _keep(self, caches: list[Any]) -> None:
        """What decoding changes of the caches: all of tier 0's, of others counts and tails."""
        draft, middle, full = caches
        self._lengths = [(layer, layer.length) for cache in caches for layer in cache.layers]
        self._blocks = [(layer, layer.blocks) for layer in full.layers if hasattr(layer, "blocks")]
        parts = [part for layer in draft.layers for part in layer.buffer.whole]
        parts += [part for layer, _ in self._blocks for part in layer.tail.whole]
        self._parts = [(part, part.clone()) for part in parts]
        self._draft, self._dropped, self._middle = draft, draft.dropped, middle

    def rewind(self) -> None:
        """Every cache holds the prompt but its last token."""
        self.link.drain()
        for part, kept in self._parts:
            part.copy_(kept)
        self._draft.dropped = self._dropped
        if self._middle.looks_on:
            self._middle.restart()
        for layer, blocks in self._blocks:
            layer.blocks = blocks
        for layer, length in self._lengths:
            layer.length = length

    def nest(self, way: Way, sampler: Sampler) -> Level:
        """The levels of a way."""
        draft, middle, top = self.readers[way]
        guesser = Autoregress(draft, sampler)
        if isinstance(way, tuple):
            gamma, inner = way
            below = nest_over(guesser, middle, inner, sampler, self.recorder)
            return nest_over(below, top, gamma, sampler, self.recorder)
        guess = replace(self.guess, gamma="auto", draft_gamma="auto")
        kept = self.costs.get((way, sampler.sampling.greedy))
        costs: Costs = deepcopy(kept) if kept is not None else defaultdict(PassCost)
        planner = Planner(guess, True, True, False, costs)
        return Adaptive(guesser, middle, top, planner, sampler, self.recorder)

    @torch.inference_mode()
    def turn(self, way: Way, sampling: Sampling, count: int | None = None) -> Turn:
        """Decode after the prompt: all tokens there is room for, or ``count``."""
        self.rewind()
        root, clock = self.nest(way, Sampler(sampling)), self.recorder.ledger
        count = self.new_tokens if count is None else count
        tokens, end = list(self.prompt), len(self.prompt) + count
        turn = Turn(0.0, [], [])
        self.recorder.take()
        start = time.perf_counter()
        while len(tokens) < end:
            begun = clock.now()
            self.full.begin_pass()
            tokens += root.round(tokens, end - len(tokens)).tokens
            self.link.collect()
            noted = self.recorder.take()
            turn.rounds.append((begun, clock.now(), noted.passes, noted.guesses))
            if isinstance(root, Adaptive):
                plan = root.plan
                turn.plans.append((plan.path, plan.gamma, plan.draft_gamma, round(plan.stop, 3)))
        if self.pair.device.type == "cuda":
            torch.cuda.synchronize()
        turn.ms = (time.perf_counter() - start) * 1e3 / count
        turn.tokens = tokens[-count:]
        if isinstance(root, Adaptive):
            self.costs[way, sampling.greedy] = root.planner.costs
        return turn
