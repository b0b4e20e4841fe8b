"""A Llama layer with packed weights in two calls: what lies before attention, and what lies after.

Saves 25 to 34 % of a plain step and 20 to 24 % of guessing on two Xeon cores with AVX-512, most
after short prompts (benchmarks/results/whole-layers-2-cores.txt).

A layer of a small model is some thirty operators, most of which take longer to start than to run.
In a pass of few tokens C++ does what lies before attention (norm, three products, rotation) and
what lies after it (product, norm, three products) in a call each; the cache and attention are the
pass's own. Products are those of `mspeckv.accelerate.packed_weights`, bit by bit; norms,
rotation and gate are torch's to rounding. A row's bits do not depend on the rows beside it.

A layer that somebody has hooked, exchanged or put into training does what it did.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MethodType
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch._C._profiler import _RecordFunctionFast
from torch.nn.modules import module as everywhere
from transformers import PreTrainedModel
from transformers.activations import SiLUActivation
from transformers.models.llama import modeling_llama as llama

from mspeckv.accelerate.native import pointer
from mspeckv.accelerate.packed_weights import MOST_ROWS, PRODUCT, Reading, Task, kernel
from mspeckv.accelerate.products import forward as multiply
from mspeckv.context import Pass, Products, current
from mspeckv.decoding.hooks import Hooks
from mspeckv.models.packed import PANEL, Packed
from mspeckv.settings import refuse

_NORMS = ("input_layernorm", "post_attention_layernorm")
_KINDS = {
    "self_attn": llama.LlamaAttention, "mlp": llama.LlamaMLP,
    **dict.fromkeys(_NORMS, llama.LlamaRMSNorm),
}  # fmt: skip
_SETS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
"""Linear layers that are multiplied together, in the order of `Layer`'s tasks."""
_TAKEN = (
    "attention_mask", "cache", "past_key_values", "position_embeddings", "position_ids", "use_cache"
)  # fmt: skip
"""What a layer is told that is not attention's business."""

_CAPTURING = "transformers.utils.output_capturing"
"""Whose hooks stay on layers once outputs were asked for, and do nothing in a pass of ours."""

_known: WeakKeyDictionary[torch.nn.Module, WholeLayer] = WeakKeyDictionary()


def plug(hooks: Hooks, device: torch.device) -> Hooks:
    """Compute packed layers on a CPU so, where the kernel can be had."""
    if device.type != "cpu":
        return hooks

    def products(model: PreTrainedModel) -> Products:
        found = hooks.products(model)
        layers = [one for one in model.modules() if type(one) is llama.LlamaDecoderLayer]
        whole = {layer: known for layer in layers if (known := _whole_of(layer)) is not None}
        return {**found, **cast("Products", whole)}

    return replace(hooks, products=products)


def _whole_of(layer: torch.nn.Module) -> WholeLayer | None:
    """What computes ``layer`` in passes that bring it along; None where C++ cannot."""
    if not _computes_by(forward, layer):
        return None
    known = _known.get(layer)
    if known is None or not known.holds():
        if not WholeLayer.can_be(layer) or kernel() is None:
            return None
        known = _known[layer] = WholeLayer(layer)
        layer.forward = MethodType(forward, layer)
    return known


def _computes_by(ours: Callable[..., Any], module: torch.nn.Module) -> bool:
    """Whether ``module`` has its class's forward or ``ours``, and nobody else's."""
    own = vars(module).get("forward")
    return own is None or getattr(own, "__func__", None) in (ours, type(module).forward)


# By this name a pickle of such a layer finds its class's own method.
def forward(self: torch.nn.Module, hidden_states: torch.Tensor, *given: Any, **named: Any) -> Any:
    """Hidden states ``[1, n, width]`` after the layer, as a whole in a pass that says so."""
    if not given and not torch.compiler.is_compiling():
        now = current()
        whole = now.products.get(self) if now is not None else None
        if isinstance(whole, WholeLayer) and whole.answers(now, hidden_states, named):
            return whole.compute(now, hidden_states, named)
    return type(self).forward(self, hidden_states, *given, **named)


