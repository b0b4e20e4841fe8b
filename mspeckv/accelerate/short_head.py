"""A draft head over fewer tokens: most of a tiny draft's work is scoring words it never says.

Saves 17 % of decoding with a draft that scores 8192 tokens on two cores; nothing on a GPU, where a
draft's pass is launches (benchmarks/results/accelerations-2-cores.txt, accelerations-h200.txt).

A model of two layers spends most of a pass multiplying by its head, ``[vocab, hidden]``. Scoring
only a shortlist cuts that in proportion; what is not on the list gets no probability, and a
proposal's distribution may be anything, so exactness is untouched (idea: FR-Spec,
arXiv 2502.14856).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch.nn.functional import linear
from transformers import PreTrainedModel

from mspeckv.accelerate import packed_weights
from mspeckv.accelerate.ordered_weights import TiledWeight, can_tile
from mspeckv.accelerate.products import route
from mspeckv.context import Product, Products
from mspeckv.decoding.hooks import Hooks
from mspeckv.models.packed import PANEL, Packed
from mspeckv.models.pair import whole


def plug(hooks: Hooks, device: torch.device) -> Hooks:
    """Let a draft score fewer tokens (`Speculation.draft_vocab`)."""
    return replace(hooks, head=make_head, head_bytes=head_bytes)


def make_head(model: PreTrainedModel, prompt: Sequence[int], size: int) -> ShortHead:
    """A head of ``model`` for one prompt."""
    vocab = int(model.get_output_embeddings().weight.shape[0])
    return ShortHead(model, shortlist_tokens(prompt, vocab, size))


def head_bytes(model: PreTrainedModel, size: int) -> int:
    """Bytes of a head that scores ``size`` tokens."""
    weight = model.get_output_embeddings().weight
    if isinstance(weight, Packed):
        return -(-size // PANEL) * weight.codes[0].nbytes
    copies = 2 if can_tile(weight) else 1
    return size * int(weight.shape[1]) * int(weight.element_size()) * copies


def shortlist_tokens(prompt: Sequence[int], vocab: int, size: int) -> torch.Tensor:
    """``size`` token ids: the prompt's, commonest first, then those of lowest id.

    Subword vocabularies are learnt by merging the commonest pairs first, so that among tokens the
    prompt does not hold a lower id is a commoner token.
    """
    own = [token for token, _ in Counter(prompt).most_common(size)]
    held = set(own)
    rest = (token for token in range(vocab) if token not in held)
    chosen = own + [token for token, _ in zip(rest, range(size - len(own)), strict=False)]
    return torch.tensor(sorted(chosen))


class ShortHead:
    """Lets a model score chosen ``tokens`` ``[K]`` only."""

    def __init__(self, model: PreTrainedModel, tokens: torch.Tensor) -> None:
        self.head = model.get_output_embeddings()
        route(self.head)
        self.tokens = tokens.to(model.device)
        self.vocab = int(self.head.weight.shape[0])
        bias = getattr(self.head, "bias", None)
        # a run is in inference mode, whose tensors have no version to tell a copy's age by
        with torch.inference_mode(mode=False), torch.no_grad():
            full = whole(self.head.weight)
            self.weight = (
                full.take(self.tokens) if isinstance(full, Packed) else full[self.tokens].clone()
            )
            self.bias = None if bias is None else whole(bias)[self.tokens].clone()
        # in a pass the model's head is the short one; whatever it does to logits stays
        product: Product = partial(linear, weight=self.weight, bias=self.bias)
        if isinstance(self.weight, Packed):
            product = packed_weights.product(self.weight, self.bias)
        elif can_tile(self.weight):
            product = TiledWeight({"weight": self.weight, "bias": self.bias})
        self.products: Products = {self.head: product}

    def widen(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits ``[n, K]`` as ``[n, V]``, minus infinity where nothing was scored."""
        wide = logits.new_full((logits.shape[0], self.vocab), float("-inf"))
        return wide.index_copy_(1, self.tokens, logits)
