"""Mixtures of experts: which weights a pass reads depends on how many tokens it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True)
class Experts:
    """Parts of a layer of which a router chooses a few, token by token.

    Attributes:
        count: in a layer.
        used: by one token.
        params: weights of one; a mean over all layers, where some have none.
    """

    count: int
    used: int
    params: float

    def read(self, tokens: Any) -> Any:
        """How many of a layer ``tokens`` tokens read, each choosing by itself and all alike."""
        return self.count * (1 - (1 - self.used / self.count) ** tokens)


def experts_of(text: PretrainedConfig, routed: int, layers: int) -> Experts | None:
    """The experts of a text model, ``routed`` weights in ``layers`` layers; None without any."""
    count = next((int(n) for name in _COUNTS if (n := getattr(text, name, None))), 0)
    used = int(getattr(text, "num_experts_per_tok", None) or 0)
    return Experts(count, used, routed / count / layers) if routed and count and used else None


def is_routed(name: str) -> bool:
    """Whether a parameter of this name belongs to an expert."""
    return ".experts." in name


def growth(model: PreTrainedModel, tokens: int) -> float:
    """Weights that a pass over so many tokens reads, over those that one token reads; modelled."""
    routed = sum(w.numel() for name, w in model.named_parameters() if is_routed(name))
    dense = model.num_parameters() - routed
    if not model.config.get_text_config().tie_word_embeddings:
        # of an embedding that is no head a token reads a row
        dense -= model.get_input_embeddings().weight.numel()
    experts = experts_of(model.config.get_text_config(), routed, 1)
    if experts is None:
        return 1.0
    one, many = (dense + experts.params * float(experts.read(n)) for n in (1, tokens))
    return float(many / one)
