"""Layers with a window or chunks, soft caps and sinks: exact, and no larger than their window."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    Cohere2Config,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    Olmo3Config,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from mspeckv import KVPolicy, Pair, RunConfig, Sampling, Speculation, generate
from mspeckv.api import engine_of
from mspeckv.decoding.fits import predict
from mspeckv.kv.floats import Buffer
from mspeckv.kv.kinds import ALL, Sight, kinds_of
from mspeckv.kv.scores import sight_mask
from mspeckv.kv.shape import KVShape
from mspeckv.kv.windows import WindowLayer
from mspeckv.settings import METHODS
from mspeckv.testing.exactness import chi_square, expect, prefilled, sample
from mspeckv_study.whatif import HARDWARE, what_if
from mspeckv_study.whatif.shapes import ModelShape
from mspeckv_widgets import LiveLab
from tests.random_models import SHAPE, random_prompt

pytestmark = pytest.mark.usefixtures("one_thread")
GREEDY = Sampling(temperature=0, stop_at_eos=False)
GROWING = ["full_attention", "sliding_attention"] * 2
PATTERNS = {
    "mixed": GROWING,
    "last": ["sliding_attention"] * 3 + ["full_attention"],
    "windows": ["sliding_attention"] * 4,
}
FAMILIES: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "gemma2": (Gemma2Config, {"attn_logit_softcapping": 5.0, "head_dim": 16}),
    "gemma3": (Gemma3TextConfig, {"head_dim": 16}),
    "gpt-oss": (GptOssConfig, {"head_dim": 16, "num_local_experts": 4}),
    "mistral": (MistralConfig, {}),
    "cohere2": (Cohere2Config, {}),
    "olmo3": (Olmo3Config, {}),
    "phi3": (Phi3Config, {}),
    "qwen2": (Qwen2Config, {"use_sliding_window": True}),
    "llama4": (Llama4TextConfig, {"head_dim": 16, "num_local_experts": 4,
                                  "intermediate_size_mlp": 64, "no_rope_layers": [1, 0, 1, 1]}),
}  # fmt: skip


def windowed_pair(family: str, window: int, pattern: str = "mixed", layers: int = 4) -> Pair:
    """A random target, and as draft the target itself, which sees less there."""
    kind, own = FAMILIES[family]
    shape = {**SHAPE, "vocab_size": 64, "num_hidden_layers": layers, "tie_word_embeddings": False}
    listed = family not in ("mistral", "phi3", "llama4")
    if listed:
        own = {"layer_types": PATTERNS[pattern][:layers], **own}
    told = {"attention_chunk_size" if family == "llama4" else "sliding_window": window}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(**{**shape, **own, **told})).eval()
    for name, weight in model.named_parameters():
        if name.endswith("sinks"):
            torch.nn.init.normal_(weight)
    return Pair.of(model, model)


def plain_text(pair: Pair, prompt: list[int], new_tokens: int) -> tuple[int, ...]:
    """Plain transformers' greedy text: no cache, and attention that caps scores if the model does.

    Older releases keep too much for a window of 1, and leave a cap out unless attention is eager.
    """
    ids = torch.tensor([prompt])
    if getattr(pair.target.config, "attn_logit_softcapping", None):
        pair.target.set_attn_implementation("eager")
    found = pair.target.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, do_sample=False,
        use_cache=False,
    )  # fmt: skip
    return tuple(found[0, len(prompt) :].tolist())


def assert_exact(
    pair: Pair, prompt: list[int], policy: KVPolicy, speculation: Speculation, new_tokens: int
) -> None:
    """Every method gives plain transformers' text, or with quantized KV that of tier 2 alone."""
    methods = [method for method in METHODS if method != "triforce" or policy.lossless]
    texts = {
        method: generate(
            pair, prompt, method=method, new_tokens=new_tokens, policy=policy,
            speculation=speculation, sampling=GREEDY,
        ).tokens
        for method in methods
    }  # fmt: skip
    alone = texts["autoregressive"]
    assert set(texts.values()) == {alone}, texts
    if policy.lossless:
        assert alone == plain_text(pair, prompt, new_tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_exact(family: str) -> None:
    pair = windowed_pair(family, 9)
    speculation = Speculation(
        gamma=4, draft_gamma=2, chunk=4, budget=16, recent=4, sinks=2, window=8
    )
    for policy in (KVPolicy("full"), KVPolicy(8, block=16, tail=4)):
        assert_exact(pair, random_prompt(30), policy, speculation, 24)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_windows_patterns_and_borders(data: st.DataObject) -> None:
    draw = data.draw
    family = draw(st.sampled_from(["gemma2", "gpt-oss", "mistral", "llama4", "qwen2"]))
    window = draw(st.sampled_from([1, 2, 5, 16, 40]))
    pair = windowed_pair(family, window, draw(st.sampled_from(sorted(PATTERNS))))
    prompt = draw(st.one_of(st.integers(2, 90), st.integers(max(2, window - 2), window + 2)))
    on_chip = draw(st.integers(0, pair.layers))
    policy = KVPolicy(
        draw(st.sampled_from([8, 4, "full"])), on_chip, draw(st.integers(0, pair.layers - on_chip)),
        block=draw(st.sampled_from([8, 16])), tail=draw(st.integers(0, 12)), group=16,
    )  # fmt: skip
    speculation = Speculation(
        gamma=draw(st.one_of(st.integers(1, 10), st.just("auto"))),
        draft_gamma=draw(st.integers(1, 5)),
        tier0=draw(st.sampled_from(["draft", "lookup"])),
        chunk=4, budget=draw(st.integers(16, 40)), recent=draw(st.integers(0, 6)),
        refresh=draw(st.integers(0, 6)), sinks=draw(st.integers(0, 4)),
        window=draw(st.integers(8, 30)),
    )  # fmt: skip
    assert_exact(pair, random_prompt(prompt), policy, speculation, draw(st.integers(1, 40)))


def test_a_long_run_slides_every_tiers_windows() -> None:
    pair = windowed_pair("mistral", 5)
    policy, long = KVPolicy("full"), 260
    speculation = Speculation(gamma=4, draft_gamma=2, sinks=2, window=8)
    assert_exact(pair, random_prompt(40), policy, speculation, long)


def test_nibble_mode_reads_the_same_windows() -> None:
    pair = windowed_pair("gemma2", 6)
    policy = KVPolicy(8, block=16, tail=8, nibble=True)
    assert_exact(pair, random_prompt(40), policy, Speculation(gamma=4, tier1="nibble"), 30)


def test_samples_are_distributed_as_the_targets() -> None:
    torch.manual_seed(0)
    shape = {**SHAPE, "vocab_size": 5, "num_hidden_layers": 2, "tie_word_embeddings": False}
    kind = Gemma2Config(**{**shape, "initializer_range": 0.1}, head_dim=16, sliding_window=3)
    model = AutoModelForCausalLM.from_config(kind).eval()
    pair, prompt = Pair.of(model, model), random_prompt(12, vocab=5)
    config = RunConfig(
        method="mspeckv", new_tokens=8, policy=KVPolicy(8, block=8, tail=0),
        speculation=Speculation(gamma=2, draft_gamma=1, chunk=2, budget=6, recent=2, sinks=1,
                                window=8),
        sampling=Sampling(temperature=1.3, top_p=0.9),
    )  # fmt: skip
    assert chi_square(sample(pair, prompt, config, 2, 500), expect(pair, prompt, config, 2)) > 1e-4


def test_only_the_growing_layers_are_placed_and_the_bytes_are_as_predicted() -> None:
    pair = windowed_pair("gemma2", 6)
    assert pair.layers == 2
    assert pair.kv_shape.depth == 4
    config = RunConfig(method="mspeckv", new_tokens=300, policy=KVPolicy(8, 1, 1))
    with prefilled(pair, random_prompt(200), config) as tiers:
        places, need = tiers.full.allocated(), predict(engine_of(pair), pair, config, 200)
        for place, size in places.items():
            assert getattr(need, place) == size, place
    assert places["windows"] == 2 * (6 + 2 * (64 + 8 + 3)) * pair.kv_shape.token_bytes
    with pytest.raises(ValueError, match="the target has 2 layers"):
        generate(pair, random_prompt(20), policy=KVPolicy(8, 2, 1))


def test_what_if_knows_the_bytes_of_windows() -> None:
    """Those of every tier, with the room for guesses that a run allocates."""
    pair = windowed_pair("gemma2", 6)
    config = RunConfig(method="mspeckv", new_tokens=300, policy=KVPolicy(8, 1, 1))
    need, shape = predict(engine_of(pair), pair, config, 200), ModelShape.of(pair.target.config)
    found = what_if(
        shape, HARDWARE["laptop-cpu"], method="mspeckv", policy=config.policy, draft=shape,
        speculation=config.speculation, prefill=200, new_tokens=300, control=False,
    )  # fmt: skip
    parts = found.memory.parts
    kept = {name: int(parts[name]) for name in ("windows", "retrieval", "streaming")}
    assert kept["windows"] == 2 * need.windows, "of tiers 2 and 1"
    assert kept["retrieval"] == pytest.approx(need.retrieval - need.windows, rel=0.02)
    assert kept["streaming"] == need.streaming


def test_only_the_growing_layers_cross_the_link() -> None:
    pair = windowed_pair("gemma2", 6)
    prompt, policy = random_prompt(60), KVPolicy(8, block=16, tail=0)
    summary = generate(
        pair, prompt, method="autoregressive", new_tokens=4, policy=policy, sampling=GREEDY
    )
    one = generate(
        pair, prompt, method="autoregressive", new_tokens=4, sampling=GREEDY,
        policy=KVPolicy(8, 1, block=16, tail=0),
    )  # fmt: skip
    assert summary.link.to_device_bytes == 2 * one.link.to_device_bytes > 0


@pytest.mark.parametrize("chunked", [False, True])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_window_layer_shows_what_its_queries_see(chunked: bool, data: st.DataObject) -> None:
    """Against a buffer of everything, whatever is appended and taken back."""
    sight, slack = Sight(data.draw(st.integers(1, 9)), chunked), data.draw(st.integers(1, 6))
    shape, slots = KVShape(1, 1, 1, torch.float32), sight.tokens + 2 * slack
    layer = WindowLayer(Buffer(shape, slots, torch.device("cpu")), sight, slack)
    text: list[float] = []
    mark = 0
    for _ in range(data.draw(st.integers(1, 12))):
        new = data.draw(st.integers(1, slack) if text else st.integers(1, 30))
        values = torch.arange(mark, mark + new, dtype=torch.float32).reshape(1, 1, -1, 1)
        mark += new
        shown = layer.append(values, -values)
        text += values.flatten().tolist()
        start = len(text) - new
        assert shown.tokens == len(text)
        assert shown.first <= max(0, sight.first(start))
        assert shown.key.flatten().tolist() == text[shown.first :]
        mask = sight_mask(sight, start, shown.first, len(text), 1, values)
        for row, place in enumerate(range(start, len(text))):
            seen = [shown.first + i for i, hidden in enumerate(mask[row].tolist()) if not hidden]
            assert seen == list(range(max(0, sight.first(place)), place + 1))
        back = data.draw(st.integers(0, min(slack, new - 1)))
        layer.settle(len(text) - back)
        text = text[: len(text) - back]
        assert layer.contents[0].flatten().tolist() == text[max(0, sight.first(len(text))) :]


def test_a_layer_that_sees_otherwise_than_it_tells_is_refused() -> None:
    config = MistralConfig(**SHAPE, vocab_size=64, num_hidden_layers=2, sliding_window=9)
    model = AutoModelForCausalLM.from_config(config)
    model.model.layers[1].self_attn.config = MistralConfig(
        **SHAPE, vocab_size=64, num_hidden_layers=2, sliding_window=12
    )
    with pytest.raises(ValueError, match="layer 1 sees other tokens than its configuration tells"):
        Pair.of(model)


def test_bitwise_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="exact: 'bitwise'.*its windows, states"):
        generate(windowed_pair("mistral", 9), random_prompt(12), exact="bitwise")


def test_the_live_panel_counts_the_layers_that_grow() -> None:
    lab = LiveLab(windowed_pair("gemma2", 6))
    assert {lab.controls.inputs[name].max for name in ("on_chip", "resident")} == {2}
    lab.controls.set(method="mspeckv", bits=8, on_chip=1, resident=1)
    assert "of 2 layers that grow, of 4" in lab.controls.placement.value


def test_a_window_or_a_chunk_of_no_size_is_the_whole_text() -> None:
    names = ["chunked_attention", "sliding_attention", "full_attention"]
    text = LlamaConfig(**SHAPE, num_hidden_layers=3, layer_types=names)
    assert [kind.sight for kind in kinds_of(text)] == [ALL] * 3
    text.attention_chunk_size, text.sliding_window = 16, 8
    assert [kind.sight for kind in kinds_of(text)] == [Sight(16, chunked=True), Sight(8), ALL]
