"""Your own: a model brought along, and a retrieval policy of one's own, benchmarked."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from mspeckv import RunSummary, TierCount, retrieval
from mspeckv_widgets.course.answers import is_run, same_function, short
from mspeckv_widgets.course.exercise import Exercise, Verdict, is_open

MOST_LINES = 30
_ENGINES = ("attention", "newest")


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


def check_better(answer: Any) -> Verdict:
    """A policy of one's own keeps more of tier 1's guesses than the control, in few lines."""
    runs = _two_runs(answer)
    if isinstance(runs, Verdict):
        return runs
    control, own = runs
    names = [run.config["speculation"]["retrieval"] for run in runs]
    if names[0] != "newest":
        return Verdict(False, "the first run is the control: retrieval='newest'")
    if names[1] in _ENGINES:
        return Verdict(False, f"{names[1]!r} is the engine's: register one of your own")
    if _without_policy(control) != _without_policy(own):
        return Verdict(False, "the runs differ in more than the policy: change that alone")
    lines = len(inspect.getsource(retrieval.policy(names[1])).strip().splitlines())
    if lines > MOST_LINES:
        return Verdict(False, f"{lines} lines: {MOST_LINES} are enough")
    rates = [tier1_rate(run.tiers) for run in runs]
    told = f"tier 2 kept {rates[1]:.0%} of tier 1's guesses, with the control {rates[0]:.0%}"
    if rates[1] <= rates[0]:
        return Verdict(False, f"{told} (measured): the policy must choose better than that")
    return Verdict(True, f"{told} (measured), by {lines} lines.")


def _two_runs(answer: Any) -> tuple[RunSummary, RunSummary] | Verdict:
    if not isinstance(answer, tuple) or len(answer) != 2:
        return Verdict(False, "give (one run, the other run)")
    for part in answer:
        complaint = is_run(part)
        if complaint is not None:
            return complaint
    return answer[0], answer[1]


def _without_policy(run: RunSummary) -> dict[str, Any]:
    """A run's settings with its retrieval policy left out."""
    guess = {name: x for name, x in run.config["speculation"].items() if name != "retrieval"}
    return {**run.config, "speculation": guess}


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "the same tokens by a model of your own",
        check_same,
        "Load the folder with load_pair, run method autoregressive and then another method, at "
        "temperature 0 with one KVPolicy. A draft is not needed: tier0='lookup' guesses.",
    ),
    "e2": Exercise(
        "the acceptance of tier 1",
        check_rate,
        "A run's tiers are counts, one for each tier in use, lowest first. Which place tier 1 has "
        "depends on the run: look at count.tier.",
    ),
    "e3": Exercise(
        "a policy by peaks",
        check_peak,
        "Scores queries @ landmarks, times D to the power of -1/2, softmax over chunks: shares "
        "[heads, queries, chunks]. Set those of padding to 0, then take the maximum over queries.",
    ),
    "e4": Exercise(
        "better than the control",
        check_better,
        "Any policy that looks at the queries should beat the newest chunks. Benchmark both with "
        "the same prompt and settings.",
    ),
}
