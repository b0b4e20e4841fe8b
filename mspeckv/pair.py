"""A target and its draft, checked against each other."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from mspeckv.attention import check_interface
from mspeckv.compatibility import (
    check_arguments,
    check_causal,
    check_decoder,
    check_match,
    check_stateless,
    check_tokenizers,
)
from mspeckv.config import refuse
from mspeckv.kv.shape import KVShape
from mspeckv.parallel import Ranks
from mspeckv.tensor_parallel import own_part, ranks_of
from mspeckv.tiled import tile, tiled_bytes
from mspeckv.trial import check_pass


@dataclass(eq=False)
class Pair:
    """A target, the draft that guesses for it, and their tokenizer; ready to run.

    Build one with `load_pair`, or with `Pair.of` from models already in memory.

    Attributes:
        target: the model whose distribution every method reproduces.
        draft: tier 0, or None.
        tokenizer: None for models without text, such as random ones.
        target_id: where the target came from.
        draft_id: where the draft came from; ``"none"`` without one.
        step_seconds: the engine's measurement of one target step, once it has been made.
        workspace: on a GPU, the caches and graphs of the last run, for another like it; no run
            that goes on has them.
        pass_costs: what passes of earlier runs took, by settings; chosen lengths begin with it.
        lock: held while one of these is changed or measured.
        ranks: this process among those that the target is split over; None for a whole target.
    """

    target: PreTrainedModel
    draft: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase | None
    target_id: str
    draft_id: str
    step_seconds: float | None = None
    workspace: object = None
    ranks: Ranks | None = None
    pass_costs: dict[object, Any] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @classmethod
    def of(
        cls,
        target: PreTrainedModel,
        draft: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        draft_tokenizer: PreTrainedTokenizerBase | None = None,
        target_id: str | None = None,
        draft_id: str | None = None,
        freeze: bool = True,
    ) -> Pair:
        """Wrap models that are already built.

        Args:
            draft_tokenizer: the draft's own, to be compared with ``tokenizer``.
            freeze: set the models to evaluation, without gradients.

        Raises:
            ValueError: an architecture without standard causal attention in every layer, a
                draft whose vocabulary, device or dtype is not the target's, a target that is not
                split over ranks by whole heads, or a draft that is split.
        """
        target_id = target_id or _name_of(target)
        draft_id = draft_id or (_name_of(draft) if draft is not None else "none")
        check_decoder(target.config, "target", target_id)
        ranks = ranks_of(target)
        models = [target]
        if draft is not None:
            if ranks_of(draft) is not None:
                raise refuse("draft", draft_id, "every rank needs a whole one")
            check_decoder(draft.config, "draft", draft_id)
            check_match(target, draft, target_id, draft_id)
            if tokenizer is not None and draft_tokenizer is not None:
                check_tokenizers(tokenizer, draft_tokenizer, target_id, draft_id)
            models.append(draft)
        for model in models:
            field = "target" if model is target else "draft"
            check_stateless(model, field)
            check_causal(model, field)
            check_interface(model, field)
            check_arguments(model, field)
            if freeze:
                model.eval()
                model.requires_grad_(False)
            check_pass(model, field, ranks.size if ranks is not None and model is target else 1)
            tile(model)
        return cls(target, draft, tokenizer, target_id, draft_id, ranks=ranks)

    @property
    def models(self) -> list[PreTrainedModel]:
        """Target and draft."""
        return [self.target, *([self.draft] if self.draft is not None else [])]

    @property
    def device(self) -> torch.device:
        """Where both models compute."""
        device: torch.device = self.target.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The compute dtype of both models."""
        dtype: torch.dtype = self.target.dtype
        return dtype

    @property
    def layers(self) -> int:
        """Decoder layers of the target."""
        return int(self._config.num_hidden_layers)

    @property
    def kv_heads(self) -> int:
        """KV heads per layer of the target."""
        return int(getattr(self._config, "num_key_value_heads", None) or self._heads)

    @property
    def head_dim(self) -> int:
        """Channels per head of the target."""
        own = getattr(self._config, "head_dim", None)
        return int(own or self._config.hidden_size // self._heads)

    @property
    def rank_count(self) -> int:
        """Processes that the target is split over; 1 for a whole target."""
        return self.ranks.size if self.ranks is not None else 1

    @property
    def kv_shape(self) -> KVShape:
        """The target's KV in this process: of all heads, or of this rank's."""
        return KVShape.of(self._config, self.dtype, self.rank_count)

    @property
    def max_positions(self) -> int:
        """Tokens that the target was made for, prompt and output together."""
        return int(self._config.max_position_embeddings)

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        return int(self._config.vocab_size)

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end a text; empty where neither model nor tokenizer names one."""
        found: set[int] = set()
        for holder in (self.target.generation_config, self._config, self.tokenizer):
            ids = getattr(holder, "eos_token_id", None)
            found.update([ids] if isinstance(ids, int) else ids or [])
        return frozenset(found)

    @property
    def weight_bytes(self) -> int:
        """Bytes of both models' weights in this process; a tensor that they share counts once."""
        parts = [own_part(weight) for model in self.models for weight in model.parameters()]
        storages = {
            part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in parts
        }
        return sum(storages.values())

    @property
    def copy_bytes(self) -> int:
        """Bytes of the ordered copies of weights that a CPU multiplies by (`mspeckv.tiled`)."""
        return tiled_bytes(*self.models)

    @property
    def _config(self) -> PretrainedConfig:
        return self.target.config.get_text_config()

    @property
    def _heads(self) -> int:
        return int(self._config.num_attention_heads)


def _name_of(model: PreTrainedModel) -> str:
    return str(model.name_or_path or type(model).__name__)
