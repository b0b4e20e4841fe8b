"""Mixtures of experts: a pass of several tokens reads more weights, and chosen lengths begin so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MixtralConfig, PreTrainedModel, Qwen3MoeConfig

from mspeckv import Pair, Sampling, Speculation, generate
from mspeckv.adaptive.estimates import FAR, GPU_SLOPE, SLOPE, PassCost, steeper
from mspeckv.api import engine_of
from mspeckv.models.experts import experts_of, growth
from mspeckv_study.whatif import ModelShape
from tests.random_models import SHAPE, random_pair, random_prompt

pytestmark = pytest.mark.usefixtures("one_thread")
EXPERTS, VOCAB = 8, 4096
"""So many tokens that few come twice."""
SIZES: dict[str, Any] = {
    "qwen3": Qwen3MoeConfig(
        **SHAPE, vocab_size=VOCAB, num_hidden_layers=3, head_dim=16, num_experts=EXPERTS,
        num_experts_per_tok=2, moe_intermediate_size=48, tie_word_embeddings=False,
    ),
    "mixtral": MixtralConfig(
        **SHAPE, vocab_size=VOCAB, num_hidden_layers=3, num_local_experts=EXPERTS,
        num_experts_per_tok=2, sliding_window=None, tie_word_embeddings=False,
    ),
}  # fmt: skip


def mixture(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(SIZES[family]).eval()
    return model


@torch.no_grad()
def even(model: PreTrainedModel) -> PreTrainedModel:
    """A model whose routers see random tokens, whatever layers do: nothing is added to them."""
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj")):
            weight.zero_()
    return model


def counted(model: PreTrainedModel, tokens: int, passes: int = 60) -> float:
    """Weights that passes over random tokens really read, a mean: routers are looked at."""
    layers = [part for part in model.modules() if type(part).__name__.endswith("Experts")]
    chosen: list[int] = []

    def look(_: Any, given: tuple[Any, ...], kept: dict[str, Any]) -> None:
        parts = [one for one in (*given, *kept.values()) if torch.is_tensor(one)]
        (routes,) = (one for one in parts if not one.is_floating_point())
        chosen.append(len(routes.unique()))

    hooks = [one.register_forward_pre_hook(look, with_kwargs=True) for one in layers]
    for seed in range(passes):
        with torch.no_grad():
            model(torch.tensor([random_prompt(tokens, VOCAB, seed)]))
    for one in hooks:
        one.remove()
    routed = sum(weight.numel() for layer in layers for weight in layer.parameters())
    outside = sum(weight.numel() for weight in model.parameters()) - routed
    outside -= model.get_input_embeddings().weight.numel()
    return float(outside + routed / len(layers) / EXPERTS * sum(chosen) / passes)


@pytest.mark.parametrize("family", SIZES)
def test_weights_by_tokens_are_those_that_routers_choose(family: str) -> None:
    """Of routers that choose evenly."""
    model = even(mixture(family))
    shape = ModelShape.of(model.config)
    one = counted(model, 1)
    assert growth(model, 1) == 1
    for tokens in (2, 4, FAR):
        many = counted(model, tokens)
        assert growth(model, tokens) == pytest.approx(many / one, rel=0.05)
        # what-if counts the same
        read = shape.layers * shape.read_params(tokens) + shape.head_params
        assert float(read) == pytest.approx(many, rel=0.05)


def test_a_dense_model_reads_the_same() -> None:
    assert growth(random_pair().target, FAR) == 1
    assert experts_of(random_pair().target.config, 0, 4) is None


@pytest.mark.parametrize("slope", [SLOPE, GPU_SLOPE])
@pytest.mark.parametrize("more", [1.0, 1.7, 3.0])
def test_a_pass_that_reads_more_is_expected_to_take_more(slope: float, more: float) -> None:
    cost = PassCost(steeper(slope, more))
    cost.see(1, 10.0)
    plain = PassCost(slope)
    plain.see(1, 10.0)
    assert cost(FAR) / cost(1) == pytest.approx(more * plain(FAR) / plain(1), rel=1e-6)


def test_a_run_begins_with_the_growth_of_its_target() -> None:
    """What it has learned is kept with the slope that it began with."""
    model = mixture("qwen3")
    pair, prompt = Pair.of(model, model), random_prompt(12)
    auto, greedy = Speculation(gamma="auto", draft_gamma="auto"), Sampling(0, stop_at_eos=False)
    generate(pair, prompt, method="vanilla", new_tokens=6, speculation=auto, sampling=greedy)
    (costs,) = engine_of(pair).pass_costs.values()
    assert costs[2].slope == steeper(SLOPE, growth(model, FAR)) > 2 * SLOPE


def test_growth_is_less_than_that_many_passes() -> None:
    assert 0 < steeper(SLOPE, 20.0) == steeper(SLOPE, 100.0)
