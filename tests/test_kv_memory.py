"""The price of a setting, its KV on the device: predicted, allocated, reported, modelled alike."""

from __future__ import annotations

import json
import random
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from mspeckv import KVPolicy, Memory, Prefill, RunConfig, RunSummary, Sampling, Speculation
from mspeckv.api import engine_of, stream
from mspeckv.decoding.fits import predict
from mspeckv.decoding.hooks import Caches, Engine, Hooks
from mspeckv.decoding.tiers import build_tiers
from mspeckv.kv.link import CopyEngine
from mspeckv.models.pair import Pair
from mspeckv.record import Ledger, Recorder
from mspeckv.settings import Width
from mspeckv.testing import SMALL, tiny_pair, tiny_prompt
from mspeckv_study.cli import main
from mspeckv_study.whatif import ModelShape, what_if
from mspeckv_study.whatif.machines import HARDWARE
from tests.test_kept_prompts import policies

PAIR, PROMPT = tiny_pair(layers=4), tiny_prompt(150)


def allocated(config: RunConfig) -> int:
    """Bytes of every tensor of a run's caches that a device would hold."""
    made: list[Caches] = []

    @contextmanager
    def lend(engine: Any, pair: Pair, key: Any, link: Any, allocate: Any) -> Any:
        made.append(allocate())
        yield made[0]

    engine = replace(engine_of(PAIR), hooks=replace(engine_of(PAIR).hooks, lend=lend))
    recorder = Recorder(Ledger())
    with CopyEngine(recorder.ledger, None) as link, ExitStack() as lent:
        build_tiers(engine, config, PAIR, PROMPT, link, recorder, lent=lent)
    full, middle, draft = made[0].full, made[0].middle, made[0].draft
    sizes = full.allocated()
    sizes.pop("offloaded")
    found = sum(sizes.values())
    return found + sum(cache.bytes for cache in (middle, draft) if cache is not None)


def test_kv_on_the_device_is_what_is_allocated() -> None:
    dice = random.Random(3)
    guesses = (
        SMALL, replace(SMALL, budget=48, window=40), replace(SMALL, retrieval="attended", chunk=1),
        replace(SMALL, tier1="hot chunks"), replace(SMALL, tier0="lookup"),
        replace(SMALL, draft_vocab=16),
    )  # fmt: skip
    for method, policy in policies(40):
        config = RunConfig(method, 20, policy, dice.choice(guesses), Sampling(0))
        need = predict(engine_of(PAIR), PAIR, config, len(PROMPT))
        assert need.kv_device == allocated(config), config
        apart = need.weights + need.workspace + need.runtime + need.head
        assert need.device == need.kv_device + apart


def test_nibbles_upper_planes_and_tier_1_upon_them_count_once() -> None:
    policy = KVPolicy(8, 1, 1, block=16, group=8, nibble=True)
    config = RunConfig("mspeckv", 20, policy, replace(SMALL, tier1="nibble"), Sampling(0))
    assert predict(engine_of(PAIR), PAIR, config, len(PROMPT)).kv_device == allocated(config)


def test_a_run_reports_it_in_every_event() -> None:
    config = RunConfig("mspeckv", 8, KVPolicy(8, 1, 1, block=16), SMALL, Sampling(0))
    first, *_, last = stream(PAIR, PROMPT, config)
    assert isinstance(first, Prefill)
    assert isinstance(last, RunSummary)
    expected = predict(engine_of(PAIR), PAIR, config, len(PROMPT)).kv_device
    assert first.memory.kv_device_bytes == last.memory.kv_device_bytes == expected
    assert json.loads(json.dumps(last.to_json()))["memory"]["kv_device_bytes"] == expected


def test_results_of_earlier_versions_do_not_know_it() -> None:
    now = asdict(Memory(1, 2, 3, 9, 4))
    del now["kv_device_bytes"]
    assert Memory(**now).kv_device_bytes is None


@pytest.fixture(scope="module")
def default_shapes() -> tuple[ModelShape, ModelShape, Any]:
    """The default pair's shapes, and a pair of them without weights."""
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192,
        tie_word_embeddings=True,
    )  # fmt: skip
    draft = LlamaConfig(**{**config.to_dict(), "num_hidden_layers": 2})

    class Bare(torch.nn.Module):
        def __init__(self, config: LlamaConfig) -> None:
            super().__init__()
            self.config, self.dtype, self.device = config, torch.float32, torch.device("cpu")

    pair = Pair(Bare(config), Bare(draft), None, "target", "draft")
    return ModelShape.of(config), ModelShape.of(draft), pair


def test_a_forecast_has_the_same_number(
    default_shapes: tuple[ModelShape, ModelShape, Any],
) -> None:
    shape, draft, pair = default_shapes
    dice = random.Random(4)
    engine = Engine(Hooks())
    for _ in range(60):
        method = dice.choice(["autoregressive", "vanilla", "triforce", "mspeckv"])
        bits: Width = dice.choice([8, 4, 2]) if method != "triforce" else "full"
        on_chip = dice.randint(0, 30)
        policy = KVPolicy(
            bits, on_chip, 0 if bits == "full" else dice.randint(0, 30 - on_chip),
            residency=dice.choice(["static", "lru"]),
        )  # fmt: skip
        if bits == 8 and dice.random() < 0.5:
            policy = replace(policy, residency="static", nibble=True)
        guess = Speculation(
            gamma=dice.choice([2, 8]), draft_gamma=dice.choice([1, 3]),
            budget=dice.choice([128, 256]), retrieval=dice.choice(["attention", "attended"]),
            draft_vocab=dice.choice([0, 8192]),
        )  # fmt: skip
        prompt, tokens = dice.choice([100, 1024, 2048]), dice.choice([16, 64])
        need = predict(engine, pair, RunConfig(method, tokens, policy, guess), prompt)
        found = what_if(
            shape, replace(HARDWARE["laptop-cpu"], name="x"), draft=draft, method=method,
            prefill=prompt, new_tokens=tokens, policy=policy, speculation=guess, control=False,
        )  # fmt: skip
        assert found.kv_device_bytes == need.kv_device == found.memory.kv_device
        assert found.host_bytes == need.host


def test_arrays_of_settings_are_forecast_at_once(
    default_shapes: tuple[ModelShape, ModelShape, Any],
) -> None:
    shape, draft, _ = default_shapes
    found = what_if(shape, "laptop-cpu", draft=draft, prefill=1024, resident=[0, 8, 15], on_chip=15)
    each = [
        what_if(shape, "laptop-cpu", draft=draft, prefill=1024, resident=r, on_chip=15)
        for r in (0, 8, 15)
    ]
    assert found.kv_device_bytes.tolist() == [one.kv_device_bytes for one in each]
    assert len(set(found.kv_device_bytes.tolist())) == 3


def test_the_command_line_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whatif", "--target", "llama-2-7b", "--on-chip", "8", "--json"]) == 0
    memory = json.loads(capsys.readouterr().out)["memory"]
    parts = ("on_chip", "resident", "tail", "slots", "scratch", "retrieval", "streaming")
    assert memory["kv_device_bytes"] == sum(memory[f"{name}_bytes"] for name in parts)
