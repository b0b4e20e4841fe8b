"""The catalogue against transformers' own configuration classes, and what layer kinds cost.

Sizes are those of each repository's ``config.json``; where a class's defaults are the model itself
(gpt-oss-120b, Qwen3-Next, DeepSeek-V3) they stand for it.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import PretrainedConfig

from mspeckv import plan, what_if
from mspeckv.kv.sizes import window_slack
from mspeckv.models.checks import cache_argument
from mspeckv.settings import KVPolicy, Speculation
from mspeckv_study.cli import main
from mspeckv_study.whatif import HARDWARE, MODELS, ModelShape
from mspeckv_study.whatif.passes import pass_time
from mspeckv_study.whatif.search import Grid
from mspeckv_widgets import WhatIf
from tests.test_recurrent import FAMILIES, hybrid_pair

CONFIGS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "llama-3.1-8b": ("LlamaConfig", (32, 4096, 14336, 32, 8, 128256), {}),
    "llama-3.1-70b": ("LlamaConfig", (80, 8192, 28672, 64, 8, 128256), {}),
    "qwen3-8b": ("Qwen3Config", (36, 4096, 12288, 32, 8, 151936), {"head_dim": 128}),
    "qwen3-30b-a3b": (
        "Qwen3MoeConfig",
        (48, 2048, 6144, 32, 4, 151936),
        {
            "head_dim": 128,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
    ),
    "qwen3-next-80b-a3b": ("Qwen3NextConfig", (48, 2048, 5120, 16, 2, 151936), {}),
    "mistral-small-24b": (
        "MistralConfig",
        (40, 5120, 32768, 32, 8, 131072),
        {"head_dim": 128, "sliding_window": None},
    ),
    "gemma-3-12b": (
        "Gemma3TextConfig",
        (48, 3840, 15360, 16, 8, 262208),
        {"head_dim": 256, "sliding_window": 1024, "tie_word_embeddings": True},
    ),
    "gemma-3-27b": (
        "Gemma3TextConfig",
        (62, 5376, 21504, 32, 16, 262208),
        {"head_dim": 128, "sliding_window": 1024, "tie_word_embeddings": True},
    ),
    "gpt-oss-20b": ("GptOssConfig", (24, 2880, 2880, 64, 8, 201088), {"num_local_experts": 32}),
    "gpt-oss-120b": ("GptOssConfig", (36, 2880, 2880, 64, 8, 201088), {}),
    "deepseek-v3": ("DeepseekV3Config", (61, 7168, 18432, 128, 128, 129280), {}),
}
"""Class, layers, hidden, intermediate, heads, KV heads, vocabulary, and the rest."""
_NAMES = (
    "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
    "num_key_value_heads", "vocab_size",
)  # fmt: skip
LONG = 131_072


def config_of(name: str) -> PretrainedConfig:
    kind, sizes, own = CONFIGS[name]
    given = {"tie_word_embeddings": False, **dict(zip(_NAMES, sizes, strict=True)), **own}
    found: PretrainedConfig = getattr(transformers, kind)(**given)
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_the_catalogue_is_what_transformers_builds(name: str) -> None:
    """Every number: weights are counted on the whole model, without memory."""
    found, known = ModelShape.of(config_of(name)), MODELS[name]
    for field in fields(ModelShape):
        if field.name not in ("name", "source"):
            assert getattr(found, field.name) == getattr(known, field.name), field.name


@pytest.mark.parametrize(
    ("name", "billions", "active"),
    [
        ("qwen3-30b-a3b", 30.5, 3.3), ("gpt-oss-20b", 20.9, 3.6), ("gpt-oss-120b", 116.8, 5.1),
        ("deepseek-v3", 671.0, 37.0), ("qwen3-next-80b-a3b", 79.7, 3.7),
    ],
)  # fmt: skip
def test_mixtures_have_the_published_weights(name: str, billions: float, active: float) -> None:
    """In all, and of one token: published figures count the embedding or leave it out."""
    shape = MODELS[name]
    assert shape.own_params / 1e9 == pytest.approx(billions, abs=0.05)
    read = (shape.layers * shape.read_params(1) + shape.head_params) / 1e9
    assert read - 0.1 < active < read + shape.head_params / 1e9 + 0.1


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        ("llama-3.1-8b", 32 * 2 * 8 * 128 * 2 * LONG), ("gpt-oss-20b", 12 * 2 * 8 * 64 * 2 * LONG),
        ("gemma-3-12b", 8 * 2 * 8 * 256 * 2 * LONG), ("deepseek-v3", 61 * 576 * 2 * LONG),
        ("qwen3-next-80b-a3b", 12 * 2 * 2 * 256 * 2 * LONG),
    ],
)  # fmt: skip
def test_only_growing_layers_pay_for_length(name: str, gigabytes: int) -> None:
    shape = MODELS[name]
    alone: dict[str, Any] = {"method": "autoregressive", "draft": None, "bits": "full"}
    sizes = [
        what_if(name, "h100", prefill=n - 256, on_chip=shape.growing, **alone).kv_device_bytes
        for n in (LONG, 2 * LONG)
    ]
    assert sizes[1] - sizes[0] == gigabytes
    room = window_slack(Speculation())
    kept = shape.window_bytes(torch.float16, LONG, room) + 2 * shape.state_bytes
    assert sizes[0] == gigabytes + kept


def test_the_documents_table_is_computed() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "models.md").read_text("utf-8")
    for name in CONFIGS:
        shape = MODELS[name]
        kv = shape.kv(torch.float16).token_bytes * shape.growing * LONG
        kv += shape.window_bytes(torch.float16, LONG) + shape.state_bytes
        read = [2e-9 * (shape.layers * shape.read_params(n) + shape.head_params) for n in (1, 8)]
        start, end = (
            f"| `{name}` | {shape.growing} of {shape.layers} |",
            (f"| {kv / 1e9:.1f} GB | {float(read[0]):.1f}, {float(read[1]):.1f} GB |"),
        )
        (row,) = (line for line in text.splitlines() if line.startswith(start))
        assert row.endswith(end)


def test_a_policy_places_growing_layers_alone() -> None:
    with pytest.raises(ValueError, match="12"):
        what_if("gpt-oss-20b", "h100", on_chip=13, prefill=4096)
    found = plan("gpt-oss-20b", "h100", prefill=LONG, grid=Grid(places=4, gammas=(4,)))
    assert found.choice.on_chip + found.choice.resident + found.choice.offloaded == 12
    KVPolicy(on_chip=found.choice.on_chip).check_layers(12)


def test_layers_in_between_hide_a_transfer() -> None:
    """Gemma's windows: five layers are computed while the next growing one is on its way."""
    shape, machine = MODELS["gemma-3-12b"], HARDWARE["h100"]
    found = pass_time(shape, machine, "target", 1.0, LONG)
    alone = pass_time(MODELS["mistral-7b"], machine, "target", 1.0, LONG)
    assert (found.layers, alone.layers) == (8, 32)
    whole = what_if("gemma-3-12b", machine, method="autoregressive", prefill=LONG, on_chip=8)
    assert whole.steps["tier 2 compute"] == pytest.approx(float(found.total), rel=1e-3)


