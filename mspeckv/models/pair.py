"""A target and its draft, checked against each other."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from mspeckv.kv.shape import KVShape
from mspeckv.models.checks import check_decoder, check_match, check_model, common_tokens
from mspeckv.models.trial import check_pass
from mspeckv.settings import check_kind, refuse


@dataclass(frozen=True)
class Rank:
    """This process among those that a target is split over; `mspeckv.parallel.Ranks` joins them.

    Attributes:
        rank: its number.
        size: processes in all.
        here: how many of them share this machine's memory.
    """

    rank: int
    size: int
    here: int

    @property
    def first(self) -> bool:
        """Whether this is the one that decides and prints."""
        return self.rank == 0


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
        ranks: this process among those that the target is split over; None for a whole target.
        vocab: tokens of both, where their vocabularies are padded to different sizes: neither model
            ever gives another any probability. None: all that the target scores.
        state_bytes: of one text's recurrent states in the target and in the draft, by field.
    """

    target: PreTrainedModel
    draft: PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase | None
    target_id: str
    draft_id: str
    ranks: Rank | None = None
    vocab: int | None = None
    state_bytes: dict[str, int] = field(default_factory=dict)

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
        ranks: Rank | None = None,
    ) -> Pair:
        """Wrap models that are already built.

        Args:
            draft_tokenizer: the draft's own, to be compared with ``tokenizer``: where the two mean
                the same tokens, the models may be padded to different sizes.
            freeze: set the models to evaluation, without gradients.
            ranks: the processes that the target is split over
                (`mspeckv.parallel.tensor_parallel.ranks_of`).

        Raises:
            ValueError: an architecture without standard causal attention in every layer, a
                draft whose vocabulary, device or dtype is not the target's, a target that is not
                split over ranks by whole heads, or a draft that is split.
        """
        check_kind("target", target, nn.Module, "a loaded model; mspeckv.load_pair takes a name")
        check_kind("draft", draft, nn.Module | None, "a loaded model, or None")
        target_id = target_id or _name_of(target)
        draft_id = draft_id or (_name_of(draft) if draft is not None else "none")
        check_decoder(target.config, "target", target_id)
        _check_split(target, draft, ranks, draft_id)
        vocab = None
        if draft is not None:
            check_decoder(draft.config, "draft", draft_id)
            tokens = common_tokens(tokenizer, draft_tokenizer, target_id, draft_id)
            vocab = check_match(target, draft, target_id, draft_id, tokens)
        pair = cls(target, draft, tokenizer, target_id, draft_id, ranks, vocab)
        for name, model in zip(("target", "draft"), pair.models, strict=False):
            check_model(model, name)
            if freeze:
                model.eval().requires_grad_(False)
            shares = pair.rank_count if model is target else 1
            pair.state_bytes[name] = check_pass(model, name, shares)
        return pair

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
        """Decoder layers of the target whose KV grows with the text: what a policy places."""
        return self.kv_shape.layers

    @property
    def kv_heads(self) -> int:
        """KV heads per layer of the whole target."""
        return KVShape.of(self._config, self.dtype).heads

    @property
    def head_dim(self) -> int:
        """Channels per head of the target."""
        return self.kv_shape.dim

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
        return self.vocab or int(self._config.vocab_size)

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
        parts = (own_part(weight) for model in self.models for weight in model.parameters())
        storages = (part.untyped_storage() for part in parts)
        return sum({one.data_ptr(): one.nbytes() for one in storages}.values())

    @property
    def _config(self) -> PretrainedConfig:
        return self.target.config.get_text_config()


def _name_of(model: PreTrainedModel) -> str:
    return str(model.name_or_path or type(model).__name__)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a weight that may be split; every rank must ask at once."""
    full: torch.Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a weight that may be split."""
    part: torch.Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def _check_split(
    target: PreTrainedModel, draft: PreTrainedModel | None, ranks: Rank | None, draft_id: str
) -> None:
    """Refuse a split model whose ranks are not told, and a split draft."""
    parts, of_draft = (int(getattr(model, "tp_size", None) or 1) for model in (target, draft))
    given = ranks.size if ranks is not None else None
    if parts != (given or 1):
        allowed = f"the target is split over {parts}: use mspeckv.parallel's ranks_of(target)"
        raise refuse("ranks", given, allowed)
    if of_draft > 1:
        raise refuse("draft", draft_id, "every rank needs a whole one")
