"""Ordered copies of weights: the same product, only inside, only while they are current."""

from __future__ import annotations

import psutil
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mspeckv import Pair
from mspeckv.decoding.shortlist import Shortlist
from mspeckv.profiling.reading import operations
from mspeckv.tiled import PRODUCT, SWITCH, TiledWeight, can_tile, tile, tiled, tiled_bytes
from tests.conftest import build_llama

IDS = torch.arange(7)[None]

pytestmark = pytest.mark.skipif(
    not can_tile(torch.empty(2, 2)), reason="this build of torch has no such kernel"
)


@torch.no_grad()
def _logits(model: torch.nn.Module) -> tuple[torch.Tensor, set[str]]:
    """What a model says of `IDS`, and the products by which."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        logits: torch.Tensor = model(input_ids=IDS).logits
    return logits, {event.key for event in seen.key_averages()}


def test_the_product_is_the_models_own_and_only_inside() -> None:
    model = build_llama()
    own, names = _logits(model)
    assert PRODUCT not in names
    tile(model)
    with tiled(model):
        out, names = _logits(model)
    assert PRODUCT in names
    assert "aten::mm" not in names
    torch.testing.assert_close(out, own, rtol=1e-4, atol=1e-4)
    again, names = _logits(model)
    assert PRODUCT not in names
    assert torch.equal(again, own)


def test_a_weight_that_changes_is_copied_anew() -> None:
    model = build_llama()
    tile(model)
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
        own = model(input_ids=IDS).logits
        with tiled(model):
            torch.testing.assert_close(model(input_ids=IDS).logits, own, rtol=1e-4, atol=1e-4)
        tile(model)
        with tiled(model):
            torch.testing.assert_close(model(input_ids=IDS).logits, own, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_weight_that_is_replaced_or_moved_is_not_mistaken() -> None:
    model = build_llama()
    tile(model)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight * 3)
    own = model(input_ids=IDS).logits
    with tiled(model):
        torch.testing.assert_close(model(input_ids=IDS).logits, own, rtol=1e-4, atol=1e-4)
    model.to(torch.bfloat16)
    own = model(input_ids=IDS).logits
    with tiled(model):
        assert torch.equal(model(input_ids=IDS).logits, own)


def test_gradients_flow_as_without() -> None:
    model = build_llama().requires_grad_(True)
    tile(model)
    with tiled(model):
        model(input_ids=IDS).logits.sum().backward()
    assert model.lm_head.weight.grad is not None


def test_shared_layers_count_once() -> None:
    model = build_llama()
    tile(model)
    alone = tiled_bytes(model)
    linear = [m.weight.nbytes for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert alone == sum(linear) == tiled_bytes(model, model)


def test_a_pair_counts_its_copies() -> None:
    model = build_llama()
    before = sum(weight.nbytes for weight in {*model.parameters()})
    pair = Pair.of(model)
    assert pair.weight_bytes == before
    assert pair.copy_bytes == tiled_bytes(model) > 0


def test_not_in_half_precision_nor_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    half = build_llama().to(torch.bfloat16)
    tile(half)
    assert tiled_bytes(half) == 0
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Free", (), {"available": 1000}))
    model = build_llama()
    tile(model)
    assert tiled_bytes(model) == 0
    with tiled(model):
        assert "forward" not in vars(model.lm_head)


def test_the_environment_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "0")
    model = build_llama()
    tile(model)
    assert tiled_bytes(model) == 0


def test_a_shortlist_scores_by_its_own_copy() -> None:
    model = build_llama()
    own, _ = _logits(model)
    chosen = torch.tensor([1, 3, 4])
    short = Shortlist(model, chosen)
    tile(model)
    with tiled(model), short.applied():
        out, names = _logits(model)
    assert PRODUCT in names
    torch.testing.assert_close(out, own[..., chosen], rtol=1e-4, atol=1e-4)
    assert "forward" not in vars(model.lm_head)


@torch.no_grad()
def test_its_operations_are_counted() -> None:
    product = TiledWeight(torch.randn(5, 4))
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as seen:
        product(torch.randn(2, 3, 4))
    (event,) = [event for event in seen.events() if event.name == PRODUCT]
    assert operations(event) == 2 * 6 * 4 * 5
