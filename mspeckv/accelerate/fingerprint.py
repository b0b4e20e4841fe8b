"""Whether a model is still what it was, by whatever way it may have changed.

A part of `weight_copies` and `kept_prompts`: what makes them safe; saves nothing by itself.

torch counts writes to a tensor, but not those through ``.data``, by which adapters are commonly
merged. So what is made of a model, and used later, is kept with fingerprints of two things: the
bits of its weights, and all else that its passes depend on.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch

from mspeckv.models.pair import own_part

_WORDS = 1 << 16
"""64-bit words that are summed up to one."""


def digest(part: torch.Tensor) -> bytes:
    """A fingerprint of a tensor's bits: 8 bytes for every half MiB.

    Sums of 64-bit words times odd numbers, modulo 2^64 (multilinear hashing: Lemire, Kaser,
    arXiv 1202.4961): one changed word always shows, several hide with a chance of some 2^-63. It
    takes as long as reading the tensor: 50 ms for the default target on one core.
    """
    bits = part.detach().contiguous().reshape(-1).view(torch.uint8)
    count = bits.numel() // 8
    rest = bits[count * 8 :].cpu().numpy().tobytes()
    words, factors = bits[: count * 8].view(torch.int64), _factors(part.device)
    whole = count // _WORDS * _WORDS
    sums = [_dot(words[:whole].view(-1, _WORDS), factors)]
    sums.append(_dot(words[None, whole:], factors[: count - whole]))
    return torch.cat(sums).cpu().numpy().tobytes() + rest


def _dot(rows: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """``[n, k] @ [k]`` of 64-bit words, modulo 2^64."""
    if rows.is_cuda:
        return (rows * factors).sum(-1)
    # NumPy's product of whole numbers writes no copy, torch's does
    return torch.from_numpy(rows.numpy() @ factors.numpy())


@cache
def _factors(device: torch.device) -> torch.Tensor:
    """Odd numbers ``[_WORDS]``: products with different words differ."""
    numbers = np.random.default_rng(0).integers(-(2**62), 2**62, _WORDS) * 2 + 1
    return torch.from_numpy(numbers).to(device)


def weights(model: torch.nn.Module, read: Mapping[torch.Tensor, bytes]) -> bytes:
    """The bits of all that ``model`` holds; of tensors that were ``read`` already, as told."""
    parts = (*model.parameters(), *model.buffers())
    return b"".join(read[part] if part in read else digest(own_part(part)) for part in parts)


def structure(model: torch.nn.Module) -> int:
    """Everything that a pass of ``model`` depends on beside the bits of its weights.

    Modules, where their weights lie, hooks, and plain settings, such as which adapter is active.
    """
    return hash(tuple(_told(vars(module)) for module in model.modules()))


def _told(value: object) -> object:
    """``value`` as something that compares equal while it is the same."""
    if isinstance(value, torch.Tensor):
        return own_part(value).data_ptr(), value.dtype, tuple(value.shape)
    if isinstance(value, dict):
        return tuple((key, _told(part)) for key, part in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return tuple(_told(part) for part in value)
    return value if isinstance(value, (bool, int, float, str)) else id(value)
