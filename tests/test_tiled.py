"""Ordered copies of weights: the same product, only inside, only while they are current."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import psutil
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mspeckv import Pair
from mspeckv.accelerate.ordered_weights import (
    LEAST_GAIN,
    PRODUCT,
    SWITCH,
    TiledWeight,
    can_tile,
    gain,
)
from mspeckv.accelerate.short_head import ShortHead
from mspeckv.accelerate.siblings import siblings, together
from mspeckv.accelerate.weight_copies import copy_bytes, tile
from mspeckv.api import engine_of
from mspeckv.context import Pass, carrying
from mspeckv.decoding.attention import attend
from mspeckv_study.profiling.session import operations
from tests.conftest import build_llama, build_qwen2

IDS = torch.arange(7)[None]


def inside(model: Any) -> AbstractContextManager[Pass]:
    """A pass of ours, by the copies that a run begins with."""
    return carrying(Pass(attend, products=tile(model)))


pytestmark = pytest.mark.skipif(
    not can_tile(torch.empty(2, 2)), reason="this build of torch has no such kernel"
)


@torch.no_grad()
def _logits(model: torch.nn.Module) -> tuple[torch.Tensor, set[str]]:
    """What a model says of `IDS`, and the products by which."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        logits: torch.Tensor = model(input_ids=IDS).logits
    return logits, {event.key for event in seen.key_averages()}


@torch.no_grad()
def test_the_product_is_the_models_own_and_only_inside() -> None:
    model = build_llama()
    own, names = _logits(model)
    assert PRODUCT not in names
    tile(model)
    with inside(model):
        out, names = _logits(model)
    assert PRODUCT in names
    assert "aten::mm" not in names
    torch.testing.assert_close(out, own, rtol=1e-4, atol=1e-4)
    again, names = _logits(model)
    assert PRODUCT not in names
    assert torch.equal(again, own)


def _double(weight: torch.Tensor) -> None:
    weight.mul_(2)


def _double_unseen(weight: torch.Tensor) -> None:
    weight.data *= 2


def _turn_one_bit(weight: torch.Tensor) -> None:
    weight.data.view(torch.int32)[-1, -1] ^= 1 << 22


def _swap_rows(weight: torch.Tensor) -> None:
    weight.data[[0, 1]] = weight.data[[1, 0]]


