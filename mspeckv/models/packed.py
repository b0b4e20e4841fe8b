"""Weights in 4 or 8 bits: a tensor that is read as it is packed, and floats to whoever asks.

Of a linear layer, each group of 32 inputs of an output has a step and a low value in half
precision; a code c stands for ``low + step * c``. Codes and their scales are GGUF's own: four bits
as its Q4_1 (least to greatest value), eight as its Q8_0 (symmetric), each scale five or nine bits a
weight in all. Rounding to nearest gives back a file of those kinds bit by bit, so the default
target loses nothing; what was never in so few bits loses what `mspeckv.models.packed.pack` says.

The layout is made for lanes (`mspeckv.accelerate.packed_weights`): outputs lie in panels of 32; of
each group a panel has its 32-bit words of codes, ``[bits, 32]``, the inputs of one output in a
word, then 32 steps and 32 lows. Here they are read by torch alone, exactly but slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn.functional import pad
from torch.utils._pytree import tree_map_only
from transformers import PreTrainedModel

from mspeckv.settings import refuse

PANEL, GROUP = 32, 32
"""Outputs that lie together, inputs that share scales."""
OUTER_BITS = 8
"""Of embeddings and heads, as llama.cpp has them; and of a draft's layers, which are few."""
BITS: Mapping[str, int | None] = {"float": None, "int8": 8, "int4": 4}
"""Widths of a model's layers, by what ``weights`` may be."""
AUTO = "auto"
"""What it may be besides: the word is the loader's to choose (`mspeckv.load_pair`)."""


def packed_bytes(bits: int) -> float:
    """What a weight takes in codes of ``bits``, its share of a group's two scales included."""
    return bits / 8 + 2 * torch.float16.itemsize / GROUP


_ATEN = torch.ops.aten


