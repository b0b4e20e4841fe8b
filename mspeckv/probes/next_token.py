"""What target and draft hold likely next, place by place, to look at without a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from mspeckv.decoding.attention import reading
from mspeckv.decoding.sampling import Sampler
from mspeckv.models import Pair
from mspeckv.models.text import Prompt, encode_prompt
from mspeckv.settings import Sampling, check_count, refuse


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
        prompt: text, or token ids.
        sampling: default: temperature 1 and nothing cut off.
        last: places, counted from the text's end.

    Raises:
        ValueError: the pair has no draft, or the text has not so many places.
    """
    if pair.draft is None:
        raise refuse("pair", pair.target_id, "it has no draft: load one, or take the default pair")
    check_count("last", last, 1)
    tokens = encode_prompt(pair, prompt)
    if not last < len(tokens) <= pair.max_positions:
        raise refuse(
            "prompt", f"{len(tokens)} tokens", f"use {last + 1} to {pair.max_positions} tokens"
        )
    sampler = Sampler(sampling or Sampling(temperature=1.0, top_p=1.0))
    read = tokens[:-1]
    both = [
        sampler.distribution(_logits(model, read, last), read)
        for model in (pair.target, pair.draft)
    ]
    first = len(tokens) - last
    return [
        NextToken(first + row, tokens[first + row], both[0][row], both[1][row])
        for row in range(last)
    ]


def _logits(model: PreTrainedModel, tokens: Sequence[int], last: int) -> torch.Tensor:
    """Logits ``[last, V]`` after each of the last tokens."""
    ids = torch.tensor([list(tokens)], device=model.device)
    with torch.inference_mode(), reading(model):
        logits: torch.Tensor = model(ids, use_cache=False, logits_to_keep=last).logits[0]
    return logits
