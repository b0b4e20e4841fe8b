"""How much of what a target says others would have guessed: place by place, without a run.

The target reads a text. At each of its last places anyone may say what comes next: the draft, which
sees all of the text, or a window of it, or what a mask leaves; and tier 1. A guess drawn from q is
kept with chance ``sum(min(p, q))``, p being the target's distribution there (Leviathan et al.,
arXiv 2211.17192, theorem 3.5). So nothing is left to chance, and few places tell much.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, PreTrainedModel

from mspeckv import Pair, Sampling, Speculation
from mspeckv.context import Shown
from mspeckv.decoding.reader import ModelReader, Seat
from mspeckv.decoding.sampling import Sampler
from mspeckv.kv.layers import Tier
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.kv.shape import KVShape
from mspeckv.kv.sizes import window_slack
from mspeckv.kv.streaming import StreamingCache
from mspeckv.kv.tier1 import Tier1Room
from mspeckv.models.checks import cache_argument
from mspeckv.record import Ledger, Recorder
from mspeckv.settings import check_count, refuse
from mspeckv_study.probes.next_token import read_text

Floats = NDArray[np.float64]
Sees = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Whether the token at a position sees that at another: both tensors, and so is the answer."""
ROUND = 8
"""Tokens that tier 1 guesses before tier 2 reads them."""
MOVED = 512
"""Tokens by which a window has moved on before its guesses count."""


@dataclass(frozen=True)
class Kept:
    """How often the target keeps a guess.

    Attributes:
        sampled: at temperature 1, the chance of each place.
        greedy: at temperature 0, 1 where both models' first choice is the same, else 0.
    """

    sampled: Floats
    greedy: Floats

    @property
    def rate(self) -> float:
        """Acceptance rate at temperature 1, the mean of all places."""
        return float(self.sampled.mean())

    @property
    def greedy_rate(self) -> float:
        """Acceptance rate at temperature 0."""
        return float(self.greedy.mean())


class Prefix:
    """A context that the target has read, with tier 1's caches looking on.

    Args:
        pair: with a draft.
        tokens: the context, less its last token, which the first guess begins from.
        budgets: of tier 1.
        more: tokens that are to follow at most.

    Raises:
        ValueError: no draft, recurrent layers, budgets for latents, or more tokens than the target
            has positions.
    """

    def __init__(
        self, pair: Pair, tokens: Sequence[int], budgets: Sequence[int] = (), more: int = 64
    ) -> None:
        if pair.draft is None:
            raise refuse("pair", pair.target_id, "it has no draft: load one")
        if pair.kv_shape.states:
            raise refuse("pair", pair.target_id, "its states cannot be taken back: use another")
        if pair.kv_shape.latent and budgets:
            raise refuse("pair", pair.target_id, "it keeps latents: use one of keys and values")
        check_count("more", more, 1)
        check_count("tokens", len(tokens), 1, pair.max_positions - more)
        self.pair, self.draft = pair, pair.draft
        self.tokens, self.more = list(tokens), more
        self.chunks = {
            budget: RetrievalCache(
                Tier1Room(pair.kv_shape, Speculation(budget=budget), len(tokens), more),
                None,
                pair.device,
            )
            for budget in budgets
        }
        self._cache = DynamicCache()
        self.read(self.tokens, 1, list(self.chunks.values()))

    def read(
        self, tokens: Sequence[int], rows: int, onlookers: Sequence[RetrievalCache] = ()
    ) -> torch.Tensor:
        """The target reads on; logits of the last tokens."""

        def watch(layer: int, query: torch.Tensor, shown: Shown) -> None:
            for cache in onlookers:
                cache.watch(layer, query, shown)

        named = {cache_argument(self.pair.target): self._cache}
        found = read_text(self.pair.target, tokens, rows, watch, **named)
        return found[:, : self.pair.vocab_size]

    def forget(self, count: int) -> None:
        """Take back the last tokens that were read."""
        if count:
            self._cache.crop(-count)

    def write(self, first: int, seed: int = 1) -> list[int]:
        """``more`` tokens: a given one, and how the target goes on at temperature 1."""
        sampler = Sampler(Sampling(temperature=1.0, top_p=1.0, seed=seed))
        written = [first]
        while len(written) < self.more:
            logits = self.read(written[-1:], 1)
            row = sampler.distribution(logits, self.tokens + written)[0]
            written.append(sampler.draw(row))
        self.forget(len(written) - 1)
        return written


