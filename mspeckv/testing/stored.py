"""Is what is stored right: codes, bytes, and that they do not depend on rounds and rejections."""

from __future__ import annotations

import random

import torch

from mspeckv.api import stream
from mspeckv.events import Round
from mspeckv.kv.codec import codec_of
from mspeckv.kv.full import FullCache
from mspeckv.kv.link import CopyEngine
from mspeckv.kv.shape import KVShape
from mspeckv.kv.sizes import full_sizes, packed_blocks
from mspeckv.kv.tier1 import Tier1Room, tier1_caches
from mspeckv.record import Ledger
from mspeckv.settings import KVPolicy, RunConfig, Sampling, Speculation
from mspeckv.testing.tiny import SMALL, tiny_pair, tiny_prompt

_SHAPE = KVShape(3, 2, 16, torch.float32)
_CPU = torch.device("cpu")


def _noise(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), device="cpu")


def check_codec(policy: KVPolicy) -> None:
    """A codec gives back nearly what it took, block by block, in axes that keep scores.

    Raises:
        AssertionError: an error as large as the numbers themselves; a block whose record depends
            on its neighbours; axes that are not orthogonal, or rows that depend on others.
    """
    codec = codec_of(_SHAPE, policy)
    key, value = _noise(2, 1, _SHAPE.heads, 4 * codec.block, _SHAPE.dim).unbind(0)
    records = codec.encode(key, value)
    assert records.shape == (4, codec.record_bytes), f"records of {list(records.shape)}"
    first, rest = (
        codec.encode(*(part[:, :, piece] for part in (key, value)))
        for piece in (slice(codec.block), slice(codec.block, None))
    )
    assert torch.equal(records, torch.cat([first, rest])), "a record depends on other blocks"
    outs = torch.full_like(key, torch.nan), torch.full_like(value, torch.nan)
    codec.decode(records, *outs)
    for name, part, out in (("keys", key, outs[0]), ("values", value, outs[1])):
        error = float((part - out).norm() / part.norm())
        assert error < 1, f"{name} come back with an error of {error:.0%}"
    turned = codec.turn(key)
    assert torch.allclose(codec.turn_back(turned), key, atol=1e-5), "turn_back undoes no turn"
    scores, same = key @ value.mT, turned @ codec.turn(value).mT
    assert torch.allclose(scores, same, atol=1e-4), "turning changes scores"
    alone = torch.cat([codec.turn(row) for row in key.split(1, dim=2)], 2)
    assert torch.equal(alone, turned), "how a row is turned depends on other rows"


def check_path_independence(policy: KVPolicy, seeds: int = 10) -> None:
    """Stored bytes depend on the tokens alone, not on how passes and rejections cut them.

    Raises:
        AssertionError: two ways to the same tokens left other bytes.
    """
    for seed in range(seeds):
        dice = random.Random(seed)
        prompt = dice.randint(1, 50)
        kv = _noise(2, _SHAPE.layers, _SHAPE.heads, prompt + 60, _SHAPE.dim, seed=seed)
        lengths, steady = _filled(policy, kv, prompt, None)
        others, uneven = _filled(policy, kv, prompt, dice)
        assert lengths == others, f"{lengths} or {others}"
        for one, other in zip(steady, uneven, strict=True):
            assert torch.equal(one, other), f"other bytes after other rounds (seed {seed})"


def _filled(
    policy: KVPolicy, kv: torch.Tensor, prompt: int, dice: random.Random | None
) -> tuple[tuple[int, ...], list[torch.Tensor]]:
    """What a cache holds after passes over ``kv`` ``[2, N, H, S, D]``: one by one, or at random."""
    total = kv.shape[3]
    with CopyEngine(Ledger(), None) as link:
        cache, at, read = FullCache(_SHAPE, policy, total, link, _CPU), 0, prompt
        while at < total:
            kept = dice.randint(1, read) if dice is not None and at else read
            guesses = kv[:, :, :, at : at + read].clone()
            guesses[:, :, :, kept:] = 1e4
            cache.begin_pass()
            for layer in range(_SHAPE.layers):
                cache.layers[layer].append(*guesses[:, layer, None].unbind(0))
            at += kept
            cache.settle(at)
            read = min(total - at, cache.room(at))
            read = dice.randint(1, max(1, read)) if dice is not None else 1
        link.drain()
        lengths, held = cache.state()
        return lengths, [part.clone() for part in held]


def check_bytes(policy: KVPolicy, speculation: Speculation | None = None) -> None:
    """What is allocated is what was predicted, and what crosses the link is what is stored.

    Raises:
        AssertionError: a prediction is off, or a verification fetched other bytes than the blocks
            of the offloaded layers.
    """
    speculation, pair, prompt = speculation or SMALL, tiny_pair(), tiny_prompt()
    shape = pair.kv_shape
    predicted = full_sizes(shape, policy, 100)
    with CopyEngine(Ledger(), None) as link:
        cache = FullCache(shape, policy, 100, link, _CPU)
        for place, count in cache.allocated().items():
            assert count == getattr(predicted, place), f"{place}: {count} bytes are allocated"
        kind = tier1_caches.find(speculation.tier1)
        room = Tier1Room(shape, speculation, len(prompt) - 1, 40)
        there, (on_device, _) = kind(room, cache, _CPU).bytes, kind.sizes(room)
        assert there == on_device, f"tier 1 allocates {there} bytes and predicts {on_device}"
        record = cache.pipeline.record_bytes
    config = RunConfig(
        new_tokens=40, policy=policy, speculation=speculation,
        sampling=Sampling(0, stop_at_eos=False),
    )  # fmt: skip
    offloaded, settled = policy.placement(shape.layers).count("offloaded"), len(prompt) - 1
    for event in stream(pair, prompt, config):
        if isinstance(event, Round):
            fetched, blocks = event.link_bytes("verify"), packed_blocks(policy, settled)
            if policy.residency == "static":
                expected = offloaded * blocks * record
                assert fetched == expected, f"{fetched} bytes fetched of {expected}"
            settled += len(event.tokens)