@pytest.mark.parametrize("name", ["qwen3-30b-a3b", "gpt-oss-120b"])
def test_a_pass_reads_the_experts_that_its_rows_choose(name: str) -> None:
    experts = MODELS[name].experts
    assert experts is not None
    random, rows = np.random.default_rng(0), np.array([1, 2, 8, 64])
    drawn = [
        np.mean([
            len({int(e) for _ in range(n)
                 for e in random.choice(experts.count, experts.used, replace=False)})
            for _ in range(200)
        ])
        for n in rows
    ]  # fmt: skip
    np.testing.assert_allclose(experts.read(rows), drawn, rtol=0.02)
    assert float(experts.read(1)) == pytest.approx(experts.used)
    times = [float(pass_time(MODELS[name], HARDWARE["h100"], "target", n, 0).total) for n in (1, 8)]
    dense = [float(pass_time(MODELS["qwen3-8b"], HARDWARE["h100"], "target", n, 0).total)
             for n in (1, 8)]  # fmt: skip
    assert times[1] / times[0] > 1.5
    assert dense[1] / dense[0] < 1.05


def test_kinds_that_are_not_modelled_are_refused() -> None:
    with pytest.raises(ValueError, match="not modelled|no layer"):
        ModelShape.of(transformers.ZayaConfig())
    with pytest.raises(ValueError, match="model: 'mamba' .* use a causal decoder with attention"):
        ModelShape.of(transformers.MambaConfig())


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_states_are_as_large_as_those_that_a_model_keeps(family: str) -> None:
    """Modelled against counted."""
    model = hybrid_pair(family).target
    shape, cache = ModelShape.of(model.config), transformers.DynamicCache(config=model.config)
    given: dict[str, Any] = {cache_argument(model): cache}
    model(torch.arange(8)[None], use_cache=True, **given)
    kept = [
        sum(part.numel() for part in (*layer.conv_states.values(), *layer.recurrent_states.values())
            if part is not None)
        for layer in cache.layers if hasattr(layer, "conv_states")
    ]  # fmt: skip
    assert kept == [shape.state_size] * shape.states


def test_a_state_beside_attention_costs_its_bytes_and_no_weights() -> None:
    shape = ModelShape.of(transformers.FalconH1Config())
    assert shape.described == "32 of 32 layers grow, 32 keep a state"
    alone, machine = replace(shape, states=0, beside=0), HARDWARE["h100"]
    both = (float(pass_time(one, machine, "target", 1, 4096).total) for one in (shape, alone))
    more = 2 * shape.state_bytes / machine.memory_gbps / 1e6
    assert more > 0
    assert next(both) - next(both) == pytest.approx(more)
    assert alone.growing == shape.growing == 32


def test_the_command_line_says_which_layers_grow(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whatif", "--target", "gemma-3-27b", "--on-chip", "4", "--resident", "6"]) == 0
    assert "10 of 62 layers grow, 52 keep 1,024 tokens" in capsys.readouterr().out


def test_the_panel_lists_them_and_bounds_its_sliders() -> None:
    panel = WhatIf()
    options = dict(panel.controls.inputs["model"].options)
    assert set(options.values()) == set(MODELS)
    panel.set(model="gpt-oss-20b")
    assert panel.controls.inputs["on_chip"].max == 12
    assert panel.found["mspeckv"].model == "gpt-oss-20b"
