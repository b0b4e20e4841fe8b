"""Latent attention (MLA, DeepSeek-V2, arXiv 2405.04434): a layer caches less than it attends over.

What such a layer caches of a token has no heads: a latent, and a rotary part that all heads share.
Only then does the model's own code expand every token to the keys and values of its heads. The two
parts differ in width, so a layer stores them side by side, cut in the middle: one half as its key,
the other as its value. Whatever packs, moves or chooses tokens then works as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PretrainedConfig

from mspeckv.context import KV, Around, Shown


def latent_widths(text: PretrainedConfig) -> tuple[int, int] | None:
    """Numbers of a token's latent and of its rotary part; None where keys and values are cached."""
    latent = getattr(text, "kv_lora_rank", None)
    return (int(latent), int(text.qk_rope_head_dim)) if latent else None


def halves(latent: torch.Tensor, rotary: torch.Tensor) -> KV:
    """What a layer stores of both parts ``[1, 1, n, *]``."""
    first, second = torch.cat([latent, rotary], -1).chunk(2, -1)
    return first, second


@dataclass
class Latents(Around):
    """What a layer shows that stores latents.

    Attributes:
        inner: the halves.
        widths: of latent and rotary part.
        keys: of all heads ``[1, Hq, S, D]``, as the model expanded them: queries compare with
            these. None before attention.
    """

    inner: Shown
    widths: tuple[int, int]
    keys: torch.Tensor | None = None

    def parts(self) -> KV:
        """Latents and rotary parts, for the model to expand."""
        latent, rotary = torch.cat(self.inner.whole(), -1).split(self.widths, -1)
        return latent, rotary

    def newest(self, count: int) -> KV:
        """The halves of the last ``count`` tokens."""
        return self.inner.newest(count)

    def whole(self) -> KV:
        """The halves of every token."""
        return self.inner.whole()