class Packed(torch.Tensor):
    """Weights ``[outputs, inputs]`` that look like float32 and cannot be written to.

    torch sees a float tensor: what it does with it, it does with `floats`. An embedding reads the
    rows that it wants.

    Args:
        codes: uint8 ``[panels, groups, bytes]``, as laid out above.
        outputs: how many of the panels' outputs there are.

    Attributes:
        bits: of a code.
    """

    codes: torch.Tensor
    bits: int
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, codes: torch.Tensor, outputs: int) -> Packed:
        """A tensor without memory of its own."""
        shape = outputs, codes.shape[1] * GROUP
        new: Packed = torch.Tensor._make_wrapper_subclass(
            cls, shape, dtype=torch.float32, device=codes.device
        )
        new.codes, new.bits = codes, codes.shape[2] // (4 * PANEL) - 1
        return new

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Packed({list(self.shape)}, {self.bits} bits)"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Packed, (self.codes, self.shape[0])

    def __setitem__(self, place: Any, value: Any) -> None:
        raise _only_read(self)

    def storage(self) -> Any:
        """Refused: what saves a model's floats asks for it."""
        raise _only_read(self)

    def to_local(self) -> torch.Tensor:
        """What memory holds: `mspeckv.models.pair.own_part` asks for it by this name."""
        return self.codes

    def floats(self) -> torch.Tensor:
        """The weights ``[outputs, inputs]``, as the dequantized file has them."""
        return self.rows(torch.arange(self.shape[0], device=self.codes.device))

    def rows(self, outputs: torch.Tensor) -> torch.Tensor:
        """Weights of some outputs ``[...]``: floats ``[..., inputs]``."""
        words, step, low = self._parts(outputs.reshape(-1))
        shifts = torch.arange(0, 32, self.bits, dtype=torch.int32, device=words.device)
        codes = (words[..., None] >> shifts) & ((1 << self.bits) - 1)
        floats = codes.flatten(2).float() * step[..., None].float() + low[..., None].float()
        return floats.reshape(*outputs.shape, self.shape[1])

    def take(self, outputs: torch.Tensor) -> Packed:
        """Some outputs ``[n]``, packed as they are."""
        return Packed(_panels(*self._parts(outputs)), len(outputs))

    def _parts(self, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Words ``[n, groups, bits]``, steps and lows ``[n, groups]`` of outputs ``[n]``."""
        panel, lane, size = outputs // PANEL, outputs % PANEL, PANEL * self.bits
        words = self.codes.view(torch.int32)[..., :size].unflatten(-1, (self.bits, PANEL))
        scales = self.codes.view(torch.float16)[..., 2 * size :].unflatten(-1, (2, PANEL))
        return words[panel, :, :, lane], *scales[panel, :, :, lane].unbind(-1)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if function in _SAME and isinstance(args[0], Packed):
            return Packed(_SAME[function](args[0].codes), args[0].shape[0])
        if function is _ATEN.embedding.default and isinstance(args[0], Packed):
            return args[0].rows(args[1])
        for place, part in enumerate(function._schema.arguments):
            value = args[place] if place < len(args) else given.get(part.name)
            if isinstance(value, Packed) and (alias := part.alias_info) and alias.is_write:
                raise _only_read(value)
        floats, named = tree_map_only(Packed, Packed.floats, (args, given))
        return function(*floats, **named)


_SAME: dict[Any, Callable[[torch.Tensor], torch.Tensor]] = {
    _ATEN.detach.default: lambda codes: codes,
    _ATEN.alias.default: lambda codes: codes,
    _ATEN.clone.default: torch.clone,
}
"""What gives packed weights again, by what it does to their bytes."""


def _only_read(weight: Packed) -> ValueError:
    return refuse("weights", repr(weight), 'packed ones are only read: load with weights="float"')


def _panels(words: torch.Tensor, step: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """Words ``[n, groups, bits]`` and scales ``[n, groups]`` as they lie in memory."""
    parts = [words, *(scale[..., None].view(torch.int16) for scale in (step, low))]
    missing = -len(words) % PANEL
    laid = [
        pad(part, (0, 0, 0, 0, 0, missing)).unflatten(0, (-1, PANEL)).permute(0, 2, 3, 1)
        for part in parts
    ]
    return torch.cat([part.contiguous().view(torch.uint8).flatten(2) for part in laid], -1)


def pack(weight: torch.Tensor, bits: int) -> Packed:
    """Round ``weight`` ``[outputs, inputs]`` to nearest, in groups of 32 inputs.

    On weights that were never in so few bits this moves what a model says (``docs/models.md``).
    """
    groups = weight.detach().float().unflatten(1, (-1, GROUP))
    least, most = groups.aminmax(dim=-1)
    top = (1 << bits) - 1
    if bits == OUTER_BITS:
        step = (torch.maximum(most, -least) / (top // 2)).half()
        low = step * -(top // 2 + 1)
    else:
        step, low = ((most - least) / top).half(), least.half()
    codes = (groups - low[..., None].float()) / step[..., None].float()
    whole = codes.nan_to_num_(0).round_().clamp_(0, top).int().unflatten(-1, (bits, -1))
    # each code has bits of its own: a sum puts them side by side
    words = sum(part << place * bits for place, part in enumerate(whole.unbind(-1)))
    assert isinstance(words, torch.Tensor)
    return Packed(_panels(words, step, low), len(weight))


def pack_model(model: PreTrainedModel, bits: int) -> None:
    """Pack a model's linear layers in ``bits``, and its embedding and head in `OUTER_BITS`.

    What is packed already, or has no whole groups, stays; weights that are one stay one.
    """
    outer = model.get_input_embeddings(), model.get_output_embeddings()
    done: dict[torch.Tensor, torch.nn.Parameter] = {}
    for module in model.modules():
        if type(module) is not torch.nn.Linear and not isinstance(module, torch.nn.Embedding):
            continue
        weight = module.weight
        if not isinstance(weight, Packed) and weight.shape[1] % GROUP == 0:
            if weight not in done:
                made = pack(weight, OUTER_BITS if module in outer else bits)
                done[weight] = torch.nn.Parameter(made, requires_grad=False)
            module.weight = done[weight]


def form_of(model: torch.nn.Module) -> str:
    """How a model's layers are held: a word of `BITS`."""
    widths = [weight.bits for weight in model.parameters() if isinstance(weight, Packed)]
    return next(form for form, bits in BITS.items() if bits == min(widths, default=None))
