"""What came in by a door is exact, independent of rounds, and counts its bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from mspeckv import KVPolicy, Round, RunConfig, RunSummary, Sampling, Speculation, generate, stream
from mspeckv.accelerate.graphs import Direct
from mspeckv.accelerate.kept_prompts import Prefills
from mspeckv.accelerate.workspace import plug_runners
from mspeckv.api import engine_of
from mspeckv.decoding.fits import predict
from mspeckv.decoding.speculate import Emission
from mspeckv.extensions.attended_tokens import attended
from mspeckv.extensions.hot_chunks import RECALL, HotChunkCache
from mspeckv.extensions.rotated_codec import hadamard, lloyd_table
from mspeckv.kv.blocks import Room
from mspeckv.kv.codec import codec_of
from mspeckv.kv.doors import codecs, guessers, placements, policies, tier1_caches
from mspeckv.kv.placement import ResidentLayer
from mspeckv.kv.quantize import pack_bits, unpack_bits
from mspeckv.kv.shape import KVShape
from mspeckv.testing import (
    SMALL,
    check_bytes,
    check_codec,
    check_exactness,
    check_path_independence,
    tiny_pair,
    tiny_prompt,
)

TURNED = ("rotated", "lloyd", "rotated-sketch", "lloyd-sketch")
SMALL_BLOCKS: dict[str, Any] = {"resident": 1, "block": 16, "group": 16, "tail": 8}
GREEDY = Sampling(0, stop_at_eos=False)
HOT = replace(SMALL, tier1="hot chunks", refresh=1)
ATTENDED = replace(SMALL, retrieval="attended", chunk=1, refresh=1)


@pytest.mark.parametrize("codec", ["kivi", *TURNED])
@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_a_codec_keeps_blocks_apart_and_bytes_independent(codec: str, bits: int) -> None:
    policy = KVPolicy(bits, codec=codec, **SMALL_BLOCKS)
    check_codec(policy)
    check_path_independence(policy, seeds=3)


@pytest.mark.parametrize(("codec", "bits"), [("kivi", 3), *((name, 4) for name in TURNED)])
def test_a_codec_changes_no_distribution_and_counts_its_bytes(codec: str, bits: int) -> None:
    policy = KVPolicy(bits, codec=codec, **SMALL_BLOCKS)
    check_bytes(policy)
    check_exactness(policy, samples=600)


@pytest.mark.parametrize("guess", [HOT, ATTENDED], ids=["hot chunks", "attended"])
def test_what_tier_1_reads_changes_no_distribution(guess: Speculation) -> None:
    policy = KVPolicy(8, **SMALL_BLOCKS)
    check_bytes(policy, guess)
    check_exactness(policy, guess, samples=600)


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_of_any_width_come_back(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (3, 2, 16, 8), dtype=torch.uint8)
    packed = pack_bits(codes, bits)
    assert packed.shape == (3, 2, 16 * bits // 8, 8)
    out = torch.empty(codes.shape)
    unpack_bits(packed, bits, out)
    assert torch.equal(out, codes.float())


@pytest.mark.parametrize("dim", [8, 40, 64, 96])
def test_a_hadamard_matrix_is_its_own_inverse(dim: int) -> None:
    matrix = hadamard(torch.eye(dim))
    assert torch.allclose(matrix @ matrix, torch.eye(dim), atol=1e-6)
    assert torch.allclose(matrix, matrix.T, atol=1e-6)
    size = dim & -dim
    assert torch.allclose(matrix[:size, :size].abs(), torch.full((size, size), size**-0.5))


def test_lloyds_values_are_those_of_the_paper() -> None:
    # Max, "Quantizing for minimum distortion", 1960, table I: 2 and 4 values
    two, four = (lloyd_table(bits, torch.device("cpu")) for bits in (1, 2))
    assert torch.allclose(two, torch.tensor([-0.7980, 0.7980]), atol=1e-3)
    assert torch.allclose(four, torch.tensor([-1.510, -0.4528, 0.4528, 1.510]), atol=1e-3)


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_turning_spreads_a_loud_channel(bits: int) -> None:
    """Eight channels louder than the rest: per token, turned codes lose less than plain ones."""
    shape = KVShape(1, 2, 64, torch.float32)
    key = torch.randn(1, 2, 128, 64, generator=torch.Generator().manual_seed(0))
    key[..., :8] *= 5
    losses = {}
    for name in ("kivi", "rotated", "lloyd"):
        codec = codec_of(shape, KVPolicy(bits, codec=name))
        out = torch.empty_like(key), torch.empty_like(key)
        held = codec.turn(key)
        codec.decode(codec.encode(held, held), *out)
        # values are packed per token by every codec here
        losses[name] = float((codec.turn_back(out[1]) - key).norm() / key.norm())
    assert losses["rotated"] < losses["kivi"]
    if bits == 2:
        # where codes are few, where they lie matters
        assert losses["lloyd"] < losses["rotated"]


def test_a_sketch_makes_scores_right_on_average() -> None:
    """Codes shrink what they quantize: scores over them are too small, and a sketch mends it."""
    shape = KVShape(1, 4, 64, torch.float32)
    key = torch.randn(1, 4, 512, 64, generator=torch.Generator().manual_seed(0))
    slopes = {}
    for name, bits in (("lloyd", 2), ("lloyd-sketch", 3)):
        # the same two bits of codes; the third one is the sketch's
        codec = codec_of(shape, KVPolicy(bits, codec=name))
        out = torch.empty_like(key), torch.empty_like(key)
        held = codec.turn(key)
        codec.decode(codec.encode(held, held), *out)
        # queries that are the keys: the part of a score that shrinks
        slopes[name] = float((held * out[0]).sum() / held.square().sum())
    assert slopes["lloyd"] < 0.93
    assert abs(slopes["lloyd-sketch"] - 1) < 0.02


@pytest.mark.parametrize("codec", ["lloyd", "one of yours"])
def test_a_codec_has_no_full_width(codec: str) -> None:
    """Else a lossy one would be taken for lossless, and its blocks not end the rounds."""
    for widths in ({"bits": "full"}, {"k_bits": "full"}, {"bits": 4, "v_bits": "full"}):
        with pytest.raises(ValueError, match=f"'{codec}' is not allowed; it packs 8, 4, 3 or 2"):
            KVPolicy(codec=codec, **widths)
    assert KVPolicy("full", k_bits=8, v_bits=4, codec=codec).widths == (8, 4)
    with pytest.raises(ValueError, match="codec: 'lloyd' is not allowed; nibble planes"):
        KVPolicy(8, nibble=True, codec="lloyd")


@pytest.mark.parametrize(
    ("policy", "guess"),
    [
        (KVPolicy(4, codec="rotated", **SMALL_BLOCKS), SMALL),
        (KVPolicy(4, codec="lloyd-sketch", **SMALL_BLOCKS), SMALL),
        (KVPolicy(8, **SMALL_BLOCKS), ATTENDED),
        (KVPolicy(8, **SMALL_BLOCKS), HOT),
    ],
    ids=["rotated", "lloyd-sketch", "attended", "hot chunks"],
)
def test_static_passes_say_the_same(policy: KVPolicy, guess: Speculation) -> None:
    engine = engine_of(tiny_pair())
    before = engine.hooks

    def run() -> RunSummary:
        return generate(
            tiny_pair(), tiny_prompt(), policy=policy, speculation=guess, new_tokens=24,
            sampling=GREEDY,
        )  # fmt: skip

    ordinary = run()
    try:
        engine.hooks = plug_runners(before, Direct)
        fixed, again = run(), run()
    finally:
        engine.hooks = before
        engine.give_back()
    assert fixed.tokens == again.tokens == ordinary.tokens
    assert fixed.rounds == again.rounds == ordinary.rounds


def test_attended_tokens_are_those_that_get_most_attention() -> None:
    queries, keys = torch.randn(2, 5, 8), torch.randn(2, 12, 1, 8)
    weights = torch.tensor([1.0, 1, 1, 0, 0])
    found = attended(queries, keys, weights)
    shares = (queries[:, :3] @ keys[:, :, 0].mT * 8**-0.5).softmax(-1).sum(1)
    assert torch.allclose(found, shares, atol=1e-6)
    by_four = attended(queries, keys.reshape(2, 3, 4, 8), weights)
    assert torch.allclose(by_four, shares.unflatten(1, (3, 4)).sum(-1), atol=1e-6)


def hot_run(guess: Speculation, prefills: Prefills | None = None) -> tuple[RunSummary, list[Round]]:
    config = RunConfig(
        "mspeckv", 40, KVPolicy("full", block=16, tail=8), speculation=guess, sampling=GREEDY
    )
    events = list(stream(tiny_pair(), tiny_prompt(), config, prefills=prefills))
    last = events[-1]
    assert isinstance(last, RunSummary)
    return last, [event for event in events if isinstance(event, Round)]


def test_hot_chunks_are_the_chunks_of_retrieval_and_cross_once() -> None:
    plain, _ = hot_run(replace(SMALL, refresh=1))
    hot, rounds = hot_run(HOT)
    # the same choices of the same floats: not a guess differs
    assert hot.rounds == plain.rounds
    assert [(t.proposed, t.accepted) for t in hot.tiers] == [
        (t.proposed, t.accepted) for t in plain.tiers
    ]
    passes = [one for event in rounds for one in event.passes if one.tier == 1]
    found, missed = sum(one.hits for one in passes), sum(one.misses for one in passes)
    shape = tiny_pair().kv_shape
    chunk = HOT.chunk * shape.token_bytes // shape.heads
    recalled = sum(event.link_bytes(RECALL) for event in rounds)
    # the last refresh is counted by tier 1's next pass, which there may not be
    assert recalled // chunk >= missed > 0
    assert found > missed


def test_hot_chunks_taken_up_from_a_kept_prompt_go_on_alike() -> None:
    prefills = Prefills()
    first, rounds = hot_run(HOT, prefills)
    again, others = hot_run(HOT, prefills)
    assert first.tokens == again.tokens
    assert [one.link_bytes(RECALL) for one in rounds] == [one.link_bytes(RECALL) for one in others]


def test_hot_chunks_of_another_buffer_take_nothing_over() -> None:
    class Roomier(HotChunkCache):
        """Holds every chunk."""

        room_for_each = 1000

    tier1_caches.register("roomier")(Roomier)
    try:
        prefills = Prefills()
        first, _ = hot_run(HOT, prefills)
        again, _ = hot_run(replace(HOT, tier1="roomier"), prefills)
    finally:
        tier1_caches.unregister("roomier")
    assert first.rounds == again.rounds


def test_hot_chunks_are_counted_on_the_host() -> None:
    engine, pair = engine_of(tiny_pair()), tiny_pair()
    hosts = [predict(engine, pair, RunConfig(speculation=guess), 61).host for guess in (SMALL, HOT)]
    # 60 - 8 tokens before the recent window
    assert hosts[1] - hosts[0] == 52 * pair.kv_shape.token_bytes * pair.layers


def test_a_placement_of_ones_own() -> None:
    made = []

    @placements.register("beside")
    class Beside(ResidentLayer):
        """Offloaded in name."""

        def __init__(self, room: Room, index: int) -> None:
            super().__init__(room, index)
            made.append(index)

    policy = KVPolicy(8, on_chip=1, block=16, tail=8, elsewhere="beside")
    try:
        found = generate(tiny_pair(), tiny_prompt(), policy=policy, sampling=GREEDY)
        check_path_independence(policy, seeds=2)
    finally:
        placements.unregister("beside")
    assert made[:2] == [1, 2]
    usual = generate(
        tiny_pair(), tiny_prompt(), policy=replace(policy, elsewhere="offloaded"), sampling=GREEDY
    )
    assert found.tokens == usual.tokens
    assert found.link.to_device_bytes == 0 < usual.link.to_device_bytes


def test_a_guesser_of_ones_own() -> None:
    class Always:
        """Guesses the same token, for sure."""

        tier = 0

        def __init__(self, vocab: int) -> None:
            self.row = torch.zeros(vocab)
            self.row[7] = 1

        def round(self, prefix: list[int], limit: int) -> Emission:
            return Emission([7] * limit, [self.row] * limit, [0] * limit)

        def settle(self, length: int) -> None:
            pass

    guessers.register("always")(lambda speculation, vocab, device: Always(vocab))
    try:
        check_exactness(speculation=replace(SMALL, tier0="always"), samples=600)
    finally:
        guessers.unregister("always")


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"policy": KVPolicy(codec="zip")}, "codec: 'zip' is not allowed; use one of kivi"),
        (
            {"policy": KVPolicy(elsewhere="moon")},
            "placement: 'moon' is not allowed; use one of on-chip",
        ),
        ({"speculation": Speculation(tier1="moon")}, "tier1: 'moon' is not allowed; use one of"),
        ({"speculation": Speculation(tier0="moon")}, "tier0: 'moon' is not allowed; use one of"),
        (
            {"speculation": Speculation(retrieval="moon")},
            "retrieval: 'moon' is not allowed; use one of attention",
        ),
    ],
)
def test_a_name_that_no_door_knows_is_refused(settings: dict[str, Any], refused: str) -> None:
    with pytest.raises(ValueError, match=refused):
        generate(tiny_pair(), tiny_prompt(), **settings)


@pytest.mark.parametrize("field", ["codec", "elsewhere"])
def test_a_name_is_a_name(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}: 3 is not allowed; use a name"):
        KVPolicy(**{field: 3})  # type: ignore[arg-type]


def test_the_doors_hold_what_there_is() -> None:
    assert codecs.names()[0] == "kivi"
    assert set(TURNED) < set(codecs.names())
    assert {"on-chip", "resident", "offloaded", "nibble"} <= set(placements.names())
    assert {"attention", "newest", "attended"} <= set(policies.names())
    assert {"retrieval", "hot chunks", "nibble"} <= set(tier1_caches.names())
    assert "lookup" in guessers.names()
    with pytest.raises(ValueError, match="codec: '' is not allowed; use a name"):
        codecs.register("")
