"""Whoever guesses after a context: each way of seeing it is compared with plain forward passes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import draft_context
from mspeckv import KVPolicy, Pair, Sampling, Speculation, generate
from mspeckv_widgets.guess_probe import GuessProbe, Prefix, squeezed
from tests.random_models import random_pair, random_prompt
from tests.test_latent import latent_pair
from tests.test_measured_kinds import hybrid

PAIR, TEXT, ASKED = random_pair(), random_prompt(150), 20


@pytest.fixture(scope="module")
def prefix() -> Prefix:
    return Prefix(PAIR, TEXT[:-ASKED], budgets=[48, 512], more=ASKED)


@pytest.fixture(scope="module")
def probe(prefix: Prefix) -> GuessProbe:
    return GuessProbe(prefix, TEXT[-ASKED:])


@torch.no_grad()
def kept_by_plain_passes(text: list[int]) -> torch.Tensor:
    """Acceptance of the whole draft at the last places, by transformers alone."""
    assert PAIR.draft is not None
    ids = torch.tensor([text])
    p, q = (model(ids).logits[0, -ASKED:].softmax(-1) for model in (PAIR.target, PAIR.draft))
    return torch.minimum(p, q).sum(-1)


def test_a_draft_that_reads_all_is_the_plain_draft(probe: GuessProbe) -> None:
    plain = kept_by_plain_passes(TEXT)
    kept = probe.reading_all()
    torch.testing.assert_close(torch.tensor(kept.sampled).float(), plain, atol=1e-4, rtol=0)
    assert 0.2 < kept.rate < 0.9
    assert set(kept.greedy.tolist()) == {0.0, 1.0}


def test_a_window_over_everything_and_an_open_mask_see_all(probe: GuessProbe) -> None:
    whole = probe.reading_all().sampled
    for kept in (
        probe.reading_window(sinks=2, window=300),
        probe.reading_what(lambda query, key: query >= key),
    ):
        assert kept.sampled == pytest.approx(whole, abs=1e-4)


def test_states_cannot_be_taken_back() -> None:
    with pytest.raises(ValueError, match="its states cannot be taken back"):
        Prefix(hybrid(), TEXT)


def test_latents_are_refused_a_budget() -> None:
    with pytest.raises(ValueError, match="it keeps latents"):
        Prefix(latent_pair(), TEXT, budgets=[48])
    assert len(Prefix(latent_pair(), TEXT, more=ASKED).write(3)) == ASKED


def test_a_window_sees_less(probe: GuessProbe) -> None:
    near = probe.reading_window(sinks=2, window=8)
    assert abs(near.sampled - probe.reading_all().sampled).max() > 0.1


def test_a_mask_never_shows_what_comes_later(probe: GuessProbe) -> None:
    causal = probe.reading_what(lambda query, key: key <= query).sampled
    careless = probe.reading_what(lambda query, key: key > -1).sampled
    assert careless == pytest.approx(causal)


def test_positions_that_no_window_reaches_need_not_be_read(probe: GuessProbe) -> None:
    def near(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return query - key < 12

    assert PAIR.draft is not None
    layers, read = PAIR.draft.config.num_hidden_layers, len(TEXT)
    some = range(read - ASKED - layers * 12, read)
    assert probe.reading_what(near, some).sampled == pytest.approx(
        probe.reading_what(near).sampled, abs=1e-4
    )


def test_tier_1_with_room_for_all_is_the_target(probe: GuessProbe) -> None:
    assert probe.tier1(512).sampled == pytest.approx(1, abs=1e-3)
    assert 0.1 < probe.tier1(48).rate < 0.999


def test_tier_1_may_judge(probe: GuessProbe) -> None:
    by_all = probe.reading_window(2, 30, judge=512).sampled
    assert by_all == pytest.approx(probe.reading_window(2, 30).sampled, abs=1e-3)
    assert probe.reading_window(2, 30, judge=48).sampled != pytest.approx(by_all, abs=1e-2)


def test_a_prefix_is_as_it_was_after_questions(prefix: Prefix, probe: GuessProbe) -> None:
    own = prefix.write(TEXT[-ASKED], seed=3)
    assert own[0] == TEXT[-ASKED]
    assert len(own) == ASKED
    assert own != TEXT[-ASKED:]
    assert prefix.write(TEXT[-ASKED], seed=3) == own
    plain = kept_by_plain_passes(TEXT[:-ASKED] + own)
    kept = GuessProbe(prefix, own).reading_all().sampled
    torch.testing.assert_close(torch.tensor(kept).float(), plain, atol=1e-4, rtol=0)
    again = GuessProbe(prefix, TEXT[-ASKED:])
    assert again.tier1(48).sampled == pytest.approx(probe.tier1(48).sampled, abs=1e-4)


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ValueError, match="it has no draft"):
        Prefix(Pair.of(PAIR.target), TEXT)
    with pytest.raises(ValueError, match="tokens: 20 is not allowed"):
        GuessProbe.of(PAIR, TEXT[:20], ASKED)
    with pytest.raises(ValueError, match="tokens"):
        GuessProbe.of(PAIR, random_prompt(PAIR.max_positions + 1), ASKED)


def test_squeezing_slows_rotary_frequencies_and_shares_weights() -> None:
    draft = PAIR.draft
    assert draft is not None
    assert squeezed(draft, 512, 512) is draft
    small = squeezed(draft, 64, 512)
    slow, fast = (model.model.rotary_emb.inv_freq for model in (small, draft))
    assert bool((slow <= fast).all())
    assert float((fast / slow).max()) == pytest.approx(8, rel=1e-3)
    pairs = zip(small.parameters(), draft.parameters(), strict=True)
    assert all(one is other for one, other in pairs)
    assert draft.config.rope_parameters["rope_type"] == "default"


def test_a_window_without_sinks_slides() -> None:
    shared: dict[str, Any] = {
        "new_tokens": 120,
        "policy": KVPolicy("full", on_chip=PAIR.layers),
        "sampling": Sampling(temperature=0, stop_at_eos=False),
        "speculation": Speculation(sinks=0, window=8, gamma=4),
    }
    plain = generate(PAIR, TEXT, method="autoregressive", **shared)
    assert generate(PAIR, TEXT, method="vanilla", **shared).tokens == plain.tokens


def test_rows_are_added_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = random_pair()
    monkeypatch.setattr(draft_context, "load_pair", lambda **_: with_tokenizer(pair))
    monkeypatch.setattr(draft_context, "load_document", lambda *_: random_prompt(400))
    out = tmp_path / "rows.jsonl"
    words = "--contexts 40 120 --places 2 --asked 10 --budgets 64 --texts document own"
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["draft_context", "--out", str(out), *words.split()])
        draft_context.main()
    rows = draft_context.known_rows(out)
    assert len(rows) == len(out.read_text(encoding="utf-8").splitlines()) == 8
    assert {place for place, _, _ in rows} == {120, 400}


def with_tokenizer(pair: Pair) -> Pair:
    """A pair that seems to have one, since documents are made up here."""
    return replace(pair, tokenizer=object())


def test_places_are_spread_from_the_first_on() -> None:
    found = draft_context.ends(112_000, 12, 8192)
    assert min(found) == 8192
    assert max(found) == 112_000
    gaps = [b - a for a, b in pairwise(sorted(found))]
    assert min(gaps) > 8192
    assert max(found[:4]) - min(found[:4]) > 80_000
