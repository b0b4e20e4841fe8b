"""Models of one tokenizer, padded to different vocabulary sizes: padding is never drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from mspeckv import KVPolicy, Pair, RunConfig, Sampling, Speculation, generate, load_pair
from mspeckv.testing.exactness import chi_square, expect, prefilled, sample
from mspeckv.testing.tiny import SMALL, tiny_prompt
from mspeckv_study.probes.next_token import next_distributions
from tests.test_models import save, word_tokenizer

WORDS = "a b c d e f g"
TOKENS = 8
"""The words and the unknown one."""
CONFIG = RunConfig(
    new_tokens=8, policy=KVPolicy(4, block=16, group=16, tail=8), speculation=SMALL,
    sampling=Sampling(temperature=1.3, top_p=0.9),
)  # fmt: skip


def padded(vocab: int, layers: int = 2) -> PreTrainedModel:
    """A random model that likes padding best: unmasked, it would hardly say anything else."""
    torch.manual_seed(3)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=vocab, hidden_size=64, intermediate_size=96, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024,
        initializer_range=0.3, bos_token_id=None, eos_token_id=None,
    ))  # fmt: skip
    with torch.no_grad():
        model.lm_head.weight[TOKENS:] *= 4
    return model.eval()


def padded_pair(target: int, draft: int) -> Pair:
    words = word_tokenizer(WORDS)
    both = padded(target, 3), padded(draft)
    return Pair.of(*both, words, draft_tokenizer=word_tokenizer(WORDS))


@pytest.fixture(scope="module", params=[(12, 16), (16, 12), (8, 11)], ids=str)
def unequal(request: pytest.FixtureRequest) -> Pair:
    return padded_pair(*request.param)


def test_both_are_scored_over_the_tokens_that_they_share(unequal: Pair) -> None:
    assert unequal.vocab_size == TOKENS
    prompt = tiny_prompt(61, TOKENS)
    with prefilled(unequal, prompt, CONFIG) as tiers:
        for reader in tiers.prefilled:
            assert reader.read(prompt, rows=1).shape == (1, TOKENS)
    whole = unequal.target(torch.tensor([prompt])).logits[0, -2]
    assert whole.argmax() >= TOKENS or unequal.target.config.vocab_size == TOKENS
    (place,) = next_distributions(unequal, prompt, last=1)
    assert place.target.shape == place.draft.shape == (TOKENS,)
    # renormalised exactly: what is left keeps its proportions
    torch.testing.assert_close(place.target, whole[:TOKENS].softmax(-1))


@pytest.mark.parametrize("method", ["vanilla", "mspeckv"])
def test_greedy_text_is_the_targets_without_padding(unequal: Pair, method: str) -> None:
    prompt = tiny_prompt(61, TOKENS)
    text, cut = list(prompt), unequal.target
    for _ in range(16):
        text.append(int(cut(torch.tensor([text])).logits[0, -1, :TOKENS].argmax()))
    done = generate(
        unequal, prompt, method=method, new_tokens=16, speculation=SMALL,
        policy=KVPolicy(bits="full", block=16, tail=8), sampling=Sampling(0),
    )  # fmt: skip
    assert list(done.tokens) == text[len(prompt) :]


def test_samples_follow_the_target_without_padding() -> None:
    unequal, prompt = padded_pair(16, 12), tiny_prompt(61, TOKENS)
    shares = expect(unequal, prompt, CONFIG, 2)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert chi_square(sample(unequal, prompt, CONFIG, 2, 150), shares) > 1e-4


@settings(deadline=None, max_examples=5)
@given(
    target=st.integers(TOKENS, 20), draft=st.integers(TOKENS, 20), gamma=st.integers(1, 4),
    draft_gamma=st.integers(1, 3), temperature=st.sampled_from([0.0, 0.8, 3.0]),
    draft_vocab=st.sampled_from([0, 5]), tier0=st.sampled_from(["draft", "lookup"]),
)  # fmt: skip
def test_no_padding_ever(
    target: int, draft: int, gamma: int, draft_gamma: int, temperature: float, draft_vocab: int,
    tier0: str,
) -> None:  # fmt: skip
    lengths = replace(
        SMALL, gamma=gamma, draft_gamma=draft_gamma, draft_vocab=draft_vocab, tier0=tier0
    )
    done = generate(
        padded_pair(target, draft), tiny_prompt(40, TOKENS), new_tokens=16, policy=CONFIG.policy,
        speculation=lengths, sampling=Sampling(temperature),
    )  # fmt: skip
    # of one size they are as they were: padding is the target's own business
    assert target == draft or max(done.tokens) < TOKENS


def test_loaded_pairs_compare_their_tokenizers(tmp_path: Path) -> None:
    target = save(padded(16), word_tokenizer(WORDS), tmp_path / "target")
    draft = save(padded(12), word_tokenizer(WORDS), tmp_path / "draft")
    assert load_pair(target, draft).vocab_size == TOKENS
    other = save(padded(12), word_tokenizer("a b c d e g f"), tmp_path / "other")
    with pytest.raises(ValueError, match="differs from that of .* in 2 tokens"):
        load_pair(target, other)


@pytest.mark.parametrize(("words", "sizes"), [(None, (16, 12)), (WORDS, (16, 6))])
def test_unknown_or_missing_tokens_are_refused(words: str | None, sizes: tuple[int, int]) -> None:
    """Without tokenizers nobody knows what is padding; a model with too few rows is another's."""
    own: PreTrainedTokenizerFast | None = word_tokenizer(words) if words else None
    with pytest.raises(ValueError, match=f"vocabulary size is {sizes[1]}, that of .* is 16"):
        Pair.of(padded(sizes[0]), padded(sizes[1]), own, draft_tokenizer=own)


def test_pairs_of_one_size_are_as_they_were() -> None:
    pair = padded_pair(12, 12)
    assert (pair.vocab, pair.vocab_size) == (None, 12)
    text = generate(
        pair, tiny_prompt(40, TOKENS), new_tokens=8, speculation=Speculation(),
        policy=KVPolicy(bits="full"), sampling=Sampling(0), method="vanilla",
    )  # fmt: skip
    plain = pair.target.generate(
        torch.tensor([tiny_prompt(40, TOKENS)]), max_new_tokens=8, do_sample=False
    )
    assert list(text.tokens) == plain[0, 40:].tolist()
