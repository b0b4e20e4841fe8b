"""A document's keys and values to look at, and what quantizing them loses.

The same codec that a run stores its KV with (`mspeckv.kv.quantize`) packs a tensor along either
axis, so that the choice the engine makes, keys per channel and values per token, can be compared
with the others.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from transformers import DynamicCache

from mspeckv.accelerate.nibble import NibblePlanes
from mspeckv.kv.codec import codec_of
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.shape import KVShape
from mspeckv.kv.sizes import packed_blocks
from mspeckv.models.checks import cache_argument
from mspeckv.models.pair import Pair
from mspeckv.models.text import Prompt
from mspeckv.settings import (
    KVPolicy,
    Width,
    check_choice,
    check_count,
    check_flag,
    check_kind,
    refuse,
)
from mspeckv_study.probes.next_token import encode_text, read_text

Axis = Literal["channel", "token"]
_ANY_BLOCK = 8


@dataclass(frozen=True)
class Packing:
    """How one tensor is quantized.

    Attributes:
        bits: 8, 4, 3, 2 or ``"full"``.
        axis: ``"channel"``: one scale for ``group`` tokens of one channel, as the engine does
            with keys; ``"token"``: one scale for ``group`` channels of one token, as with values
            (KIVI, arXiv 2402.02750, section 3).
        group: numbers that share a scale.
        upper: of int8 codes, the upper four bits alone (see `mspeckv.accelerate.nibble`).

    Raises:
        ValueError: a field is out of range, or ``upper`` without 8 bits.
    """

    bits: Width = 8
    axis: Axis = "channel"
    group: int = 64
    upper: bool = False

    def __post_init__(self) -> None:
        KVPolicy(bits=self.bits, group=self.group)
        check_choice("axis", self.axis, get_args(Axis))
        check_flag("upper", self.upper)
        if self.upper and self.bits != 8:
            raise refuse("upper", self.upper, "its plane is one of int8's two: use bits=8")


@dataclass(frozen=True)
class Agreement:
    """How far the target over packed KV agrees with itself over floats.

    Attributes:
        acceptance: mean over the asked places of ``sum(min(p, q))``: one less the total variation.
        error: standard error of that mean.
        bytes: of a layer's packed blocks and float tail, times the layers (counted).
    """

    acceptance: float
    error: float
    bytes: int


@dataclass(frozen=True)
class Packed:
    """A tensor after packing and unpacking.

    Attributes:
        tensor: ``[H, T, D]``; tokens after the last whole block are as they were.
        tokens: how many were packed.
        bytes: of their codes and scales (counted).
    """

    tensor: torch.Tensor
    tokens: int
    bytes: int


def pack(tensor: torch.Tensor, packing: Packing) -> Packed:
    """Quantize ``[H, T, D]`` and restore it.

    Raises:
        ValueError: fewer tokens than make one block.
    """
    heads, length, dim = tensor.shape
    if packing.bits == "full":
        return Packed(tensor.clone(), length, tensor.numel() * tensor.element_size())
    block = packing.group if packing.axis == "channel" else _ANY_BLOCK
    tokens = length // block * block
    if not tokens:
        raise refuse("group", packing.group, f"there are {length} tokens: use at most that many")
    policy = KVPolicy(bits=packing.bits, block=block, group=packing.group, nibble=packing.upper)
    codec = BlockCodec(KVShape(1, heads, dim, tensor.dtype), policy)
    whole = tensor[None, :, :tokens]
    records = codec.encode(whole, whole)
    restored = torch.empty_like(whole), torch.empty_like(whole)
    if packing.upper:
        planes = NibblePlanes(codec)
        records, _ = planes.split(records)
        codec = planes.upper
        planes.coarse(records).decode(restored)
    else:
        codec.decode(records, *restored)
    place, name = (0, "k") if packing.axis == "channel" else (1, "v")
    size = sum(codec.part(part, records).nbytes for part in (name, f"{name}_step", f"{name}_low"))
    out = tensor.clone()
    out[:, :tokens] = restored[place][0]
    return Packed(out, tokens, size)


class KVProbe:
    """The KV of a document, read once.

    Args:
        pair: its target reads.
        asked: tokens at the document's end that `acceptance` asks the target about; the KV is
            that of the tokens before them.

    Attributes:
        tokens: ids whose KV is held.
        keys: ``[N, H, T, D]`` of the N layers that grow, with positions rotated in, as caches hold
            them. What other layers keep, windows and states, is never packed.
        values: ``[N, H, T, D]``.

    Raises:
        ValueError: the prompt is too short or too long, or the target keeps latents.
    """

    def __init__(self, pair: Pair, prompt: Prompt, asked: int = 32) -> None:
        check_count("asked", asked, 1, 1024)
        check_kind("pair", pair, Pair)
        if pair.kv_shape.latent:
            raise refuse("pair", pair.target_id, "it keeps latents: use one of keys and values")
        ids = encode_text(pair, prompt, asked + _ANY_BLOCK)
        self._target = pair.target
        self.tokens, self._asked = ids[:-asked], ids[-asked:]
        self._growing = pair.kv_shape.growing
        self._cache = DynamicCache(config=pair.target.config)
        read_text(pair.target, self.tokens, 1, **{cache_argument(pair.target): self._cache})
        layers = [self._cache.layers[index] for index in self._growing]
        self.keys = torch.stack([layer.keys[0] for layer in layers])
        self.values = torch.stack([layer.values[0] for layer in layers])
        self._unpacked = self._ask(self.keys, self.values)

    def acceptance(self, keys: Packing, values: Packing) -> float:
        """How far the target agrees with itself when all layers' KV is packed.

        The mean over the asked tokens of ``sum(min(p, q))``, p being the next token's
        distribution over the KV as it is, q over the packed KV (both at temperature 1): the chance
        that a guess drawn from q is accepted (Leviathan et al., arXiv 2211.17192, theorem 3.5).
        """
        packed = self._ask(
            torch.stack([pack(layer, keys).tensor for layer in self.keys]),
            torch.stack([pack(layer, values).tensor for layer in self.values]),
        )
        return float(torch.minimum(self._unpacked, packed).sum(-1).mean())

    def over(self, policy: KVPolicy) -> Agreement:
        """The same where a run's codec packs the KV (`KVPolicy.codec`), and leaves it a tail.

        Raises:
            ValueError: the codec does not go with the policy, or no block is full.
        """
        layers, heads, length, dim = self.keys.shape
        shape = KVShape(layers, heads, dim, self.keys.dtype)
        codec = codec_of(shape, policy)
        packed = packed_blocks(policy, length) * codec.block
        if not packed:
            raise refuse("block", policy.block, f"there are {length} tokens: use smaller blocks")
        restored = [torch.empty_like(self.keys), torch.empty_like(self.values)]
        for layer in range(layers):
            floats = [codec.turn(of[layer, None].clone()) for of in (self.keys, self.values)]
            records = codec.encode(*(part[:, :, :packed] for part in floats))
            codec.decode(records, *(part[:, :, :packed] for part in floats))
            for part, out in zip(floats, restored, strict=True):
                out[layer] = codec.turn_back(part)[0]
        size = records.numel() + (length - packed) * shape.token_bytes
        shares = torch.minimum(self._unpacked, self._ask(*restored)).sum(-1)
        error = float(shares.std()) / len(shares) ** 0.5
        return Agreement(float(shares.mean()), error, layers * size)

    def _ask(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Distributions ``[asked, V]`` of the tokens after each of the asked ones."""
        cache = deepcopy(self._cache)
        for index, key, value in zip(self._growing, keys, values, strict=True):
            layer = cache.layers[index]
            layer.keys, layer.values = key[None], value[None]
        given = {cache_argument(self._target): cache}
        logits = read_text(self._target, self._asked, len(self._asked), **given)
        return logits.float().softmax(-1)
