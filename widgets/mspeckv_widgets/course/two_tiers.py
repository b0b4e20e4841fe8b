"""A draft and a target as two functions of a text: what a verify loop is written and judged with.

Distributions are NumPy arrays. Every call reads the whole text anew; the engine's caches spare it
that, and change nothing of what is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from mspeckv import Pair, Sampling
from mspeckv.decoding.sampling import Sampler
from mspeckv_study.probes.next_token import read_text

Floats = NDArray[np.float64]
Text = tuple[int, ...]
Draft = Callable[[list[int]], Floats]
Target = Callable[[list[int], int], Floats]
"""``target(tokens, last)``: rows after each of the last tokens."""
Decode = Callable[[Draft, Target, list[int], int, int, np.random.Generator], Sequence[int]]
"""``decode(draft, target, prompt, n, gamma, rng)``: the n tokens that follow."""


@dataclass
class TwoTiers:
    """What two models hold likely next, and how often they were asked.

    Attributes:
        draft: ``draft(tokens)``: ``[V]``, its distribution of the token that follows.
        target: ``target(tokens, last)``: ``[last, V]``, the target's distributions after each of
            the last tokens, from one look.
        vocabulary: V.
        drafts: looks by the draft so far.
        looks: looks by the target so far.
        longest: the most places that one look was asked for.
    """

    _draft: Draft
    _target: Target
    vocabulary: int
    drafts: int = 0
    looks: int = 0
    longest: int = 0

    def draft(self, tokens: Sequence[int]) -> Floats:
        """The draft's distribution of the next token."""
        self.drafts += 1
        return self._draft([int(token) for token in tokens])

    def target(self, tokens: Sequence[int], last: int = 1) -> Floats:
        """The target's distributions after each of the last tokens."""
        self.looks += 1
        self.longest = max(self.longest, last)
        return self._target([int(token) for token in tokens], last)

    @classmethod
    def of_pair(cls, pair: Pair, sampling: Sampling | None = None) -> TwoTiers:
        """A pair's target and draft; default: temperature 0, so that one token has all the mass."""
        sampler, draft = Sampler(sampling or Sampling(0)), pair.draft
        assert draft is not None

        def read(model: PreTrainedModel, tokens: list[int], last: int) -> Floats:
            logits = read_text(model, tokens, last, use_cache=False)[:, : pair.vocab_size]
            return _exact(sampler.distribution(logits, tokens).double().numpy())

        return cls(
            lambda tokens: read(draft, tokens, 1)[0],
            lambda tokens, last: read(pair.target, tokens, last),
            pair.vocab_size,
        )

    @classmethod
    def of_words(cls, pair: Pair, prompt: list[int], words: int = 6) -> TwoTiers:
        """The same pair at temperature 1 with a vocabulary cut to the likeliest words.

        Token w of it is the w-th likeliest to follow ``prompt``; texts go on from the prompt, which
        is not part of them. Each place is read once and remembered.
        """
        whole = cls.of_pair(pair, Sampling(temperature=1, top_p=1))
        ids = np.argsort(-whole.target(prompt, 1)[0])[:words]
        seen: dict[tuple[str, Text], Floats] = {}

        def at(who: str, text: Text) -> Floats:
            if (who, text) not in seen:
                tokens = prompt + ids[list(text)].tolist()
                row = whole.draft(tokens) if who == "draft" else whole.target(tokens, 1)[0]
                seen[who, text] = _exact(row[ids])
            return seen[who, text]

        return cls(
            lambda text: at("draft", tuple(text)),
            lambda text, last: np.stack(
                [at("target", tuple(text[: len(text) - last + 1 + row])) for row in range(last)]
            ),
            words,
        )

    @classmethod
    def memoryless(cls, p: Sequence[float], q: Sequence[float]) -> TwoTiers:
        """Two models that hold the same likely after any text: p the target, q the draft."""
        target, draft = (_exact(np.asarray(part, dtype=np.float64)) for part in (p, q))
        return cls(lambda _: draft, lambda _, last: np.tile(target, (last, 1)), len(target))


def texts_expected(two: TwoTiers, n: int) -> dict[Text, float]:
    """The exact chance of every text of n tokens that the target writes by itself."""
    mass: dict[Text, float] = {(): 1.0}
    for grown in range(n):
        for text in product(range(two.vocabulary), repeat=grown):
            before, row = mass.pop(text), two.target(text, 1)[0].tolist()
            mass.update({(*text, token): before * p for token, p in enumerate(row)})
    return mass


def texts_seen(
    decode: Decode, two: TwoTiers, n: int, gamma: int, samples: int, seed: int = 0
) -> Counter[Text]:
    """How often a loop wrote each text of n tokens."""
    rng = np.random.default_rng(seed)
    return Counter(
        tuple(int(token) for token in decode(two.draft, two.target, [], n, gamma, rng))
        for _ in range(samples)
    )


def _exact(rows: Floats) -> Floats:
    """Rows that add up to 1 in double precision, as a generator's ``choice`` wants them."""
    shares: Floats = rows / rows.sum(-1, keepdims=True)
    return shares
