"""Where a plain step's time goes on a CPU, and how fast it reads what it must."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.report import median_ms
from benchmarks.speculation import shares
from benchmarks.workbench import Workbench
from mspeckv import Pair
from mspeckv.api import engine_of
from mspeckv.context import Pass, carrying
from mspeckv.decoding.attention import attend
from mspeckv.models.packed import BITS, GROUP, form_of, pack_model
from mspeckv.models.pair import own_part

_REPEATS = 9
_HOLLOW_PROMPT = 64


@dataclass(frozen=True)
class Step:
    """One token by plain decoding, in milliseconds and bytes.

    Attributes:
        ms: the whole step.
        products_ms: every linear layer's product, one after the other, with nothing in between.
        attention_ms: attention's kernels, as the profiler sees them; zero if not measured.
        weight_bytes, kv_bytes: what it reads.
        hollow_ms: a step of a model with as many layers and next to no width, after a short prompt:
            calls from Python and of kernels that have nothing to do.
        layers_gbps: 1e9 bytes a second that the layers' products read, one layer after the other.
        cached_gbps: likewise, but the first layer's again and again, which stays in the cache: how
            fast products are when they never wait for memory.
    """

    ms: float
    products_ms: float
    attention_ms: float
    weight_bytes: float
    kv_bytes: float
    hollow_ms: float = 0
    layers_gbps: float = 0
    cached_gbps: float = 0

    def gbps(self) -> float:
        """Bytes read per second of the step, in 1e9."""
        return (self.weight_bytes + self.kv_bytes) / self.ms / 1e6


@torch.inference_mode()
def step_of(bench: Workbench) -> Step:
    """Our plain step after the bench's prompt, all KV on-chip in floats."""
    pair, prompt = bench.pair, bench.prompt
    ms = _read_ms(bench)
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        _read(bench)
    products = _products_ms(pair, linear_layers(pair.target))
    layers = pair.target.model.layers
    first = linear_layers(layers[0])
    layers_gbps, cached_gbps = (
        _weight_bytes(chosen) / _products_ms(pair, chosen) / 1e6
        for chosen in (linear_layers(layers), first * len(layers))
    )
    kv = pair.layers * len(prompt) * pair.kv_shape.token_bytes
    with Workbench(hollow(pair), [1] * _HOLLOW_PROMPT, 1) as shrunk:
        hollow_ms = _read_ms(shrunk)
    return Step(
        ms, products, shares(trace)[1], weight_bytes(pair), kv, hollow_ms, layers_gbps, cached_gbps
    )


def weight_bytes(pair: Pair) -> int:
    """Bytes of the target's weights in memory; a head that is the embedding counts once."""
    parts = {own_part(weight) for weight in pair.target.parameters()}
    return sum({part.data_ptr(): part.nbytes for part in parts}.values())


def prompt_gflop(pair: Pair, tokens: int) -> float:
    """1e9 operations that a prompt takes at least: the layers' products, and causal attention."""
    text, layers = pair.target.config.get_text_config(), pair.target.model.layers
    products = sum(layer.in_features * layer.out_features for layer in linear_layers(layers))
    attended = pair.layers * text.num_attention_heads * text.head_dim * tokens
    return float(tokens * (2 * products + 2 * attended) / 1e9)


def hollow(pair: Pair) -> Pair:
    """A random pair with as many layers as ``pair``'s target, held alike, of the least width."""
    shape = LlamaConfig(
        vocab_size=GROUP, hidden_size=GROUP, intermediate_size=GROUP, head_dim=GROUP,
        num_hidden_layers=pair.layers, num_attention_heads=1, num_key_value_heads=1,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    target = LlamaForCausalLM(shape).eval()
    bits = BITS[form_of(pair.target)]
    if bits is not None:
        pack_model(target, bits)
    return Pair.of(target, target)


def linear_layers(part: torch.nn.Module) -> list[torch.nn.Linear]:
    """The linear layers of a model or of a part of it, in their order."""
    return [one for one in part.modules() if type(one) is torch.nn.Linear]


def _read_ms(bench: Workbench) -> float:
    return median_ms(lambda: _read(bench), _REPEATS)


def _read(bench: Workbench) -> None:
    bench.root.top.read(bench.prompt, 1)
    bench.root.top.settle(len(bench.prompt) - 1)


def _weight_bytes(layers: Iterable[torch.nn.Linear]) -> int:
    return sum(own_part(layer.weight).nbytes for layer in layers)


def _products_ms(pair: Pair, layers: list[torch.nn.Linear]) -> float:
    """The products of one row with each of ``layers``, as a pass of ``pair``'s makes them."""
    given = engine_of(pair).hooks.products(pair.target)
    rows = {layer.in_features: torch.ones(1, 1, layer.in_features) for layer in layers}

    def multiply() -> None:
        for layer in layers:
            layer(rows[layer.in_features])

    with carrying(Pass(attend, products=given)):
        return median_ms(multiply, _REPEATS)