@torch.no_grad()
@pytest.mark.parametrize("change", [_double, _double_unseen, _turn_one_bit, _swap_rows])
@pytest.mark.parametrize("name", ["lm_head", "model.layers.1.self_attn.k_proj"])
def test_a_weight_that_changes_is_copied_anew(
    change: Callable[[torch.Tensor], None], name: str
) -> None:
    model = build_llama()
    before = tile(model)
    layer = model.get_submodule(name)
    old = layer(torch.ones(1, layer.in_features))
    change(layer.weight)
    own = model(input_ids=IDS).logits
    new = layer(torch.ones(1, layer.in_features))
    assert not torch.equal(new, old)
    after = tile(model)
    assert [one for one in before if after[one] is not before[one]] == [layer]
    with inside(model):
        torch.testing.assert_close(model(input_ids=IDS).logits, own, rtol=1e-4, atol=1e-4)
        product = layer(torch.ones(1, layer.in_features))
        torch.testing.assert_close(product, new, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_run_that_goes_on_sees_what_torch_sees() -> None:
    model = build_llama()
    with inside(model):
        model.lm_head.weight.mul_(2)
        own, _ = _logits(model)
    torch.testing.assert_close(_logits(model)[0], own, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("way", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_model_multiplies_by_its_own_weights(way: Callable[[Any], Any]) -> None:
    model = build_llama()
    tile(model)
    twin = way(model)
    twin.lm_head.weight.mul_(2)
    torch.testing.assert_close(_logits(twin)[0], 2 * _logits(model)[0], rtol=1e-4, atol=1e-4)
    with inside(twin):
        torch.testing.assert_close(_logits(twin)[0], 2 * _logits(model)[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_weight_that_is_replaced_or_moved_is_not_mistaken() -> None:
    model = build_llama()
    tile(model)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight * 3)
    own = model(input_ids=IDS).logits
    with inside(model):
        torch.testing.assert_close(model(input_ids=IDS).logits, own, rtol=1e-4, atol=1e-4)
    model.to(torch.bfloat16)
    own = model(input_ids=IDS).logits
    with inside(model):
        assert torch.equal(model(input_ids=IDS).logits, own)


def test_gradients_flow_outside_a_pass() -> None:
    model = build_llama().requires_grad_(True)
    tile(model)
    model(input_ids=IDS).logits.sum().backward()
    assert model.lm_head.weight.grad is not None


def test_shared_layers_count_once() -> None:
    model = build_llama()
    tile(model)
    alone = copy_bytes([model])
    linear = [m.weight.nbytes for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert alone == sum(linear) == copy_bytes([model, model])


def test_a_pair_counts_its_copies() -> None:
    model = build_llama()
    before = sum(weight.nbytes for weight in {*model.parameters()})
    pair = Pair.of(model)
    assert pair.weight_bytes == before
    assert engine_of(pair).hooks.copy_bytes(pair.models) == copy_bytes([model]) > 0


def test_not_in_half_precision_nor_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    half = build_llama().to(torch.bfloat16)
    tile(half)
    assert copy_bytes([half]) == 0
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Free", (), {"available": 1000}))
    model = build_llama()
    tile(model)
    assert copy_bytes([model]) == 0
    assert not tile(model)


def test_the_environment_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "0")
    model = build_llama()
    tile(model)
    assert copy_bytes([model]) == 0


@pytest.mark.parametrize("change", [-0.2, 0.2])
def test_without_a_word_copies_are_made_where_they_pay(
    monkeypatch: pytest.MonkeyPatch, change: float
) -> None:
    monkeypatch.delenv(SWITCH)
    monkeypatch.setattr(
        "mspeckv.accelerate.ordered_weights.gain", lambda threads: LEAST_GAIN + change
    )
    model = build_llama()
    tile(model)
    assert (copy_bytes([model]) > 0) == (change > 0)


def test_the_gain_is_measured_once() -> None:
    threads = torch.get_num_threads()
    assert 0.1 < gain(threads) < 10
    assert gain(threads) == gain(threads)


def test_a_shortlist_scores_by_its_own_copy() -> None:
    model = build_llama()
    own, _ = _logits(model)
    chosen = torch.tensor([1, 3, 4])
    tile(model)
    with torch.inference_mode():
        short = ShortHead(model, chosen)
        with carrying(Pass(attend, products={**tile(model), **short.products})):
            out, names = _logits(model)
    assert PRODUCT in names
    torch.testing.assert_close(out, own[..., chosen], rtol=1e-4, atol=1e-4)
    again, names = _logits(model)
    assert torch.equal(again, own)


@torch.no_grad()
def test_its_operations_are_counted() -> None:
    product = TiledWeight({"weight": torch.randn(5, 4)})
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as seen:
        product(torch.randn(2, 3, 4))
    (event,) = [event for event in seen.events() if event.name == PRODUCT]
    assert operations(event) == 2 * 6 * 4 * 5


@torch.no_grad()
@pytest.mark.parametrize("build", [build_llama, build_qwen2])
def test_every_linear_layer_multiplies_by_its_copy(build: Callable[[], Any]) -> None:
    model = build()
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            weight.uniform_(-1, 1)
    own, _ = _logits(model)
    tile(model)
    with inside(model), profile(activities=[ProfilerActivity.CPU]) as seen:
        out = model(input_ids=IDS).logits
    counts = {event.key: event.count for event in seen.key_averages()}
    linears = sum(isinstance(one, torch.nn.Linear) for one in model.modules())
    # of q, k, v one, and of gate and up one
    assert counts[PRODUCT] == linears - 3 * model.config.num_hidden_layers
    torch.testing.assert_close(out, own, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_layer_whose_weight_or_bias_changes_leaves_its_siblings() -> None:
    model = build_qwen2()
    tile(model)
    for layer in model.model.layers:
        layer.self_attn.k_proj.bias.add_(1)
        layer.mlp.up_proj.weight.mul_(2)
    own = model(input_ids=IDS).logits
    with inside(model):
        torch.testing.assert_close(model(input_ids=IDS).logits, own, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_sibling_answers_for_what_it_is_shown() -> None:
    """Layers are asked out of turn, twice, and of another state in between; in the end all took."""
    model = build_llama()
    block = model.model.layers[0].self_attn
    q, k, v = layers = block.q_proj, block.k_proj, block.v_proj
    one, other = torch.randn(2, 1, 3, q.in_features)
    asked = [(k, one), (q, other), (q, other), (v, one), (v, one), (q, one), (k, one)]
    products = dict(zip(layers, together(layers), strict=True))
    for layer, hidden in asked:
        torch.testing.assert_close(products[layer](hidden), layer(hidden), rtol=1e-4, atol=1e-4)
    assert products[q].product.func.__self__._waiting is None


def test_layers_of_other_shapes_are_no_siblings() -> None:
    module, gate = torch.nn.Module(), torch.nn.Linear(4, 6, bias=False)
    other, up = torch.nn.Linear(4, 6, bias=True), torch.nn.Linear(4, 6, bias=False)
    module.gate_proj, module.up_proj = gate, other
    assert [len(layers) for layers in siblings(module, [gate, other])] == [1, 1]
    module.up_proj = up
    assert list(siblings(module, [gate, up])) == [[gate, up]]
    assert list(siblings(module, [gate])) == [[gate]]
    module.up_proj = gate
    assert list(siblings(module, [gate])) == [[gate]]


def test_fewer_threads_than_torch_asks_for_change_no_token() -> None:
    code = (
        "import torch; torch.set_num_threads(2)\n"
        "from mspeckv import Sampling, generate\n"
        "from tests.random_models import random_pair, random_prompt\n"
        "greedy = Sampling(temperature=0)\n"
        "out = generate(random_pair(), random_prompt(30), new_tokens=8, sampling=greedy)\n"
        "print(*out.tokens)"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, SWITCH: "1", **limit},
            capture_output=True, text=True, check=True,
        ).stdout
        for limit in ({}, {"OMP_THREAD_LIMIT": "1"})
    ]  # fmt: skip
    assert told[0] == told[1]
