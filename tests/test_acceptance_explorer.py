"""The acceptance explorer without a browser: real steps, and what comes out is the target's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mspeckv import Sampling, next_distributions
from mspeckv.models.pair import Pair
from mspeckv_widgets import AcceptanceExplorer
from mspeckv_widgets.explorers.acceptance_charts import (
    ACCEPT,
    DRAWN,
    EVEN,
    REJECT,
    SERIES,
    emitted_distribution,
)
from tests.random_models import random_pair, random_prompt

P, Q = (0.5, 0.3, 0.15, 0.05), (0.2, 0.5, 0.05, 0.25)


@pytest.fixture
def explorer() -> AcceptanceExplorer:
    return AcceptanceExplorer(P, Q)


def said(explorer: AcceptanceExplorer) -> str:
    return str(explorer._said.value)


def test_bars_show_both_distributions_their_minimum_and_the_residual(
    explorer: AcceptanceExplorer,
) -> None:
    p, q, both, left, drawn = explorer.figure.data[: DRAWN + 1]
    assert tuple(p.y) == P
    assert tuple(q.y) == Q
    assert np.allclose(both.y, [0.2, 0.3, 0.05, 0.05])
    assert np.allclose(left.y, [0.3, 0, 0.1, 0])
    assert np.isnan(drawn.y).all()
    assert "sum of min(p, q) = 0.6000" in said(explorer)
    assert list(p.x) == [0, 1, 2, 3]
    assert list(explorer.figure.layout.xaxis.ticktext) == ["1: A", "2: B", "3: C", "4: D"]
    # max(0, p - q) is the residual only once it is divided by its sum
    assert "residual" not in left.name
    assert "divided by its sum" in explorer._table.value


def test_the_emitted_share_stands_over_the_targets_bar(explorer: AcceptanceExplorer) -> None:
    explorer.many(100)
    p, drawn = explorer.figure.data[0], explorer.figure.data[DRAWN]
    assert np.allclose(drawn.x, np.array(p.x) + p.offset + p.width / 2)
    edges = [bars.offset for bars in explorer.figure.data[:DRAWN]]
    assert np.allclose(np.diff(edges), p.width), "bars stand side by side"


def lit(explorer: AcceptanceExplorer) -> dict[str, list[int]]:
    """Bars that are not dimmed, by series."""
    bars = zip(SERIES, explorer.figure.data, strict=False)
    found = {name: np.flatnonzero(np.array(one.marker.opacity) == 1).tolist() for name, one in bars}
    return {name: rows for name, rows in found.items() if rows}


def test_a_step_lights_what_it_looks_at_and_shows_the_number_that_decides(
    explorer: AcceptanceExplorer,
) -> None:
    accept, reject, even = (explorer.figure.data[place] for place in (ACCEPT, REJECT, EVEN))
    everything = {name: [0, 1, 2, 3] for name in SERIES}
    assert lit(explorer) == everything
    assert np.isnan(accept.x).all()
    for _ in range(12):
        explorer.step()
        guess = explorer.attempt.guess
        assert guess is not None
        chance = min(1, P[guess] / Q[guess])
        assert lit(explorer) == {"q": [guess]}
        assert (accept.x[0], reject.base[0]) == pytest.approx((chance, chance))
        assert reject.x[0] == pytest.approx(1 - chance)
        assert np.isnan(even.x).all(), "nothing is drawn before the test"
        explorer.step()
        assert lit(explorer) == {"p": [guess], "q": [guess]}
        assert (even.x[0] < chance) == explorer.attempt.accepted
        assert f"u = {even.x[0]:.4f} is" in said(explorer)
        explorer.step()
        kept, replaced = {"both": [guess]}, {"left": [explorer.attempt.emitted]}
        assert lit(explorer) == (kept if explorer.attempt.accepted else replaced)
    assert explorer.figure.layout.yaxis.range[1] == pytest.approx(1.15 * max(*P, *Q))
    explorer.many(5)
    assert lit(explorer) == everything
    assert np.isnan(even.x).all()


def test_a_guess_is_proposed_then_tested_then_settled(explorer: AcceptanceExplorer) -> None:
    seen = set()
    for _ in range(12):
        explorer.step()
        assert explorer.attempt.guess is not None
        assert "Next: accept it with chance" in said(explorer)
        explorer.step()
        assert explorer.attempt.accepted is not None
        explorer.step()
        seen.add(explorer.attempt.accepted)
        if explorer.attempt.accepted:
            assert explorer.attempt.emitted == explorer.attempt.guess
        else:
            # only A and C are more likely to the target
            assert explorer.attempt.emitted in (0, 2)
            assert "is drawn from the residual" in said(explorer)
    assert seen == {True, False}
    assert explorer.guesses == explorer.counts.sum() == 12


@pytest.mark.parametrize("likeness", [0.0, 0.5, 1.0])
def test_what_is_emitted_is_distributed_as_the_target(
    explorer: AcceptanceExplorer, likeness: float
) -> None:
    explorer.likeness.value = likeness
    explorer.many(2500)
    expected = 0.6 + 0.4 * likeness
    assert explorer.accepted / explorer.guesses == pytest.approx(expected, abs=0.03)
    assert explorer.distance() < 0.035
    assert np.allclose(explorer.rows.emitted, P)


def test_resampling_from_the_target_itself_would_be_wrong() -> None:
    p, q = torch.tensor(P), torch.tensor(Q)
    both = torch.minimum(p, q)
    wrong = both + (1 - both.sum()) * p
    assert torch.allclose(emitted_distribution(p, q), p)
    assert float((wrong - p).abs().sum() / 2) > 0.1


def test_reset_repeats_the_same_draws(explorer: AcceptanceExplorer) -> None:
    explorer.many(50)
    first = explorer.counts.clone()
    explorer.reset()
    assert explorer.guesses == 0
    explorer.many(50)
    assert torch.equal(explorer.counts, first)
    explorer.likeness.value = 0.25
    assert explorer.guesses == 0, "counts of another draft are not mixed in"


def test_real_models_are_shown_place_by_place() -> None:
    pair, prompt = random_pair(vocab=64), random_prompt(40)
    explorer = AcceptanceExplorer.of_model(pair, prompt, last=5)
    found = next_distributions(pair, prompt, last=5)
    explorer.place.value = 3
    rows = explorer.rows
    assert len(rows.names) == 13
    assert rows.names[-1] == "52 others"
    assert rows.p.sum() == pytest.approx(1)
    assert rows.q.sum() == pytest.approx(1)
    assert rows.both.sum() == pytest.approx(found[3].acceptance, abs=1e-5)
    assert f"token {prompt[-2]}" in said(explorer)
    assert f"{prompt[-4]} {prompt[-3]} the text goes on" in said(explorer), "what stands before"
    explorer.many(1500)
    assert explorer.accepted / 1500 == pytest.approx(found[3].acceptance, abs=0.04)
    assert rows.emitted == pytest.approx(rows.p, abs=1e-6)


def test_many_others_do_not_take_the_scale() -> None:
    rest = np.full(50, 0.7 / 50)
    p, q = [0.2, 0.1, *rest], [0.1, 0.2, *rest]
    explorer = AcceptanceExplorer(p, q, [f"word {place}" for place in range(52)])
    rows, layout = explorer.rows, explorer.figure.layout
    assert rows.others
    assert rows.p[-1] == pytest.approx(0.56)
    assert layout.yaxis.range[1] == pytest.approx(1.15 * 0.2)
    # the likeliest come first, each under its own name
    first = {f"word {place}": (p[place], q[place]) for place in range(2)}
    for name, p_shown, q_shown in zip(rows.names[:2], rows.p, rows.q, strict=False):
        assert first[name] == (p_shown, q_shown)
    assert layout.xaxis.ticktext[-1] == "13: 40 others,<br>p 0.56, q 0.56"


def test_distributions_are_the_models_own() -> None:
    pair, prompt = random_pair(vocab=64), random_prompt(40)
    found = next_distributions(pair, prompt, last=3)
    assert [one.place for one in found] == [37, 38, 39]
    assert [one.token for one in found] == prompt[-3:]
    assert pair.draft is not None
    with torch.inference_mode():
        for model, name in ((pair.target, "target"), (pair.draft, "draft")):
            own = model(torch.tensor([prompt[:38]])).logits[0, -1].softmax(-1)
            assert torch.allclose(getattr(found[1], name), own, atol=1e-5)
    greedy = next_distributions(pair, prompt, Sampling(temperature=0), last=3)
    assert all(one.acceptance in (0, 1) for one in greedy)


@pytest.mark.parametrize(
    ("p", "q", "words"),
    [
        ([0.5, 0.4], [0.5, 0.5], "p: .* add up to 1"),
        ([1.0], [1.0], "p: .* two or more"),
        ([1.5, -0.5], [0.5, 0.5], "p: .* add up to 1"),
        ([0.5, 0.5], ["a", "b"], "q: .* use a list of probabilities"),
        ([0.5, 0.5], [0.2, 0.3, 0.5], "q: '3 tokens' is not allowed; use as many as p"),
    ],
)
def test_what_is_no_distribution_is_refused(p: Any, q: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        AcceptanceExplorer(p, q)


def test_texts_and_pairs_that_do_not_serve_are_refused() -> None:
    pair = random_pair(vocab=64)
    with pytest.raises(ValueError, match="prompt: '16 tokens' is not allowed; use 17 to"):
        next_distributions(pair, random_prompt(16), last=16)
    with pytest.raises(ValueError, match="pair: .* it has no draft"):
        next_distributions(Pair.of(pair.target, None), random_prompt(16), last=4)


def test_controls_are_named(explorer: AcceptanceExplorer) -> None:
    assert explorer.likeness.description == "Draft like target"
    assert explorer.place.description == "Place"
    assert "application/vnd.jupyter.widget-view+json" in explorer._repr_mimebundle_()
