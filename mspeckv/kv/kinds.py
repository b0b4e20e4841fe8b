"""What each decoder layer keeps of a text: every token, a window of it, a state, or nothing."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PretrainedConfig


@dataclass(frozen=True)
class Sight:
    """How far back a layer's queries see.

    Attributes:
        tokens: tokens seen, the query's own included; 0 for all of them.
        chunked: the text is cut into chunks of so many tokens instead, and a query sees its own.
    """

    tokens: int = 0
    chunked: bool = False

    def first(self, position: int) -> int:
        """The first position that a query at ``position`` sees."""
        if not self.tokens:
            return 0
        return position - position % self.tokens if self.chunked else position - self.tokens + 1


ALL = Sight()


@dataclass(frozen=True)
class Kind:
    """One decoder layer.

    Attributes:
        sight: of its attention; None where it has none.
        states: recurrent states that it keeps, beside its attention where it has both.
    """

    sight: Sight | None = ALL
    states: int = 0

    @property
    def grows(self) -> bool:
        """Whether its keys and values grow with the text: these a policy places and quantizes."""
        return self.sight == ALL


_WINDOWS = {
    "sliding_attention": "sliding_window",
    "hybrid_sliding": "sliding_window",
    "chunked_attention": "attention_chunk_size",
}
"""Kinds of layers that see so far as a setting says."""
_STATES = {"linear_attention", "mamba", "conv", "recurrent"}
"""Kinds of layers that keep a state."""
_BOTH = {"hybrid", "hybrid_sliding"}
"""Kinds of layers that attend, and keep a state as well."""
_EMPTY = {"moe", "mlp"}
_PLAIN = {"full_attention", "attention", *_WINDOWS, *_STATES, *_BOTH, *_EMPTY}


def names_of(text: PretrainedConfig) -> list[str]:
    """Transformers' names of a text model's layers, one for each.

    Without a list of them, a window or a chunk size speaks for all.
    """
    kinds = getattr(text, "layer_types", None)
    if kinds:
        return list(kinds)
    name = "full_attention"
    if getattr(text, "attention_chunk_size", None):
        name = "chunked_attention"
    if getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True):
        name = "sliding_attention"
    return [name] * int(getattr(text, "num_hidden_layers", None) or 0)


def unknown_kinds(text: PretrainedConfig) -> list[str]:
    """Names of layers that the engine does not know."""
    return sorted(set(names_of(text)) - _PLAIN)


def kinds_of(text: PretrainedConfig) -> tuple[Kind, ...]:
    """The layers of a text model."""
    return tuple(_kind(text, name) for name in names_of(text))


def _kind(text: PretrainedConfig, name: str) -> Kind:
    """One layer; what sees as many tokens as the model has positions sees all."""
    states = int(getattr(text, "number_of_conv_states", 1)) * (name in _STATES | _BOTH)
    if name in _STATES | _EMPTY:
        return Kind(None, states)
    seen = int(getattr(text, _WINDOWS.get(name, ""), None) or 0)
    if not seen or seen >= int(getattr(text, "max_position_embeddings", None) or 0):
        return Kind(states=states)
    return Kind(Sight(seen, chunked=name == "chunked_attention"), states)
