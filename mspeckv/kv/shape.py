"""What a model's KV cache is made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PretrainedConfig

from mspeckv.kv.kinds import Kind, Sight, kinds_of
from mspeckv.kv.latent import latent_widths


@dataclass(frozen=True)
class KVShape:
    """What a model's KV cache is made of.

    Attributes:
        layers: decoder layers N whose KV grows with the text: those that a policy places.
        heads: KV heads H.
        dim: head dim D.
        dtype: compute dtype.
        kinds: of every decoder layer, where not all grow and do nothing else; see `every`.
        latent: a layer stores a latent, as one head of half its width (`mspeckv.kv.latent`).
    """

    layers: int
    heads: int
    dim: int
    dtype: torch.dtype
    kinds: tuple[Kind, ...] = ()
    latent: bool = False

    @classmethod
    def of(cls, config: PretrainedConfig, dtype: torch.dtype, ranks: int = 1) -> KVShape:
        """The KV shape of a transformers configuration; its heads are shared out over ``ranks``."""
        text = config.get_text_config()
        heads = text.num_attention_heads
        dim = getattr(text, "head_dim", None) or text.hidden_size // heads
        kv_heads = getattr(text, "num_key_value_heads", None) or heads
        kinds = kinds_of(text)
        grown = sum(kind.grows for kind in kinds)
        own = kinds if any(kind != Kind() for kind in kinds) else ()
        widths = latent_widths(text)
        if widths is not None:
            return cls(grown, 1, sum(widths) // 2, dtype, own, latent=True)
        return cls(grown, kv_heads // ranks, dim, dtype, own)

    @property
    def every(self) -> tuple[Kind, ...]:
        """What each decoder layer keeps."""
        return self.kinds or (Kind(),) * self.layers

    @property
    def depth(self) -> int:
        """Decoder layers."""
        return len(self.every)

    @property
    def growing(self) -> list[int]:
        """Indices of the decoder layers whose KV grows."""
        return [index for index, kind in enumerate(self.every) if kind.grows]

    @property
    def states(self) -> int:
        """Layers with a recurrent state."""
        return sum(kind.states > 0 for kind in self.kinds)

    @property
    def windows(self) -> list[Sight]:
        """How far those layers see that see but a part of the text."""
        return [kind.sight for kind in self.kinds if kind.sight is not None and kind.sight.tokens]

    @property
    def token_bytes(self) -> int:
        """Unquantized K and V bytes of one token in one layer."""
        return 2 * self.heads * self.dim * self.dtype.itemsize
