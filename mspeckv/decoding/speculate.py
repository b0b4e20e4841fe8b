"""Recursive speculation: two classes, nested to any depth.

A level turns a prefix into the next tokens together with the distributions they were drawn from.
`Autoregress` is a model with a cache; `Speculate` is a level that guesses plus a model with a
cache that verifies. Since a verifier's tokens are distributed exactly as the verifier (see
`Sampler.verify`), a `Speculate` can itself guess for another: the q that the outer test needs is
the inner verifier's p. So MSpecKV is ``Speculate(Speculate(Autoregress(draft), target over
retrieval), target over full)``, and every other method is another nesting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch

from mspeckv.decoding.reader import Reader
from mspeckv.decoding.sampling import Sampler
from mspeckv.events import Guess
from mspeckv.record import Recorder, span


@dataclass
class Emission:
    """Tokens in order, and where they came from.

    Attributes:
        distributions: for each token, the distribution ``[V]`` it is a draw from.
        settled_by: for each token, the tier whose guess it was.
        last: the emitter would rather not go on from here.
        held: how likely a lookup, or a draft that was asked, held each token.
    """

    tokens: list[int] = field(default_factory=list)
    distributions: list[torch.Tensor] = field(default_factory=list)
    settled_by: list[int] = field(default_factory=list)
    last: bool = False
    held: list[float] = field(default_factory=list)

    def extend(self, other: Emission) -> None:
        """Append another emission."""
        self.tokens += other.tokens
        self.distributions += other.distributions
        self.settled_by += other.settled_by
        self.last = other.last
        self.held += other.held


@dataclass
class Chain:
    """A chain of guesses as it grows.

    Attributes:
        kept: chance that a token is kept that the draft held so likely.
        stop: chance of being kept whole, `whole`, under which the chain ends; 0 for never.
    """

    kept: Callable[[float], float]
    stop: float
    whole: float = 1.0

    def ends_with(self, likelihood: float) -> bool:
        """Take in a token that the draft held so likely; whether no more should follow it."""
        self.whole *= self.kept(likelihood)
        return self.whole < self.stop


class Level(Protocol):
    """Something that emits tokens after a prefix."""

    @property
    def tier(self) -> int:
        """0, 1 or 2."""

    def round(self, prefix: list[int], limit: int) -> Emission:
        """Emit up to ``limit`` tokens after ``prefix``, whose last token no cache has read yet.

        At least one, but for a lookup that finds no match.
        """

    def settle(self, length: int) -> None:
        """The first ``length`` tokens stand; forget what was read after them."""


class Autoregress:
    """One token per pass of one model.

    A chain of guesses may end early. Whether it does depends on tokens already handed up, never on
    the verifier, and no drawn token is taken back; so each one handed up is a draw from its
    distribution, which is all that the verifier's test needs.

    Args:
        reader: the model with its cache.
        sampler: draws the tokens.
        threshold: a token that the model, unwarped, holds less likely than this ends a chain.

    Attributes:
        chain: may end chains too, where lengths are chosen.
    """

    def __init__(self, reader: Reader, sampler: Sampler, threshold: float = 0.0) -> None:
        self.reader, self.sampler, self.threshold = reader, sampler, threshold
        self.chain: Chain | None = None
        self.tier = reader.tier

    def round(self, prefix: list[int], limit: int) -> Emission:
        """Emit one token; what was read for it stands."""
        logits = self.reader.read(prefix, rows=1)
        with span("sample"):
            probs = self.sampler.distribution(logits, prefix)[0]
            # before the draw waits for the device, so that what is packed is packed meanwhile
            self.reader.settle(len(prefix))
            if self.threshold == 0 and self.chain is None:
                return Emission([self.sampler.draw(probs)], [probs], [self.tier])
            token, held = self.sampler.draw_held(probs, logits[0])
        last = self.chain is not None and self.chain.ends_with(held)
        last = last or held < self.threshold
        return Emission([token], [probs], [self.tier], last=last, held=[held])

    def settle(self, length: int) -> None:
        """Forget what was read after ``length`` tokens; the next one begins another chain."""
        self.reader.settle(length)
        if self.chain is not None:
            self.chain.whole = 1.0


class Speculate:
    """A level guesses up to ``gamma`` tokens; one pass of the verifier tests them."""

    def __init__(
        self, proposer: Level, verifier: Reader, gamma: int, sampler: Sampler, recorder: Recorder
    ) -> None:
        self.proposer, self.verifier, self.gamma = proposer, verifier, gamma
        self.sampler, self.recorder, self.tier = sampler, recorder, verifier.tier

    def round(self, prefix: list[int], limit: int) -> Emission:
        """Guess, verify, keep what stands and add the verifier's own next token."""
        count = min(self.gamma, limit - 1, self.verifier.room(len(prefix)))
        # one copy per round: prompts are long, and copying one takes as long as a small pass
        text = list(prefix)
        guess = self._guess(text, count)
        logits = self.verifier.read(text, rows=len(guess.tokens) + 1)
        with span("sample"):
            target = self.sampler.distribution(logits, text)
            proposal = torch.stack(guess.distributions) if guess.tokens else target[:0]
            accepted, token = self.sampler.verify(target, proposal, guess.tokens)
            distributions = list(target[: accepted + 1].unbind(0))
        tokens, held = tuple(guess.tokens), tuple(guess.held)
        self.recorder.tested(Guess(self.proposer.tier, self.tier, tokens, accepted, token, held))
        with span("settle"):
            self.settle(len(prefix) + accepted)
        settled_by = [*guess.settled_by[:accepted], self.tier]
        return Emission([*guess.tokens[:accepted], token], distributions, settled_by)

    def settle(self, length: int) -> None:
        """Forget, at this level and below, what was read after ``length`` tokens."""
        self.verifier.settle(length)
        self.proposer.settle(length)

    def _guess(self, text: list[int], count: int) -> Emission:
        """Rounds of the proposer until it has ``count`` tokens, appended to ``text``, or stops."""
        guess = Emission()
        while len(guess.tokens) < count and not guess.last:
            more = self.proposer.round(text, count - len(guess.tokens))
            text += more.tokens
            guess.extend(more)
        return guess


def nest_over(
    below: Level | None, reader: Reader, gamma: int, sampler: Sampler, recorder: Recorder
) -> Level:
    """``reader`` verifying ``below``, or decoding alone where nothing is below it."""
    if below is None:
        return Autoregress(reader, sampler)
    return Speculate(below, reader, gamma, sampler, recorder)
