"""A machine is measured with models of every kind of layer, so that a panel opens on them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import Gemma2Config, Lfm2Config, MixtralConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from mspeckv.context import Shown
from mspeckv.kv.full import FullCache
from mspeckv.kv.latent import Latents
from mspeckv.kv.link import open_link
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.kv.shape import KVShape
from mspeckv.models.pair import Pair
from mspeckv.record import Ledger
from mspeckv.settings import KVPolicy, RunConfig
from mspeckv.testing.exactness import prefilled
from mspeckv_study.whatif.machines import HARDWARE
from mspeckv_study.whatif.measure import _choosing, measure

from .random_models import SHAPE
from .test_latent import latent_pair

SIZES = {**SHAPE, "num_hidden_layers": 4, "vocab_size": 64}
WINDOW = 24


def _pair(config: PretrainedConfig) -> Pair:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    return Pair.of(model, model)


def windowed() -> Pair:
    kinds = ["sliding_attention", "full_attention"] * 2
    return _pair(Gemma2Config(layer_types=kinds, sliding_window=WINDOW, head_dim=16, **SIZES))


def hybrid() -> Pair:
    return _pair(Lfm2Config(layer_types=["conv", "full_attention"] * 2, **SIZES))


def mixture() -> Pair:
    return _pair(MixtralConfig(num_local_experts=4, **SIZES))


KINDS: tuple[tuple[Callable[[], Pair], int], ...] = (
    (windowed, 2), (hybrid, 2), (mixture, 4), (latent_pair, 4),
)  # fmt: skip
"""And how many of their four layers grow."""


@pytest.mark.parametrize(("build", "growing"), KINDS, ids=lambda one: getattr(one, "__name__", ""))
def test_passes_of_every_kind_are_measured(build: Callable[[], Pair], growing: int) -> None:
    found = measure(HARDWARE["laptop-cpu"], build())
    table = found.passes["target"]
    assert table.layers == growing
    assert all(ms > 0 for row in table.ms for ms in row)
    assert found.choose_us > 0
    assert all(one > 0 for one in found.own)


@pytest.mark.parametrize("build", [windowed, hybrid, latent_pair])
def test_tier_1_is_shown_what_a_run_shows_it(
    build: Callable[[], Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would choose otherwise, or not at all, where it is timed."""
    seen: set[tuple[object, ...]] = set()
    watch = RetrievalCache.watch

    def watching(self: RetrievalCache, layer: int, query: torch.Tensor, shown: Shown) -> None:
        keys = shown.keys if isinstance(shown, Latents) else None
        heads = None if keys is None else (keys.shape[1], keys.shape[-1])
        if layer in self.landmarks:  # a window chooses nothing
            stored = shown.whole()[0].shape
            seen.add((type(shown), query.shape[1], query.shape[-1], heads, stored[1], stored[-1]))
        watch(self, layer, query, shown)

    pair = build()
    monkeypatch.setattr(RetrievalCache, "watch", watching)
    policy = KVPolicy(bits="full", on_chip=pair.layers)
    with prefilled(pair, [1] * 200, RunConfig(method="mspeckv", new_tokens=4, policy=policy)):
        in_a_run = set(seen)
    seen.clear()
    _choosing(pair)
    assert seen == in_a_run != set()


@pytest.mark.parametrize("length", [0, WINDOW - 1, WINDOW, 700])
def test_a_window_that_stands_somewhere_shows_what_one_that_read_so_far_does(length: int) -> None:
    shape = KVShape.of(windowed().target.config, torch.float32)
    with open_link(Ledger(), None, torch.device("cpu")) as link:
        policy = KVPolicy(bits="full", on_chip=shape.layers)
        read, told = (FullCache(shape, policy, 1024, link, torch.device("cpu")) for _ in range(2))
    tokens = torch.randn(2, 1, shape.heads, length + 5, shape.dim)
    for layer in (read.layers[0], told.layers[0]):
        if layer is told.layers[0]:
            layer.stand_at(length)
        elif length:
            layer.append(*tokens[..., :length, :])
    shown = [layer.append(*tokens[..., length:, :]) for layer in (read.layers[0], told.layers[0])]
    assert shown[0].tokens == shown[1].tokens == length + 5
    # of the tokens before, those that the five see
    seen = min(length, WINDOW - 1)
    assert all(one.key.shape[2] >= seen + 5 for one in shown)
    assert torch.equal(shown[0].key[:, :, -5:], shown[1].key[:, :, -5:])
