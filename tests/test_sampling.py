"""Distributions, draws and residuals; see test_enumeration.py for the algorithm as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from mspeckv import Pair, Sampling, Speculation, as_custom_generate, generate
from mspeckv.decoding.sampling import Sampler, keep_nucleus, residual


def test_the_residual_is_what_is_left_of_p_after_q() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.7, 0.1, 0.2])
    assert torch.allclose(residual(p, q), torch.tensor([0.0, 0.2, 0.0]))
    assert torch.equal(residual(p, p), p)


@pytest.mark.parametrize("vocab", [7, 900, 5000])
@pytest.mark.parametrize("spread", [0.5, 5.0])
def test_the_nucleus_is_the_smallest_set_with_the_mass(vocab: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(1)
    probs = (torch.randn(5, vocab, generator=generator) * spread).softmax(-1)
    for top_p in (0.05, 0.5, 0.95, 0.9999):
        kept = keep_nucleus(probs, top_p)
        assert torch.allclose(kept.sum(-1), torch.ones(5))
        for row, out in zip(probs, kept, strict=True):
            inside = row[out > 0]
            assert float(inside.sum()) >= top_p - 1e-5
            assert float(inside.sum() - inside.min()) < top_p
            if bool((out == 0).any()):
                assert float(inside.min()) > float(row[out == 0].max())


@pytest.mark.parametrize("alike", [3, 64, 100, 1024, 1500])
def test_tokens_as_likely_as_the_last_one_kept_are_kept_too(alike: int) -> None:
    logits = torch.full((1, 3000), -50.0)
    logits[0, torch.randperm(3000, generator=torch.Generator().manual_seed(2))[:alike]] = 0.0
    kept = keep_nucleus(logits.softmax(-1), 0.5)
    assert torch.equal(kept > 0, logits == 0)
    assert torch.allclose(kept[logits == 0], torch.tensor(1 / alike))


def test_greedy_is_one_hot_at_the_largest_logit() -> None:
    sampler = Sampler(Sampling(temperature=0))
    logits = torch.tensor([[0.0, 3.0, -1.0]])
    probs = sampler.distribution(logits, [0])
    assert probs.tolist() == [[0.0, 1.0, 0.0]]
    assert sampler.draw(probs[0]) == 1


def test_tokens_of_no_mass_are_never_drawn() -> None:
    sampler = Sampler(Sampling(temperature=1.0, top_p=1.0))
    probs = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    assert {sampler.draw(probs) for _ in range(300)} == {1, 3}


BROKEN = {
    "nan": [0.0, math.nan, 1.0],
    "inf": [0.0, math.inf, 1.0],
    "nothing": [-math.inf] * 3,
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(0),
        Sampling(1.0, 1.0),
        Sampling(0.6, 0.9),
        Sampling(0.6, 0.9, top_k=2, min_p=0.1),
        Sampling(0, repetition_penalty=1.2),
    ],
    ids=["greedy", "sampled", "nucleus", "processors", "penalty"],
)
def test_logits_that_are_not_finite_are_not_drawn_from(
    sampling: Sampling, dtype: torch.dtype, kind: str
) -> None:
    """Where plain ``generate`` draws, it raises too; where it takes the likeliest, it takes NaN."""
    sampler = Sampler(sampling)
    good, bad = torch.tensor([[0.0, -math.inf, 2.0], BROKEN[kind]], dtype=dtype)
    whole = sampler.distribution(torch.stack([good, good]), [0, 2, 2])
    both = sampler.distribution(torch.stack([good, bad]), [0, 2, 2])
    assert sampler.draw(whole[0]) in {0, 2}
    with pytest.raises(FloatingPointError, match="not finite"):
        sampler.draw(both[1])
    with pytest.raises(FloatingPointError, match="not finite"):
        sampler.draw_held(both[1], bad)
    # as the verifier: of the guess, of a rejected guess, and of the token after all guesses
    for token in (0, 1):
        with pytest.raises(FloatingPointError, match="not finite"):
            sampler.verify(both[1:].repeat(2, 1), one_hot(token, dtype), [token])
    with pytest.raises(FloatingPointError, match="not finite"):
        sampler.verify(torch.stack([one_hot(2, dtype)[0], both[1]]), one_hot(2, dtype), [2])
    # what stands after a rejected guess is never asked for
    assert sampler.verify(both, one_hot(1, dtype), [1])[0] == 0


def one_hot(token: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.eye(3, dtype=dtype)[token : token + 1]


@pytest.mark.parametrize("temperature", [1e-39, 1e-46, 1e-7, -1e-6])
def test_a_temperature_that_arithmetic_cannot_bear_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperature: .* 0, or 1e-06 to 100|temperature: -1e-06"):
        Sampling(temperature)


@pytest.mark.parametrize("penalty", [1e-39, 1e-7, 0.0])
def test_a_penalty_that_arithmetic_cannot_bear_is_refused(penalty: float) -> None:
    with pytest.raises(ValueError, match="repetition_penalty: .* from 1e-06 to 100"):
        Sampling(repetition_penalty=penalty)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("more", [{}, {"repetition_penalty": 1e-6}, {"top_k": 3}])
def test_the_least_divisors_bear_the_largest_logits(
    dtype: torch.dtype, more: dict[str, Any]
) -> None:
    most = 65504.0 if dtype == torch.float16 else 1e26
    sampler = Sampler(Sampling(1e-6, **more))
    logits = torch.tensor([[-most, most / 2, most, -math.inf]], dtype=dtype)
    probs = sampler.distribution(logits, [1, 2])
    assert probs.tolist() == [[0.0, 0.0, 1.0, 0.0]]
    assert sampler.draw(probs[0]) == 2


@pytest.mark.parametrize("method", ["autoregressive", "vanilla", "mspeckv"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("who", ["target", "draft"])
def test_a_model_without_finite_logits_is_said_to_be_so(
    who: str, temperature: float, method: str, tiny_pair: Callable[..., Pair]
) -> None:
    pair = tiny_pair(layers=2)
    model = pair.target if who == "target" else pair.draft
    assert model is not None
    model.get_output_embeddings().weight.data[5] = math.nan
    run = partial(generate, pair, list(range(40)), method=method, new_tokens=12)
    settings = {
        "sampling": Sampling(temperature, stop_at_eos=False),
        "speculation": Speculation(gamma=3, budget=16, chunk=4, recent=8, window=16),
    }
    if method == "autoregressive" and who == "draft":
        assert len(run(**settings).tokens) == 12
        return
    with pytest.raises(FloatingPointError, match="not finite"):
        run(**settings)


@pytest.mark.parametrize("sampled", [False, True])
def test_the_drop_in_says_so_too(sampled: bool, tiny_llama: Callable[..., Any]) -> None:
    model = tiny_llama(layers=2)
    model.get_output_embeddings().weight.data[5] = math.nan
    ids = torch.arange(2, 20)[None]
    options = {"max_new_tokens": 5, "pad_token_id": 1, "top_k": 0, "do_sample": sampled}
    if sampled:
        with pytest.raises(RuntimeError, match="nan"):
            model.generate(ids, **options)
    with pytest.raises(FloatingPointError, match="not finite"):
        model.generate(ids, custom_generate=as_custom_generate(), **options)
    options["remove_invalid_values"] = True
    model.generate(ids, custom_generate=as_custom_generate(), **options)
