"""Weights that change under the engine: adapters of peft, merged, switched off and unloaded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from mspeckv import KVPolicy, Pair, Sampling, generate
from mspeckv.accelerate.kept_prompts import Prefills
from tests.conftest import build_llama
from tests.random_models import random_prompt

# peft's own use of a name that transformers has left
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
PROMPT = random_prompt(40)
IDS = torch.tensor([PROMPT])


def plain(model: Any) -> tuple[int, ...]:
    """transformers' own greedy text."""
    out = model.generate(
        input_ids=IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=10, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip
    return tuple(out[0, len(PROMPT) :].tolist())


def ours(pair: Pair, prefills: Prefills | None = None) -> tuple[int, ...]:
    """The engine's."""
    return generate(
        pair, PROMPT, method="autoregressive", new_tokens=10, policy=KVPolicy("full", on_chip=2),
        sampling=Sampling(temperature=0), prefills=prefills,
    ).tokens  # fmt: skip


def adapted(model: Any) -> Any:
    """``model`` with a random adapter on all of its linear layers."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(model, config).eval()


@pytest.mark.parametrize("kept", [False, True], ids=["read anew", "kept prompts"])
def test_a_run_begins_with_the_weights_as_they_are(kept: bool) -> None:
    model, prefills = build_llama(), Prefills() if kept else None
    pair = Pair.of(model)
    seen = [ours(pair, prefills)]
    assert seen[0] == plain(model)
    wrapped = adapted(model)
    for change in (
        lambda: None,
        wrapped.merge_adapter,
        wrapped.unmerge_adapter,
        wrapped.base_model.disable_adapter_layers,
        wrapped.base_model.enable_adapter_layers,
    ):
        change()
        seen.append(ours(pair, prefills))
        assert seen[-1] == plain(model), change
    merged = wrapped.merge_and_unload()
    assert merged is model
    seen.append(ours(pair, prefills))
    assert seen[-1] == plain(model)
    assert len(set(seen)) > 1
    # switched off, it says what it said before
    assert seen[4] == seen[0] != seen[1]


def test_an_adapter_taken_out_leaves_the_model_as_it_was() -> None:
    model = build_llama()
    pair = Pair.of(model)
    before = ours(pair)
    assert adapted(model).unload() is model
    assert ours(pair) == before


@torch.no_grad()
def test_state_loaded_and_moved(tmp_path: Any) -> None:
    model, other = build_llama(), build_llama(seed=3)
    pair = Pair.of(model)
    before = ours(pair)
    model.load_state_dict(other.state_dict())
    assert ours(pair) == plain(model) == plain(other) != before
    model.to(torch.float64)
    assert ours(pair) == plain(model)
    model.to(torch.float32)
    assert ours(pair) == plain(other)
