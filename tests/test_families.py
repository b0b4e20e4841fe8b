"""Any decoder with standard attention, in any of the three dtypes."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    BambaConfig,
    BertConfig,
    FalconH1Config,
    Gemma3TextConfig,
    GptOssConfig,
    Llama4TextConfig,
    MiniMaxConfig,
    PretrainedConfig,
    RecurrentGemmaConfig,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from mspeckv import KVPolicy, Pair, RunSummary, Sampling, Speculation, generate
from mspeckv.compatibility import check_decoder
from mspeckv.config import METHODS
from mspeckv.decoding.reader import ModelReader
from mspeckv.decoding.recorder import Recorder
from mspeckv.kv.cache import FullCache
from mspeckv.kv.ledger import Ledger
from mspeckv.kv.link import CopyEngine
from mspeckv.kv.shape import KVShape
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


def run(pair: Pair, prompt: list[int], method: str, policy: KVPolicy) -> RunSummary:
    return generate(
        pair,
        prompt,
        method=method,
        new_tokens=24,
        policy=policy,
        speculation=SPECULATION,
        sampling=GREEDY,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_output_of_every_family(family: str) -> None:
    pair, prompt = random_pair(family), random_prompt(90)
    for policy in POLICIES:
        methods = [method for method in METHODS if method != "triforce" or policy.lossless]
        outputs = {method: run(pair, prompt, method, policy).tokens for method in methods}
        assert set(outputs.values()) == {outputs["autoregressive"]}, (policy, outputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_unquantized_output_is_that_of_transformers(family: str) -> None:
    pair, prompt = random_pair(family), random_prompt(90)
    ids = torch.tensor([prompt])
    expected = pair.target.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=24,
        do_sample=False,
        pad_token_id=0,
    )
    assert list(run(pair, prompt, "mspeckv", FULL).tokens) == expected[0, 90:].tolist()


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
        reader = ModelReader(2, "decode", pair.target, cache, recorder)
        reader.prefill(prompt[:-1])
        for end in range(len(prompt), len(tokens)):
            logits = reader.read(tokens[:end], rows=1)[0].float()
            reader.settle(end)
            spread = float(logits.max() - logits.min())
            assert float(logits.max() - logits[tokens[end]]) <= 0.03 * spread


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Gemma3TextConfig(), "sliding_attention"),
        (GptOssConfig(), "sliding_attention"),
        (Llama4TextConfig(), "chunked_attention"),
        (RecurrentGemmaConfig(), "linear_attention|recurrent|sliding_attention"),
        (BambaConfig(), "layers"),
        (FalconH1Config(), "layers"),
        (MiniMaxConfig(), "linear_attention"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, PretrainedConfig) else "",
)
def test_families_that_do_not_qualify(config: PretrainedConfig, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"target: 'some/model' is not allowed.*({reason})"):
        check_decoder(config, "target", "some/model")


def test_an_encoder_with_a_language_head_is_refused() -> None:
    config = BertConfig(**{**SHAPE, "vocab_size": 64, "num_hidden_layers": 1})
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ValueError, match="looks ahead"):
        Pair.of(model)
