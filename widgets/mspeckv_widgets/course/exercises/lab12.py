"""Your own: a model brought along, and a retrieval policy of one's own, benchmarked."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch

from mspeckv import (
    KVPolicy,
    Pair,
    RunSummary,
    Sampling,
    Speculation,
    TierCount,
    documents,
    generate,
    retrieval,
)
from mspeckv_widgets.course.answers import is_run, same_function, short
from mspeckv_widgets.course.exercise import Exercise, Score, Verdict, is_open

MOST_LINES = 30
CONTROL = "newest"
HIDDEN = (
    (
        "The train to Marseille leaves at 17:42 from platform 9.",
        "The train to Marseille leaves at",
        0.2,
    ),
    (
        "The key to the cellar lies under the blue flower pot.",
        "The key to the cellar lies under",
        0.6,
    ),
)
"""Sentences, what asks for them, and how deep they lie: documents that no notebook shows."""

_controls: WeakKeyDictionary[Pair, tuple[int, int]] = WeakKeyDictionary()
"""Of each pair, what `_kept` found for the control."""


def check_same(answer: Any) -> Verdict:
    """Two runs of a model that was brought along: one plain, one guessing, the same tokens."""
    runs = _two_runs(answer)
    if isinstance(runs, Verdict):
        return runs
    plain, guessed = runs
    if plain.config["target"] != guessed.config["target"]:
        return Verdict(False, "the two runs have different targets")
    if plain.config["target"] == "default":
        return Verdict(False, "this is the lab's own target: bring another one")
    if plain.config["method"] != "autoregressive" or guessed.config["method"] == "autoregressive":
        return Verdict(False, "the first run is autoregressive, the second guesses")
    if plain.config["policy"] != guessed.config["policy"]:
        return Verdict(False, "the runs keep their KV differently, so they may differ: one policy")
    if len(plain.tokens) < 16 or plain.tokens != guessed.tokens:
        return Verdict(False, "give 16 tokens or more at temperature 0; these are not the same")
    saved = plain.rounds - guessed.rounds
    return Verdict(True, f"the same {len(plain.tokens)} tokens, {saved} passes of tier 2 fewer.")


def tier1_rate(tiers: Sequence[TierCount]) -> float:
    """Share of tier 1's guesses that the tier above it kept."""
    (count,) = (one for one in tiers if one.tier == 1)
    return count.accepted / count.proposed


def check_rate(found: Any) -> Verdict:
    """A function of a run's counts gives the share of tier 1's guesses that tier 2 kept."""
    low, middle = TierCount(0, 90, 90, 61, 300.0), TierCount(1, 40, 32, 28, 900.0)
    top = TierCount(2, 9, 0, 0, 500.0)
    cases = [((middle, top),), ((low, middle, top),)]
    return same_function(found, tier1_rate, cases, "kept over proposed, of tier 1 alone.")


def check_peak(found: Any) -> Verdict:
    """A policy scores a chunk by the largest share of attention that any one query gives it."""
    if not callable(found):
        return Verdict(False, f"a function is asked for, this is {short(found)}")
    generator = torch.Generator().manual_seed(1)
    queries, landmarks = (3 * torch.randn(2, n, 8, generator=generator) for n in (7, 5))
    weights = torch.tensor([1.0, 1, 1, 1, 1, 0, 0])
    queries[:, 5:] *= 5  # padding that is loud, so that it is heard where it counts
    shares = (queries @ landmarks.transpose(1, 2) * 8**-0.5).softmax(-1)
    right = (shares * weights[:, None]).amax(1)
    scores = found(queries.clone(), landmarks.clone(), weights.clone())
    if is_open(scores):
        return Verdict(False, "there is no answer yet: replace the ... and run the cell again")
    if not isinstance(scores, torch.Tensor) or scores.shape != right.shape:
        return Verdict(False, "return a tensor [heads, chunks]: one score for each chunk")
    if torch.equal(scores.argsort(-1), right.argsort(-1)):
        return Verdict(True, "one query that wants a chunk is enough.")
    every = found(queries.clone(), landmarks.clone(), torch.ones(7))
    if torch.equal(every.argsort(-1), scores.argsort(-1)):
        return Verdict(False, "the scores do not depend on weights: padding must not count")
    return Verdict(False, "other chunks should come first: softmax over chunks, largest by query")


