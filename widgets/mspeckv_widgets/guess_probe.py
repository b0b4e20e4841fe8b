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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, PreTrainedModel

from mspeckv import Pair, Sampling, Speculation
from mspeckv.context import Shown
from mspeckv.decoding.fits import window_slack
from mspeckv.decoding.reader import ModelReader, Seat
from mspeckv.decoding.sampling import Sampler
from mspeckv.kv.layers import Tier
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.kv.shape import KVShape
from mspeckv.kv.streaming import StreamingCache
from mspeckv.models.checks import cache_argument
from mspeckv.probes.next_token import read_text
from mspeckv.record import Ledger, Recorder
from mspeckv.settings import check_count, refuse

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


class GuessProbe:
    """A target after a context, asked place by place.

    Args:
        pair: with a draft.
        tokens: the context and, unless ``own``, at least ``asked`` tokens that follow it.
        context: how many of them are context.
        asked: places.
        budgets: of tier 1.
        own: the target itself writes what follows, at temperature 1.
        seed: of that writing.

    Attributes:
        tokens: the context, and all that was read after it.

    Raises:
        ValueError: no draft, too short a text, or too long a one for the target.
    """

    def __init__(
        self,
        pair: Pair,
        tokens: Sequence[int],
        context: int,
        asked: int = 64,
        budgets: Sequence[int] = (),
        *,
        own: bool = False,
        seed: int = 1,
    ) -> None:
        if pair.draft is None:
            raise refuse("pair", pair.target_id, "it has no draft: load one")
        check_count("asked", asked, 1)
        needed = context if own else context + asked - 1
        check_count("context", context, 2, pair.max_positions + 1 - asked)
        if len(tokens) < needed:
            raise refuse("tokens", len(tokens), f"use at least {needed}")
        self.pair, self.draft = pair, pair.draft
        self.context, self.asked = context, asked
        self.tokens = list(tokens[:needed])
        self._first = context - 1
        self._cache = DynamicCache()
        chunks = {
            budget: RetrievalCache(
                pair.kv_shape, Speculation(budget=budget), self._first, asked, pair.device
            )
            for budget in budgets
        }
        self._onlookers = list(chunks.values())
        self._read(0, self._first, 1)
        if own:
            self._write(Sampler(Sampling(temperature=1.0, top_p=1.0, seed=seed)))
        readers = {budget: self._reader(pair.target, cache) for budget, cache in chunks.items()}
        self._ask(readers)
        del self._cache, self._onlookers

    def tier1(self, budget: int) -> Kept:
        """Tier 1 guesses, from chunks that are chosen anew as in a run."""
        return self._kept(self._chosen[budget])

    def reading_all(self, draft: PreTrainedModel | None = None) -> Kept:
        """The draft guesses from the whole text; or another draft, such as a `squeezed` one."""
        return self._kept(read_text(draft or self.draft, self.tokens, self.asked, use_cache=False))

    @torch.inference_mode()
    def reading_window(self, sinks: int = 4, window: int = 252) -> Kept:
        """The draft guesses from its first and latest tokens, through the engine's own cache."""
        shape = KVShape.of(self.draft.config, self.draft.dtype)
        slack = window_slack(Speculation())
        reader = self._reader(
            self.draft, StreamingCache(shape, sinks, window, slack, self.pair.device)
        )
        at = max(1, self._first - MOVED)
        reader.prefill(self.tokens[:at])
        while at < self._first:
            step = min(slack, self._first - at)
            at += step
            reader.read(self.tokens[:at], 1)
        rows = [reader.read(self.tokens[: at + n], len(part)) for n, part in self._rounds()]
        return self._kept(torch.cat(rows))

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
    def _ask(self, readers: dict[int, ModelReader]) -> None:
        """Round by round: tier 1 guesses a round's tokens, tier 2 reads them and shows itself."""
        target, chosen = [], {budget: [] for budget in readers}  # type: ignore[var-annotated]
        for count, part in self._rounds():
            end = self._first + count
            for budget, reader in readers.items():
                chosen[budget].append(reader.read(self.tokens[:end], len(part)))
            target.append(self._read(end - len(part), end, len(part)))
            for reader in readers.values():
                reader.settle(end)
        self._target = torch.cat(target)
        self._chosen = {budget: torch.cat(rows) for budget, rows in chosen.items()}

    @torch.inference_mode()
    def _write(self, sampler: Sampler) -> None:
        """Let the target go on, and forget that it read what it wrote."""
        onlookers, self._onlookers = self._onlookers, []
        while len(self.tokens) < self.context + self.asked - 1:
            logits = self._read(len(self.tokens) - 1, len(self.tokens), 1)
            self.tokens.append(sampler.draw(sampler.distribution(logits, self.tokens)[0]))
        self._cache.crop(self._first)
        self._onlookers = onlookers

    def _read(self, start: int, end: int, rows: int) -> torch.Tensor:
        """The target reads on; logits of the last tokens."""
        named = {cache_argument(self.pair.target): self._cache}
        return read_text(self.pair.target, self.tokens[start:end], rows, self._watch, **named)

    def _watch(self, layer: int, query: torch.Tensor, shown: Shown) -> None:
        for cache in self._onlookers:
            cache.watch(layer, query, shown)

    def _reader(self, model: PreTrainedModel, cache: Tier) -> ModelReader:
        return ModelReader(Seat(0, "draft", model, cache, Recorder(Ledger())))

    def _kept(self, guessed: torch.Tensor) -> Kept:
        p, q = self._target.float(), guessed.float()
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
