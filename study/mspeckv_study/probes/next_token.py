"""What target and draft hold likely next, place by place, to look at without a run.

How any probe reads a text with a model stands here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from mspeckv.context import Watcher
from mspeckv.decoding.attention import reading
from mspeckv.decoding.sampling import Sampler
from mspeckv.models.pair import Pair
from mspeckv.models.text import Prompt, encode_prompt
from mspeckv.settings import Sampling, check_count, check_kind, refuse


@dataclass(frozen=True)
class NextToken:
    """The distributions of one place in a text.

    Attributes:
        place: how many tokens stand before it.
        token: the id that the text has there.
        target: ``[V]``, what the target would draw from.
        draft: ``[V]``, what the draft would.
    """

    place: int
    token: int
    target: torch.Tensor
    draft: torch.Tensor

    @property
    def acceptance(self) -> float:
        """Chance that a token drawn from the draft is accepted: ``sum(min(p, q))``."""
        return float(torch.minimum(self.target, self.draft).sum())


def next_distributions(
    pair: Pair, prompt: Prompt, sampling: Sampling | None = None, last: int = 16
) -> list[NextToken]:
    """Both models' distributions of the last tokens of a text, each from all tokens before it.

    In a run the draft sees its sinks and window alone; the two are the same for a text that is
    no longer than those.

    Args:
        pair: with a draft.
        sampling: default: temperature 1 and nothing cut off.
        last: places, counted from the text's end.

    Raises:
        ValueError: the pair has no draft, or the text has not so many places.
    """
    check_kind("pair", pair, Pair)
    check_kind("sampling", sampling, Sampling | None, "a Sampling")
    if pair.draft is None:
        raise refuse("pair", pair.target_id, "it has no draft: load one, or take the default pair")
    check_count("last", last, 1)
    tokens = encode_text(pair, prompt, last + 1)
    sampler = Sampler(sampling or Sampling(temperature=1.0, top_p=1.0))
    read, models = tokens[:-1], (pair.target, pair.draft)
    logits = [read_text(model, read, last, use_cache=False) for model in models]
    both = [sampler.distribution(rows[:, : pair.vocab_size], read) for rows in logits]
    places = range(len(tokens) - last, len(tokens))
    return list(map(NextToken, places, tokens[-last:], *both))


def encode_text(pair: Pair, prompt: Prompt, least: int = 1) -> list[int]:
    """Token ids of a prompt.

    Raises:
        ValueError: fewer than ``least``, or more than the target has positions.
    """
    check_kind("pair", pair, Pair)
    tokens = encode_prompt(pair, prompt)
    if not least <= len(tokens) <= pair.max_positions:
        few = f"{least} to" if least > 1 else "at most"
        raise refuse("prompt", f"{len(tokens)} tokens", f"use {few} {pair.max_positions} tokens")
    return tokens


def read_text(
    model: PreTrainedModel,
    tokens: Sequence[int],
    last: int,
    watch: Watcher | None = None,
    **arguments: Any,
) -> torch.Tensor:
    """Logits ``[last, V]`` after each of the last tokens; ``arguments`` are the model's own."""
    ids = torch.tensor([list(tokens)], device=model.device)
    with torch.inference_mode(), reading(model, watch):
        logits: torch.Tensor = model(ids, logits_to_keep=last, **arguments).logits[0]
    return logits
