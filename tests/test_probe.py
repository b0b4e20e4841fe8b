"""A document's KV: what is captured is what a run stores, and packing loses what it must."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from transformers import DynamicCache

from mspeckv import KVPolicy, KVProbe, Packing, Pair
from mspeckv.kv.doors import codecs
from mspeckv.models.checks import cache_argument
from mspeckv_study.probes.kv_probe import pack
from tests.random_models import block_codec, random_pair, random_prompt
from tests.test_latent import latent_pair
from tests.test_measured_kinds import hybrid, windowed

PAIR = random_pair(vocab=64)


@pytest.fixture(scope="module")
def probe() -> KVProbe:
    return KVProbe(PAIR, random_prompt(160), asked=32)


def lossy(tensor: torch.Tensor, packing: Packing) -> float:
    return float((pack(tensor, packing).tensor - tensor).norm() / tensor.norm())


def with_loud_channels(seed: int = 0) -> torch.Tensor:
    """Noise ``[2, 128, 16]`` with one channel twenty times as loud: what keys look like."""
    tensor = torch.randn(2, 128, 16, generator=torch.Generator().manual_seed(seed))
    tensor[:, :, 5] *= 20
    return tensor


def test_kv_is_that_of_the_models_own_cache(probe: KVProbe) -> None:
    with torch.inference_mode():
        cache = DynamicCache()
        PAIR.target(torch.tensor([probe.tokens]), **{cache_argument(PAIR.target): cache})
    assert probe.keys.shape == probe.values.shape == (4, 2, 128, 16)
    for layer in range(4):
        assert torch.allclose(probe.keys[layer], cache.layers[layer].keys[0], atol=1e-4)
        assert torch.allclose(probe.values[layer], cache.layers[layer].values[0], atol=1e-4)


@pytest.mark.parametrize("build", [hybrid, windowed])
def test_of_layers_those_that_grow_are_packed(build: Callable[[], Pair]) -> None:
    pair = build()
    probe = KVProbe(pair, random_prompt(160, vocab=64), asked=32)
    assert len(probe.keys) == len(probe.values) == pair.layers == 2
    with torch.inference_mode():
        ids = torch.tensor([probe.tokens + probe._asked])
        plain = deepcopy(pair.target)
        # the oldest transformers leaves Gemma 2's cap out of its default attention
        plain.set_attn_implementation("eager")
        told = plain(ids).logits[0, -32:].softmax(-1)
    # the rest of the cache is as the model left it: what is asked goes on from there
    assert torch.allclose(probe._unpacked, told, atol=1e-4)
    for _ in range(2):
        assert probe.over(KVPolicy("full", block=16, tail=8)).acceptance > 0.999
    assert probe.over(KVPolicy(2, block=16, tail=8)).acceptance < 0.999


def test_latents_are_refused() -> None:
    with pytest.raises(ValueError, match="it keeps latents"):
        KVProbe(latent_pair(), random_prompt(160))


def test_unpacked_kv_is_agreed_with_and_narrow_kv_less(probe: KVProbe) -> None:
    def at(width: int | str) -> float:
        return probe.acceptance(Packing(width, "channel", 32), Packing(width, "token", 16))  # type: ignore[arg-type]

    assert at("full") == pytest.approx(1, abs=1e-5)
    assert 1 > at(8) > at(4) > at(2) > 0


@pytest.mark.parametrize("codec", ["kivi", "lloyd"])
def test_asking_about_a_codec_leaves_the_kv_as_it_was(probe: KVProbe, codec: str) -> None:
    assert codec in codecs.names()
    keys, values = probe.keys.clone(), probe.values.clone()
    first = probe.over(KVPolicy(2, block=16, tail=8, codec=codec))
    assert torch.equal(probe.keys, keys)
    assert torch.equal(probe.values, values)
    assert first.acceptance < 1
    assert probe.over(KVPolicy("full", block=16, tail=8)).acceptance > 0.999


def test_loud_channels_want_a_scale_of_their_own() -> None:
    tensor = with_loud_channels()
    by_channel = lossy(tensor[:, :, :5], Packing(4, "channel", 64))
    packed = pack(tensor, Packing(4, "token", 16)).tensor
    by_token = float((packed - tensor)[:, :, :5].norm() / tensor[:, :, :5].norm())
    assert by_token > 3 * by_channel


@pytest.mark.parametrize("axis", ["channel", "token"])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_errors_stay_within_half_a_step(axis: str, bits: int) -> None:
    tensor = with_loud_channels()
    packing = Packing(bits, axis, 16)  # type: ignore[arg-type]
    error = (pack(tensor, packing).tensor - tensor).abs()
    shape = (2, 8, 16, 16) if axis == "channel" else (2, 128, 1, 16)
    along = 2 if axis == "channel" else 3
    split, wrong = tensor.view(shape), error.view(shape)
    step = (split.amax(along) - split.amin(along)) / (2**bits - 1)
    assert (wrong.amax(along) <= 0.51 * step + 0.01).all()


def test_bytes_are_codes_and_scales() -> None:
    tensor = with_loud_channels()
    codes = tensor.numel() // 2
    assert pack(tensor, Packing(4, "channel", 64)).bytes == codes + 4 * tensor.numel() // 64
    assert pack(tensor, Packing(4, "token", 8)).bytes == codes + 4 * tensor.numel() // 8
    assert pack(tensor, Packing("full")).bytes == 4 * tensor.numel()
    codec = block_codec(2, 16, 64, 4, 16, torch.float32)
    both = (
        pack(tensor, Packing(4, "channel", 64)).bytes + pack(tensor, Packing(4, "token", 16)).bytes
    )
    assert both == 2 * codec.record_bytes


def test_the_upper_plane_is_an_int4_cache_inside_int8() -> None:
    tensor = with_loud_channels()
    upper = Packing(8, "channel", 64, upper=True)
    assert pack(tensor, upper).bytes == pack(tensor, Packing(4, "channel", 64)).bytes
    assert 10 * lossy(tensor, Packing(8)) < lossy(tensor, upper) < 1.5 * lossy(tensor, Packing(4))


def test_an_unfinished_block_stays_as_it_was() -> None:
    tensor = with_loud_channels()[:, :100]
    found = pack(tensor, Packing(2, "channel", 64))
    assert found.tokens == 64
    assert torch.equal(found.tensor[:, 64:], tensor[:, 64:])
    assert not torch.equal(found.tensor[:, :64], tensor[:, :64])


def test_bad_settings_are_refused(probe: KVProbe) -> None:
    with pytest.raises(ValueError, match="bits: 5 is not allowed"):
        Packing(5)
    with pytest.raises(ValueError, match="axis: 'head' is not allowed; use one of channel, token"):
        Packing(8, "head")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="group: 12 is not allowed; use a multiple of 8"):
        Packing(8, "token", 12)
    with pytest.raises(ValueError, match="upper: True is not allowed"):
        Packing(4, upper=True)
    with pytest.raises(ValueError, match="group: 256 is not allowed; there are 128 tokens"):
        pack(probe.keys[0], Packing(8, "channel", 256))
    with pytest.raises(ValueError, match="prompt: '20 tokens' is not allowed"):
        KVProbe(PAIR, random_prompt(20))
