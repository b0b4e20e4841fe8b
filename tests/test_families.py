"""Any decoder with standard attention, in any of the three dtypes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, LlamaConfig, Phi3Config, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from mspeckv import KVPolicy, Pair, RunSummary, Sampling, Speculation, generate
from mspeckv.decoding.reader import ModelReader, Seat
from mspeckv.kv.full import FullCache
from mspeckv.kv.link import CopyEngine
from mspeckv.kv.shape import KVShape
from mspeckv.record import Ledger, Recorder
from mspeckv.settings import METHODS
from tests.random_models import FAMILIES, SHAPE, random_pair, random_prompt

GREEDY = Sampling(temperature=0, stop_at_eos=False)
SPECULATION = Speculation(gamma=5, draft_gamma=2, budget=48, recent=8)
FULL = KVPolicy("full", on_chip=1, block=16, tail=8)
POLICIES = (
    KVPolicy(8, on_chip=1, resident=1, block=16, tail=8),
    KVPolicy(4, resident=2, block=32, group=16, tail=0, v_bits=8),
    KVPolicy(8, on_chip=1, resident=1, block=16, tail=8, nibble=True),
    FULL,
)


def run(
    pair: Pair, prompt: list[int], method: str, policy: KVPolicy, count: int = 24
) -> RunSummary:
    return generate(
        pair,
        prompt,
        method=method,
        new_tokens=count,
        policy=policy,
        speculation=SPECULATION,
        sampling=GREEDY,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_output_of_every_family(family: str) -> None:
    pair, prompt = random_pair(family), random_prompt(90)
    for policy in POLICIES:
        methods = [method for method in METHODS if method != "triforce" or policy.lossless]
        outputs = {method: run(pair, prompt, method, policy, 16).tokens for method in methods}
        assert set(outputs.values()) == {outputs["autoregressive"]}, (policy, outputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_stays_within_rounding_of_the_target(dtype: torch.dtype) -> None:
    """Several tokens to a pass round otherwise than one, so ties may fall either way: each token
    must be as likely as the likeliest, up to rounding, under the same policy read one by one."""
    pair, prompt = random_pair(dtype=dtype), random_prompt(90)
    policy = KVPolicy(8, on_chip=1, resident=1, block=16, tail=8)
    summary = run(pair, prompt, "mspeckv", policy)
    tokens = [*prompt, *summary.tokens]
    recorder = Recorder(Ledger())
    shape = KVShape.of(pair.target.config, pair.dtype)
    assert shape.token_bytes == 2 * shape.heads * shape.dim * 2
    with CopyEngine(recorder.ledger, None) as link, torch.inference_mode():
        cache = FullCache(shape, policy, len(tokens), link, pair.device)
        reader = ModelReader(Seat(2, "decode", pair.target, cache, recorder))
        reader.prefill(prompt[:-1])
        for end in range(len(prompt), len(tokens)):
            logits = reader.read(tokens[:end], rows=1)[0].float()
            reader.settle(end)
            spread = float(logits.max() - logits.min())
            assert float(logits.max() - logits[tokens[end]]) <= 0.03 * spread


ROPE = {"rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
BANDS = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
LONGROPE: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "original_max_position_embeddings": 64,
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [1.0 + 0.5 * i for i in range(8)],
}


def rotary_pair(
    kind: type[PretrainedConfig], rope: dict[str, Any], draft: PreTrainedModel | None = None
) -> Pair:
    """Two models with rotary positions of one kind."""
    shape = {**SHAPE, "vocab_size": 64, "num_hidden_layers": 3}
    torch.manual_seed(0)
    own = {"original_max_position_embeddings": 64} if kind is Phi3Config else {}
    model = AutoModelForCausalLM.from_config(kind(**shape, **own, rope_parameters=dict(rope)))
    return Pair.of(model, draft or model)


def assert_plain(pair: Pair, prompt: list[int]) -> None:
    """Every method gives plain transformers' text."""
    ids = torch.tensor([prompt])
    plain = pair.target.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False
    )
    expected = tuple(plain[0, len(prompt) :].tolist())
    assert {run(pair, prompt, method, FULL).tokens for method in METHODS} == {expected}


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", **ROPE},
        {"rope_type": "dynamic", **ROPE},
        {"rope_type": "yarn", **ROPE},
        {"rope_type": "llama3", **ROPE, **BANDS},
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_rotary_positions_beyond_the_first_training(rope: dict[str, Any]) -> None:
    assert_plain(rotary_pair(LlamaConfig, rope), random_prompt(50))


@pytest.mark.parametrize("kind", [LlamaConfig, Phi3Config])
@pytest.mark.parametrize("prompt", [40, 66])
def test_longrope_on_one_side_of_its_border(kind: type[PretrainedConfig], prompt: int) -> None:
    assert_plain(rotary_pair(kind, LONGROPE), random_prompt(prompt))


@pytest.mark.parametrize("kind", [LlamaConfig, Phi3Config])
@pytest.mark.parametrize("prompt", [41, 65])
def test_longrope_does_not_cross_its_border(kind: type[PretrainedConfig], prompt: int) -> None:
    with pytest.raises(
        ValueError, match=rf"'{prompt} \+ 24'.*original_max_position_embeddings = 64"
    ):
        run(rotary_pair(kind, LONGROPE), random_prompt(prompt), "mspeckv", FULL)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**{**SHAPE, "max_position_embeddings": 60}, vocab_size=64, num_hidden_layers=1,
                    rope_parameters={"rope_type": "dynamic", **ROPE}),
        GPT2Config(n_embd=64, n_head=4, n_layer=1, n_positions=60, vocab_size=64),
    ],
    ids=["dynamic", "table"],
)  # fmt: skip
def test_a_draft_that_runs_out_of_positions(config: PretrainedConfig) -> None:
    draft = AutoModelForCausalLM.from_config(config)
    pair, prompt = rotary_pair(LlamaConfig, {"rope_type": "default", "rope_theta": 1e4}, draft), 37
    with pytest.raises(ValueError, match="max_position_embeddings = 60 the draft"):
        run(pair, random_prompt(prompt), "mspeckv", FULL)
    run(pair, random_prompt(prompt), "autoregressive", FULL)
    run(pair, random_prompt(prompt - 1), "mspeckv", FULL)