class Layer(ctypes.Structure):
    """``Layer`` of the source."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "threads", "width", "heads", "kv_heads")),
        *((name, ctypes.c_int64) for name in ("size", "hidden_has", "cos_has", "sin_has")),
        *((name, ctypes.c_int64) for name in ("attended_has", "out_has")),
        ("norm_has", ctypes.c_int64 * 2),
        ("eps", ctypes.c_double * 2),
        *((name, ctypes.c_void_p) for name in ("hidden", "cos", "sin", "attended", "out")),
        ("norm", ctypes.c_void_p * 2),
        *((name, Task) for name in ("query_key_value", "output", "gate_up", "down")),
    )


class WholeLayer:
    """A decoder layer's parts as C++ takes them, as long as they are what they were.

    Args:
        layer: one that `can_be`; it is not kept alive.
    """

    def __init__(self, layer: Any) -> None:
        sets = [[_linear(layer, name) for name in names] for names in _SETS]
        norms = layer.input_layernorm, layer.post_attention_layernorm
        self.attention: Any = layer.self_attn
        self.width, self.size = sets[0][0].in_features, int(self.attention.head_dim)
        self.heads, self.kv_heads = (one.out_features // self.size for one in sets[0][:2])
        self.linears = frozenset(one for each in sets for one in each)
        self._readings = [Reading([one.weight for one in each], ()) for each in sets]
        self._weights = [weight for each in self._readings for weight in each.weights]
        self._norms = [one.weight for one in norms]
        self._eps = [one.variance_epsilon for one in norms]
        inner = [module for module in layer.modules() if module is not layer]
        # where they hold what they compute by, and under which names
        parts = [(each._modules, name) for each in layer.modules() for name in each._modules]
        for module in inner:
            parts += [(module._parameters, name) for name in ("weight", "bias")]
            parts.append((vars(module), "forward"))
        self._was = [(held, name, held.get(name)) for held, name in parts]
        self._hooks = [
            everywhere._global_forward_hooks, everywhere._global_forward_pre_hooks,
            *(one._forward_hooks for one in inner), *(one._forward_pre_hooks for one in inner),
        ]  # fmt: skip
        self._at: list[int] = []

    @staticmethod
    def can_be(layer: Any) -> bool:
        """Whether ``layer`` has Llama's own parts, packed in whole panels and without biases."""
        if {name: type(part) for name, part in layer._modules.items()} != _KINDS:
            return False
        halves = any(layer._modules[name].weight.dtype != torch.float32 for name in _NORMS)
        if halves or type(layer.mlp.act_fn) is not SiLUActivation:
            return False
        linears = [_linear(layer, name) for names in _SETS for name in names]
        return all(
            type(one) is torch.nn.Linear
            and isinstance(one.weight, Packed)
            and one.bias is None
            and one.out_features % PANEL == 0
            for one in linears
        ) and all(_computes_by(multiply, one) for one in layer.modules() if one is not layer)

    def holds(self) -> bool:
        """Whether nothing was exchanged, hooked or put into training since."""
        for held, name, was in self._was:
            if held.get(name) is not was:
                return False
        hooked = [hook for hooks in self._hooks if hooks for hook in hooks.values()]
        strange = [hook for hook in hooked if getattr(hook, "__module__", None) != _CAPTURING]
        return not strange and not self.attention.training

    def answers(self, now: Pass, hidden: torch.Tensor, named: dict[str, Any]) -> bool:
        """Whether a pass's call of the layer is one that C++ computes."""
        turns = named.get("position_embeddings")
        return (
            turns is not None
            and named.get("attention_mask") is None
            and _cache_of(named) is not None
            and hidden.dtype == turns[0].dtype == torch.float32
            and hidden.is_cpu
            and not hidden.requires_grad
            and hidden.shape[0] == turns[0].shape[0] == 1
            and hidden.shape[1] <= MOST_ROWS
            and now.products.keys().isdisjoint(self.linears)
            and self.holds()
        )

    def compute(self, now: Pass, hidden: torch.Tensor, named: dict[str, Any]) -> torch.Tensor:
        """Hidden states ``[1, n, width]`` after the layer; arguments as `answers` wants them."""
        rows, heads, kv_heads, size = hidden.shape[1], self.heads, self.kv_heads, self.size
        hidden, task = hidden.contiguous(), self._task()
        task.rows, task.threads = rows, torch.get_num_threads()
        _tell(task, "hidden", hidden, (1, rows, self.width))
        for name, turn in zip(("cos", "sin"), named["position_embeddings"], strict=True):
            _tell(task, name, turn, (1, rows, size))
        made = hidden.new_empty(rows * (heads + 2 * kv_heads) * size)
        _call("before", task, made, hidden, self._weights[:3])
        parts = made.split([rows * count * size for count in (heads, kv_heads, kv_heads)])
        query, key, value = (part.view(1, rows, -1, size).transpose(1, 2) for part in parts)
        key, value = _cache_of(named).update(key, value, self.attention.layer_idx)
        others = {name: what for name, what in named.items() if name not in _TAKEN}
        scale = self.attention.scaling
        found, _ = now.attend(self.attention, query, key, value, None, scaling=scale, **others)
        found = found.reshape(1, rows, heads * size).contiguous()
        _tell(task, "attended", found, (1, rows, heads * size))
        out = hidden.new_empty(1, rows, self.width)
        _call("after", task, out, found, self._weights[3:])
        return out

    def _task(self) -> Layer:
        """Where everything lies now that is the same in every pass."""
        at = [weight.codes.data_ptr() for weight in self._weights]
        at += [norm.data_ptr() for norm in self._norms]
        if at != self._at:
            tasks = [reading.task() for reading in self._readings]
            task = Layer(width=self.width, heads=self.heads, kv_heads=self.kv_heads, size=self.size)
            task.query_key_value, task.output, task.gate_up, task.down = tasks
            for place, (norm, eps) in enumerate(zip(self._norms, self._eps, strict=True)):
                where = pointer("norm", norm, torch.float32, (self.width,))
                task.norm[place], task.norm_has[place] = where
                task.eps[place] = eps
            self._noted, self._at = bytes(task), at
        return Layer.from_buffer_copy(self._noted)


def _linear(layer: Any, name: str) -> Any:
    """A linear layer of the attention or the MLP, by its name."""
    return getattr(layer.self_attn, name, None) or getattr(layer.mlp, name)


def _cache_of(named: dict[str, Any]) -> Any:
    """The cache, by either of the names that transformers has had for it."""
    return named.get("cache", named.get("past_key_values"))


def _tell(task: Layer, name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Where a tensor of floats lies, and how much of it there is."""
    address, has = pointer(name, tensor, torch.float32, shape)
    setattr(task, name, address)
    setattr(task, f"{name}_has", has)


def _call(
    half: str, task: Layer, out: torch.Tensor, rows: torch.Tensor, weights: Sequence[Packed]
) -> None:
    """Have C++ fill ``out``; a profiler sees it as a product of ``rows`` with each weight."""
    task.out, task.out_has = out.data_ptr(), out.numel()
    with _RecordFunctionFast(PRODUCT, [rows, *weights]):
        failed = getattr(kernel(), half)(ctypes.byref(task))
    if failed:
        raise refuse("layer", [list(one.shape) for one in weights], "its parts must fit")
