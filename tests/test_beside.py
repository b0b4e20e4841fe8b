"""A state beside attention in one layer: where both lie, what is stored, and what crosses."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import AutoModelForCausalLM, ZayaConfig

from mspeckv import KVPolicy, Pair, RunConfig, Sampling, Speculation
from mspeckv.accelerate.kept_prompts import Prefills
from mspeckv.accelerate.static_passes import can_be_static
from mspeckv.api import stream
from mspeckv.events import Round
from mspeckv.kv.full import FullCache
from mspeckv.kv.kinds import ALL, Kind, Sight, kinds_of
from mspeckv.kv.link import CopyEngine
from mspeckv.kv.shape import KVShape
from mspeckv.kv.sizes import full_sizes, packed_blocks
from mspeckv.record import Ledger
from mspeckv.testing.exactness import prefilled
from tests.random_models import SHAPE, random_prompt
from tests.test_recurrent import hybrid_pair
from tests.test_windows import assert_exact

pytestmark = pytest.mark.usefixtures("one_thread")
GREEDY = Sampling(0, stop_at_eos=False)
KINDS = (Kind(None, 1), Kind(ALL, 1), Kind(), Kind(ALL, 1), Kind(Sight(6), 1))
BOTH = KVShape(3, 2, 16, torch.float32, KINDS)
POLICY = KVPolicy(8, 1, 1, block=8, tail=4, group=16)


def test_kinds_say_both() -> None:
    pair = hybrid_pair("falcon-h1")
    assert kinds_of(pair.target.config) == (Kind(ALL, 1),) * 4
    assert (pair.layers, pair.kv_shape.states) == (4, 4)
    with prefilled(pair, random_prompt(20), RunConfig(new_tokens=8, policy=POLICY)) as tiers:
        for reader in tiers.prefilled:
            assert len(reader.cache.states) == 4
            # a recorded pass would not copy states
            assert not can_be_static(reader.seat)


def text_left(
    tokens: list[int], prompt: int, dice: random.Random | None
) -> tuple[tuple[int, ...], list[torch.Tensor]]:
    """What is held after passes one by one, or of random lengths and with rejected guesses."""
    with CopyEngine(Ledger(), None) as link:
        cache, at = FullCache(BOTH, POLICY, len(tokens), link, torch.device("cpu")), 0
        while at < len(tokens):
            right, wrong = (1, 0) if at else (prompt, 0)
            if dice is not None and at:
                room = cache.room(at)
                assert room
                right = min(dice.randint(1, 5), room)
                wrong = min(dice.randint(0, 4), room - right)
            for new, position in cache.to_read(tokens[: at + right] + [99] * wrong):
                cache.begin_pass()
                one_pass(cache, new, position)
            at += right
            cache.settle(at)
        link.drain()
        lengths, held = cache.state()
        return lengths, [part.clone() for part in held]


def one_pass(cache: FullCache, tokens: list[int], position: int) -> None:
    """Layers whose keys tell token and position, and whose state tells every token read."""
    for index, kind in enumerate(KINDS):
        if kind.states:
            held = cache.layers[index] if kind.sight is None else cache.layers[index].beside
            before = held.conv_states[0]
            assert cache.has_previous_state(index) == (before is not None)
            read = [0.0] if before is None else before.flatten().tolist()
            for token in tokens:
                read = [(read[0] * 31 + token) % 65521]
            cache.update_conv_state(torch.tensor([[read]]), index)
        if kind.sight is not None:
            seen = torch.tensor([[t, position + i] for i, t in enumerate(tokens)])
            part = (seen[:, :1] * 0.37 + seen[:, 1:] * 0.11 + torch.arange(16)).sin()
            cache.update(part.expand(1, 2, -1, -1), -part.expand(1, 2, -1, -1), index)


def test_what_is_stored_does_not_depend_on_rounds() -> None:
    for seed in range(8):
        dice = random.Random(seed)
        prompt = dice.randint(2, 30)
        tokens = random_prompt(prompt + 40, seed=seed)
        lengths, steady = text_left(tokens, prompt, None)
        others, uneven = text_left(tokens, prompt, dice)
        assert lengths == others, seed
        assert lengths == (len(tokens),) * 8
        for one, other in zip(steady, uneven, strict=True):
            assert torch.equal(one, other), seed


def test_bytes_are_those_of_the_attention_alone() -> None:
    """Predicted, allocated, and fetched by every pass over offloaded layers."""
    pair, prompt = hybrid_pair("falcon-h1"), random_prompt(40)
    policy = KVPolicy(8, 1, 1, block=8, tail=4, group=16)
    with CopyEngine(Ledger(), None) as link:
        cache = FullCache(pair.kv_shape, policy, 100, link, torch.device("cpu"))
        record = cache.pipeline.record_bytes
        predicted = full_sizes(pair.kv_shape, policy, 100)
        for place, count in cache.allocated().items():
            assert count == getattr(predicted, place), place
    for method in ("autoregressive", "mspeckv"):
        config = RunConfig(
            method=method, new_tokens=24, policy=policy, sampling=GREEDY,
            speculation=Speculation(4, 2, chunk=4, budget=16, recent=4, sinks=2, window=8),
        )  # fmt: skip
        settled, found = len(prompt) - 1, 0
        for event in stream(pair, prompt, config):
            if isinstance(event, Round):
                passes = sum(one.tier == 2 for one in event.passes)
                whole = 2 * packed_blocks(policy, settled) * record
                fetched = event.link_bytes("verify")
                assert fetched == passes * whole, (method, passes)
                settled, found = settled + len(event.tokens), found + fetched
        assert found > 0


def test_a_kept_prompt_is_read_again() -> None:
    """Its keys and values would come without the states."""
    pair, prompt = hybrid_pair("falcon-h1"), random_prompt(40)
    config, kept = RunConfig(new_tokens=8, policy=POLICY, sampling=GREEDY), Prefills()
    texts = []
    for _ in range(2):
        events = list(stream(pair, prompt, config, prefills=kept))
        texts.append([t for one in events if isinstance(one, Round) for t in one.tokens])
    assert texts[0] == texts[1]
    assert not kept.shared
    assert kept.bytes == 0


def test_a_state_beside_a_window() -> None:
    """ZAYA's keys come out of its convolution's state; two of four layers see a window."""
    torch.manual_seed(0)
    shape = {**SHAPE, "vocab_size": 64, "num_hidden_layers": 4, "head_dim": 16}
    config = ZayaConfig(
        **shape, layer_types=["hybrid", "hybrid_sliding"] * 2, sliding_window=9, num_experts=4,
        moe_intermediate_size=32, router_hidden_size=16,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    pair = Pair.of(model, model)
    assert (pair.layers, pair.kv_shape.states) == (2, 4)
    speculation = Speculation(4, 2, chunk=4, budget=16, recent=4, sinks=2, window=8)
    policy = KVPolicy(8, 1, block=16, tail=4, group=16)
    assert_exact(pair, random_prompt(30), policy, speculation, 12)
