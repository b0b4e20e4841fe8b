"""What is stored depends on the tokens alone, and what is on the device does not cross the link."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mspeckv import KVPolicy, RunConfig, Sampling, Speculation, generate, stream
from mspeckv.accelerate.nibble import NibbleLayer
from mspeckv.events import Round
from mspeckv.kv.full import FullCache
from mspeckv.kv.link import CopyEngine
from mspeckv.kv.offloaded import OffloadedLayer
from mspeckv.kv.placement import ResidentLayer
from mspeckv.kv.shape import KVShape
from mspeckv.record import Ledger
from mspeckv.settings import RESIDENCIES, Width
from tests.random_models import random_pair, random_prompt

HEADS, DIM, LAYERS = 2, 16, 4
GREEDY = Sampling(temperature=0, stop_at_eos=False)
WIDTHS: list[Width] = [8, 4, 2]


@st.composite
def stores(draw: st.DrawFn) -> KVPolicy:
    """Every kind of packed layer."""
    on_chip = draw(st.integers(0, 1))
    kind = draw(st.sampled_from(["plain", "nibble", "lru"]))
    bits: Width = 8 if kind == "nibble" else draw(st.sampled_from(WIDTHS))
    return KVPolicy(
        bits,
        on_chip,
        draw(st.integers(0, LAYERS - on_chip)),
        block=16,
        group=8,
        tail=draw(st.integers(0, 20)),
        v_bits=None if kind == "nibble" else draw(st.sampled_from([None, *WIDTHS])),
        nibble=kind == "nibble",
        residency="lru" if kind == "lru" else "static",
    )


Pass = tuple[int, int, int]
"""Tokens read, tokens of them settled, layers reached before a cancel."""


def stored_bytes(policy: KVPolicy, kv: torch.Tensor, passes: list[Pass]) -> list[bytes]:
    """What layers hold after passes over the keys and values ``[2, layers, H, S, D]``."""
    shape = KVShape(LAYERS, HEADS, DIM, torch.float32)
    junk = torch.full((1, HEADS, 1, DIM), 1e4)
    with CopyEngine(Ledger(), None) as link:
        cache = FullCache(shape, policy, kv.shape[3], link, torch.device("cpu"))
        at = 0
        for read, kept, reached in passes:
            cache.begin_pass()
            rejected = junk.expand(1, HEADS, read - kept, DIM)
            for layer in range(reached):
                key, value = kv[:, layer, None, :, at : at + kept].unbind(0)
                seen = cache.update(
                    torch.cat([key, rejected], 2), torch.cat([value, rejected], 2), layer
                )
                assert torch.equal(seen[0][:, :, at : at + kept], key)
            if reached == LAYERS:
                at += kept
            cache.settle(at)
        link.drain()
        return [content(layer) for layer in cache.layers if not hasattr(layer, "buffer")]


def content(layer: object) -> bytes:
    """The stored blocks of a packed layer, wherever they are."""
    parts: list[torch.Tensor] = []
    if isinstance(layer, ResidentLayer | OffloadedLayer):
        parts = [layer.records[: layer.blocks]]
    if isinstance(layer, NibbleLayer):
        parts.append(layer.upper[: layer.blocks])
    assert parts
    return b"".join(part.contiguous().numpy().tobytes() for part in parts)


@settings(max_examples=60, deadline=None)
@given(policy=stores(), prompt=st.integers(1, 50), seed=st.integers(0, 10_000))
def test_stored_bytes_do_not_depend_on_rounds_rejections_and_cancels(
    policy: KVPolicy, prompt: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    total = prompt + 60
    kv = torch.randn(2, LAYERS, HEADS, total, DIM, generator=generator)
    one_by_one: list[Pass] = [(prompt, prompt, LAYERS)] + [(1, 1, LAYERS)] * 60
    rounds: list[Pass] = [(prompt, prompt, LAYERS)]
    dice, at = random.Random(seed), prompt
    while at < total:
        boundary = (at - policy.tail) // 16 + 1 if at >= policy.tail else 1
        room = min(boundary * 16 + policy.tail - at, total - at)
        read = dice.randint(1, room)
        kept = dice.randint(1, read)
        reached = LAYERS if dice.random() < 0.8 else dice.randint(0, LAYERS - 1)
        rounds.append((read, kept, reached))
        at += kept if reached == LAYERS else 0
    assert stored_bytes(policy, kv, one_by_one) == stored_bytes(policy, kv, rounds)


@pytest.mark.parametrize("residency", RESIDENCIES)
def test_hit_rate_of_eight_of_sixteen_layers(residency: str) -> None:
    """A cyclic scan defeats LRU: it has always just dropped the layer that comes next."""
    pair, prompt = random_pair(layers=16), random_prompt(80)
    policy = KVPolicy(8, resident=8, block=16, group=16, tail=8, residency=residency)
    summary = generate(
        pair, prompt, method="autoregressive", new_tokens=10, policy=policy, sampling=GREEDY
    )
    assert summary.residency.hit_rate == (0.5 if residency == "static" else 0.0)
    assert summary.residency.hits + summary.residency.misses == 16 * 10


def test_an_lru_cache_of_every_layer_misses_only_once() -> None:
    pair, prompt = random_pair(layers=4), random_prompt(80)
    policy = KVPolicy(8, resident=4, block=16, group=16, tail=8, residency="lru")
    events = stream(
        pair,
        prompt,
        RunConfig.build(method="autoregressive", new_tokens=30, policy=policy, sampling=GREEDY),
    )
    rounds = [event for event in events if isinstance(event, Round)]
    assert [sum(p.misses for p in done.passes) for done in rounds] == [4] + [0] * 29
    fetched = [t for done in rounds for t in done.transfers if t.direction == "to_device"]
    assert len(fetched) == 4
    static = generate(
        pair,
        prompt,
        method="autoregressive",
        new_tokens=30,
        policy=replace(policy, residency="static"),
        sampling=GREEDY,
    )
    assert static.tokens == tuple(token for done in rounds for token in done.tokens)


def test_nibble_mode_gives_int8s_tokens_over_half_its_link_bytes() -> None:
    pair, prompt = random_pair(), random_prompt(200)
    int8 = KVPolicy(8, on_chip=1, resident=1, block=16, group=16, tail=8)
    planes = replace(int8, nibble=True)
    runs = {
        name: generate(
            pair,
            prompt,
            method=method,
            new_tokens=40,
            policy=policy,
            speculation=Speculation(tier1=tier1, budget=64, recent=8),
            sampling=GREEDY,
        )
        for name, method, policy, tier1 in (
            ("int8", "autoregressive", int8, "retrieval"),
            ("planes", "autoregressive", planes, "retrieval"),
            ("retrieval", "mspeckv", planes, "retrieval"),
            ("nibble", "mspeckv", planes, "nibble"),
        )
    }
    assert len({run.tokens for run in runs.values()}) == 1
    ratio = runs["planes"].link.to_device_bytes / runs["int8"].link.to_device_bytes
    # codes / (codes + scales): 16 tokens to a K scale and 16 channels to a V scale here
    assert ratio == pytest.approx(0.5 / (1 + 4 / 16), rel=0.01)
    accepted = {name: run.accepted_per_round for name, run in runs.items()}
    assert accepted["nibble"] > accepted["retrieval"]
    assert runs["nibble"].memory.offloaded_bytes < runs["int8"].memory.offloaded_bytes


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"k_bits": 5}, "k_bits"),
        ({"nibble": True, "bits": 4}, "nibble"),
        ({"nibble": True, "v_bits": 4}, "nibble"),
        ({"nibble": 1}, "nibble"),
        ({"residency": "mru"}, "residency"),
        ({"residency": "lru", "nibble": True}, "nibble"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    settings: dict[str, object], field: str
) -> None:
    with pytest.raises(ValueError, match=field):
        KVPolicy(**settings)  # type: ignore[arg-type]


def test_tier_1_reads_planes_only_where_there_are_some() -> None:
    with pytest.raises(ValueError, match="tier1"):
        generate(random_pair(), [1, 2, 3], speculation=Speculation(tier1="nibble"))
