"""The kit that extensions are tested with sees what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import mspeckv.decoding.sampling
from mspeckv import KVPolicy
from mspeckv.kv.blocks import Room
from mspeckv.kv.doors import codecs, placements
from mspeckv.kv.placement import ResidentLayer
from mspeckv.kv.quantize import BlockCodec
from mspeckv.testing import (
    check_bytes,
    check_codec,
    check_exactness,
    check_path_independence,
)
from mspeckv.testing.exactness import chi_square

POLICY: dict[str, Any] = {"block": 16, "group": 16, "tail": 8}


class Leaning(BlockCodec):
    """Each block's record depends on the one before."""

    def encode(self, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        records = super().encode(key, value)
        records[1:, 0] ^= records[:-1, 0] | 1
        return records


class Losing(BlockCodec):
    """Gives back nothing."""

    def decode(self, records: torch.Tensor, key_out: torch.Tensor, value_out: torch.Tensor) -> None:
        key_out.zero_()
        value_out.zero_()


class Skewed(BlockCodec):
    """Turns into axes that are not orthogonal."""

    turns = True

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    def turn_back(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


@pytest.fixture
def register() -> Iterator[Callable[[Any], KVPolicy]]:
    """Registers a codec for one test; the policy that asks for it."""

    def add(codec: Any) -> KVPolicy:
        codecs.register("wrong")(codec)
        return KVPolicy(4, codec="wrong", **POLICY)

    yield add
    codecs.unregister("wrong")


@pytest.mark.parametrize(
    ("codec", "said"),
    [
        (Leaning, "a record depends on other blocks"),
        (Losing, "come back with an error of 100%"),
        (Skewed, "turning changes scores"),
    ],
)
def test_a_wrong_codec_is_seen(register: Callable[[Any], KVPolicy], codec: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_codec(register(codec))


def test_bytes_that_depend_on_rounds_are_seen() -> None:
    @placements.register("wrong")
    class Wrong(ResidentLayer):
        """Packs a block as soon as it is full, settled or not."""

        def __init__(self, room: Room, index: int) -> None:
            super().__init__(room, index)

        def put(self, start: int, key: torch.Tensor, value: torch.Tensor) -> None:
            super().put(start, key, value)
            if self.length - self.packed_tokens >= self.codec.block:
                self.flush()

        def settle(self, length: int) -> None:
            super().settle(max(length, self.packed_tokens))

    try:
        with pytest.raises((AssertionError, RuntimeError)):
            check_path_independence(KVPolicy(4, elsewhere="wrong", **POLICY))
    finally:
        placements.unregister("wrong")


def test_bytes_that_were_not_predicted_are_seen() -> None:
    @placements.register("wrong")
    class Wrong(ResidentLayer):
        """On the device, where a policy says elsewhere."""

        def __init__(self, room: Room, index: int) -> None:
            super().__init__(room, index)

    try:
        with pytest.raises(AssertionError, match="bytes are allocated"):
            check_bytes(KVPolicy(4, elsewhere="wrong", **POLICY))
    finally:
        placements.unregister("wrong")


def test_another_distribution_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mspeckv.decoding.sampling, "residual", lambda target, proposal: target)
    with pytest.raises(AssertionError, match="not distributed as tier 2's own"):
        check_exactness(samples=1000)


def test_chi_square_answers_where_little_was_seen() -> None:
    shares: dict[tuple[int, ...], float] = {(0,): 0.5, (1,): 0.5}
    sure: dict[tuple[int, ...], float] = {(0,): 1.0}
    assert chi_square(Counter({(2,): 1}), shares) == 0.0, "a text that cannot come"
    assert chi_square(Counter({(0,): 2, (1,): 1}), shares) == 1.0, "all texts are rare"
    assert chi_square(Counter({(0,): 30}), sure) == 1.0, "there is one text"
    assert chi_square(Counter({(0,): 90, (1,): 10}), shares) < 1e-9