class GuessProbe:
    """A target after a context, asked place by place; and whoever guesses what it says.

    Args:
        prefix: what stands before.
        asked: the tokens after each of which the target is asked, as many as the prefix has room
            for at most.

    Attributes:
        tokens: all that was read.
    """

    def __init__(self, prefix: Prefix, asked: Sequence[int]) -> None:
        check_count("asked", len(asked), 1, prefix.more)
        self.pair, self.draft = prefix.pair, prefix.draft
        self.tokens, self.asked = [*prefix.tokens, *asked], len(asked)
        self._first = len(prefix.tokens)
        self._windows: dict[tuple[int, int], torch.Tensor] = {}
        self._ask(prefix)
        prefix.forget(self.asked)

    @classmethod
    def of(
        cls, pair: Pair, tokens: Sequence[int], asked: int = 64, budgets: Sequence[int] = ()
    ) -> Self:
        """A text, asked at its last places.

        Raises:
            ValueError: no draft, too few tokens, or more than the target has positions.
        """
        check_count("tokens", len(tokens), asked + 1, pair.max_positions)
        return cls(Prefix(pair, tokens[:-asked], budgets, asked), tokens[-asked:])

    def tier1(self, budget: int) -> Kept:
        """Tier 1 guesses, from chunks that are chosen anew as in a run."""
        return self._kept(self._chosen[budget])

    def reading_all(self, draft: PreTrainedModel | None = None) -> Kept:
        """The draft guesses from the whole text; or another draft, such as a `squeezed` one."""
        return self._kept(read_text(draft or self.draft, self.tokens, self.asked, use_cache=False))

    def reading_window(self, sinks: int = 4, window: int = 252, judge: int | None = None) -> Kept:
        """The draft guesses from its first and latest tokens, through the engine's own cache.

        Args:
            sinks: first tokens.
            window: latest tokens.
            judge: tier 1 with this budget keeps or rejects; None for the target over everything.
        """
        if (sinks, window) not in self._windows:
            self._windows[sinks, window] = self._through_window(sinks, window)
        return self._kept(self._windows[sinks, window], judge)

    @torch.inference_mode()
    def _through_window(self, sinks: int, window: int) -> torch.Tensor:
        shape = KVShape.of(self.draft.config, self.draft.dtype)
        slack = window_slack(Speculation())
        cache = StreamingCache(shape, sinks, window, slack, self.pair.device)
        reader = self._reader(self.draft, cache)
        at = max(1, self._first - MOVED)
        reader.prefill(self.tokens[:at])
        while at < self._first:
            at = min(at + slack, self._first)
            reader.read(self.tokens[:at], 1)
        rows = [reader.read(self.tokens[: at + n], len(part)) for n, part in self._rounds()]
        return torch.cat(rows)

    @torch.inference_mode()
    def reading_what(self, sees: Sees, positions: Sequence[int] | None = None) -> Kept:
        """The draft guesses from what a mask leaves of the text; no position moves.

        Args:
            sees: called with all positions, as a column of those that look and a row of those
                that are looked at. What comes later is never seen, whatever it says.
            positions: those that are read at all, in order, the asked ones among them; None for
                every one.
        """
        device = self.pair.device
        read = range(len(self.tokens)) if positions is None else positions
        place = torch.tensor(list(read), device=device)
        looks, seen = place[:, None], place[None, :]
        visible = (sees(looks, seen) & (seen <= looks)) | (seen == looks)
        mask = torch.zeros(visible.shape, dtype=self.draft.dtype, device=device)
        mask.masked_fill_(~visible, torch.finfo(mask.dtype).min)
        ids = torch.tensor([self.tokens], device=device)[:, place]
        logits = self.draft(
            input_ids=ids, position_ids=place[None], attention_mask=mask[None, None],
            logits_to_keep=self.asked, use_cache=False,
        ).logits[0]  # fmt: skip
        return self._kept(logits)

    def _rounds(self) -> list[tuple[int, range]]:
        """The asked places in rounds: how many there are up to a round's end, and its own."""
        ends = [min(start + ROUND, self.asked) for start in range(0, self.asked, ROUND)]
        return [(end, range(start, end)) for start, end in zip([0, *ends], ends, strict=False)]

    @torch.inference_mode()
    def _ask(self, prefix: Prefix) -> None:
        """Round by round: tier 1 guesses a round's tokens, tier 2 reads them and shows itself."""
        chunks = copy.deepcopy(prefix.chunks)
        readers = {
            budget: self._reader(self.pair.target, cache) for budget, cache in chunks.items()
        }
        target: list[torch.Tensor] = []
        chosen: dict[int, list[torch.Tensor]] = {budget: [] for budget in chunks}
        for count, part in self._rounds():
            end = self._first + count
            for budget, reader in readers.items():
                chosen[budget].append(reader.read(self.tokens[:end], len(part)))
            new = self.tokens[end - len(part) : end]
            target.append(prefix.read(new, len(part), list(chunks.values())))
            for reader in readers.values():
                reader.settle(end)
        self._target = torch.cat(target)
        self._chosen = {budget: torch.cat(rows) for budget, rows in chosen.items()}

    def _reader(self, model: PreTrainedModel, cache: Tier) -> ModelReader:
        own = Recorder(Ledger())
        return ModelReader(Seat(0, "draft", model, cache, own, vocab=self.pair.vocab))

    def _kept(self, guessed: torch.Tensor, judge: int | None = None) -> Kept:
        told = self._target if judge is None else self._chosen[judge]
        p, q = told.float(), guessed[:, : self.pair.vocab_size].float()
        sampled = torch.minimum(p.softmax(-1), q.softmax(-1)).sum(-1)
        greedy = p.argmax(-1) == q.argmax(-1)
        return Kept(sampled.double().cpu().numpy(), greedy.double().cpu().numpy())


def squeezed(model: PreTrainedModel, trained: int, positions: int) -> PreTrainedModel:
    """A model for ``positions`` tokens whose distances were trained up to ``trained``, by YaRN.

    Rotary frequencies that never finished a turn in training are slowed, so that no angle is new
    (arXiv 2309.00071). Weights are shared with ``model``, which stays as it was.
    """
    if positions <= trained:
        return model
    shared: dict[int, Any] = {id(weight): weight for weight in model.parameters()}
    out = copy.deepcopy(model, shared)
    out.config.rope_parameters = {
        **out.config.rope_parameters,
        "rope_type": "yarn",
        "factor": positions / trained,
        "original_max_position_embeddings": trained,
    }
    rotary = out.model.rotary_emb
    out.model.rotary_emb = type(rotary)(out.config).to(model.device)
    return out