def check_hidden(answer: Any) -> Verdict:
    """A registered policy keeps more of tier 1's guesses than the control, on documents not seen.

    The answer is the pair and the policy's name.
    """
    if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[0], Pair):
        return Verdict(False, "give (pair, the name of your policy)")
    pair, name = answer
    if name not in retrieval.names():
        known = ", ".join(retrieval.names())
        return Verdict(False, f"no policy {short(name)} is registered; there are {known}")
    function = retrieval.policy(name)
    if function.__module__.startswith(("mspeckv.", "mspeckv_study.")):
        return Verdict(False, f"{name!r} is the engine's: register one of your own")
    lines = len(inspect.getsource(function).strip().splitlines())
    if lines > MOST_LINES:
        return Verdict(False, f"{lines} lines: {MOST_LINES} are enough")
    if pair not in _controls:
        _controls[pair] = _kept(pair, CONTROL)
    rates = [100 * kept / proposed for kept, proposed in (_kept(pair, name), _controls[pair])]
    told = (
        f"on {len(HIDDEN)} hidden documents tier 2 kept {rates[0]:.0f}% of tier 1's "
        f"guesses, with the control {rates[1]:.0f}% (counted)"
    )
    if rates[0] <= rates[1]:
        return Verdict(False, f"{told}: the policy must choose better than that")
    score = Score(round(rates[0], 1), "% of tier 1's guesses kept", "counted")
    return Verdict(True, f"{told}, by {lines} lines.", score)


def _kept(pair: Pair, name: str) -> tuple[int, int]:
    """Guesses of tier 1 that tier 2 kept, and all of them, over the hidden documents."""
    guess = Speculation(budget=128, gamma=4, tier0="none", retrieval=name)
    kept = proposed = 0
    for prompt in _hidden_prompts(pair):
        found = generate(
            pair, prompt, new_tokens=16, policy=KVPolicy(8, on_chip=pair.layers),
            speculation=guess, sampling=Sampling(temperature=0, stop_at_eos=False),
        )  # fmt: skip
        (count,) = (one for one in found.tiers if one.tier == 1)
        kept, proposed = kept + count.accepted, proposed + count.proposed
    return kept, proposed


def _hidden_prompts(pair: Pair) -> list[list[int]]:
    assert pair.tokenizer is not None
    return [
        documents.needle_in_haystack(needle, depth, pair.tokenizer, 768, question=question)
        for needle, question, depth in HIDDEN
    ]


def _two_runs(answer: Any) -> tuple[RunSummary, RunSummary] | Verdict:
    if not isinstance(answer, tuple) or len(answer) != 2:
        return Verdict(False, "give (one run, the other run)")
    for part in answer:
        complaint = is_run(part)
        if complaint is not None:
            return complaint
    return answer[0], answer[1]


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "the same tokens by a model of your own",
        check_same,
        "What do guesses need that this folder has not got, and who guesses without it? Both runs "
        "must keep their KV alike.",
        "own = load_pair(str(folder), 'none'); then generate(own, prompt, ...) with "
        "policy=policy, sampling=greedy, new_tokens=32, and a method each.",
    ),
    "e2": Exercise(
        "the acceptance of tier 1",
        check_rate,
        "Which place tier 1 has among the counts depends on the run; and the top tier proposes to "
        "nobody.",
        "Find the count whose tier is 1; a share is accepted over proposed.",
    ),
    "e3": Exercise(
        "a policy by peaks",
        check_peak,
        "A share is what one query gives away: over chunks they add up to 1. Of a chunk only its "
        "best query counts.",
        "queries @ landmarks.transpose(1, 2), times channels to the power of -1/2, softmax over "
        "chunks: shares [heads, queries, chunks].",
    ),
    "e4": Exercise(
        "better than the control on hidden documents",
        check_hidden,
        "Any policy that looks at the queries should beat the newest chunks. What would make a "
        "chunk worth reading for the next tokens, and not for this one alone?",
        "Register exercise 3's function first: retrieval.register('mine')(peak). Then look at "
        "the chunks it leaves out; with reads_keys=True a policy is given the keys themselves.",
        seconds=240,  # some fifteen alone, more where a class shares a machine
    ),
}
