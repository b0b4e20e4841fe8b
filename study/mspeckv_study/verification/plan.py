"""How many sampled texts a verdict takes, and where in a document they are drawn."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from mspeckv.decoding.sampling import Sampler
from mspeckv.settings import Sampling
from mspeckv_study.verification.asking import Asking
from mspeckv_study.verification.bets import crossing
from mspeckv_study.verification.engine import Said
from mspeckv_study.verification.faults import FAULTS
from mspeckv_study.verification.tree import Row, Tree, grow
from mspeckv_study.verification.trial import Trial

PILOT = 400
"""Texts of plain decoding from which its chances are estimated where it does not tell them."""
RUNS = 40
"""Simulated runs of each planted fault, for a plan and again for a control."""
LOOK, ROOM = 32, 1.3
"""Texts after which one first looks; by what a plan exceeds what its simulated runs needed."""
TESTS = 4
"""Tests that share the error rate."""


@dataclass(frozen=True)
class Plan:
    """How many texts catch which fault.

    Attributes:
        prompt: the one where the fewest are needed.
        tree: its contexts.
        needs: by fault, texts within which ``power`` of the simulated runs were caught, or None.
        exact: whether plain decoding's chances are known, not estimated.
    """

    prompt: list[int]
    tree: Tree
    needs: dict[str, int | None]
    exact: bool

    def budget(self, most: int) -> int:
        """Texts to draw."""
        return min(most, max((need or most for need in self.needs.values()), default=most))

    def words(self, most: int) -> str:
        """The plan in a line."""
        needs = ", ".join(
            f"{name} {need if need is not None else f'> {most}'}"
            for name, need in self.needs.items()
        )
        known = "exact chances" if self.exact else f"chances estimated from {PILOT} texts"
        cells = "every text enumerated" if self.tree.enumerated else "likely texts alone"
        return (
            f"{self.budget(most)} texts of {self.tree.depth} tokens planned ({known}, {cells}; "
            f"draft of the planted faults accepted {self.tree.acceptance:.0%}); to catch: {needs}"
        )


def warped(
    logits: Callable[[list[int], Sequence[int]], torch.Tensor | None],
    prompt: list[int],
    sampling: Sampling,
) -> Row:
    """Probabilities after a text, as the settings make them of logits."""
    sampler = Sampler(sampling)

    def row(text: Sequence[int]) -> torch.Tensor | None:
        found = logits(prompt, text)
        if found is None:
            return None
        found = found.detach().to("cpu", torch.float64)
        return sampler.distribution(found[None], [*prompt, *text])[0]

    return row


def estimated(draws: Sequence[Said], depth: int) -> tuple[Row, list[int]]:
    """Chances after a text from how often each token came there, and the tokens by place."""
    names = sorted({token for said in draws for token in said.tokens[:depth]})
    place = {token: number for number, token in enumerate(names)}

    def row(text: Sequence[int]) -> torch.Tensor:
        came = Counter(
            place[said.tokens[len(text)]]
            for said in draws
            if said.tokens[: len(text)] == tuple(text) and len(said.tokens) > len(text)
        )
        # one more entry for what did not come here
        counts = torch.full((len(names) + 1,), 0.5 / (len(names) + 1), dtype=torch.float64)
        for token, count in came.items():
            counts[token] += count
        return counts / counts.sum()

    return row, [*names, -1]


def plan(ask: Asking, prompts: Sequence[list[int]], trial: Trial) -> Plan:
    """The prompt at which the planted faults are caught soonest, and how soon that is."""
    engine, against = ask.engine, ask.against
    depth, sampling, found = trial.depth, trial.sampling, list[Plan]()
    if against.logits(prompts[0], []) is None:
        # when a deeper pair is complete would tell of the pairs above it: no fair bet
        depth = min(depth, 2)
    for prompt in prompts:
        # texts of their own: what chooses the prompt and the budget is not judged again
        seeds = (replace(sampling, seed=4 * 10**8 + i) for i in range(LOOK))
        kept_rate = share_kept([ask(engine, prompt, one, depth + 1) for one in seeds], depth)
        exact = warped(against.logits, prompt, sampling)
        known = exact([]) is not None
        if known:
            q_of = warped(engine.draft_logits, prompt, sampling)
            tree = grow(exact, q_of, depth)
        else:
            seeds = (replace(sampling, seed=10**9 + i) for i in range(PILOT))
            pilot = [ask(against, prompt, one, depth + 1) for one in seeds]
            rows, names = estimated(pilot, depth)
            tree = grow(rows, lambda text: None, depth, names)
        needs = {
            fault: _need(tree, fault, trial, _fewer(kept_rate, LOOK * (depth - 1), after), known)
            for fault, (_, _, after) in FAULTS.items()
            # what depends on kept guesses shows where the engine tells them
            if (after is None or (kept_rate is not None and depth > 1))
            and not torch.allclose(tree.joint[fault], tree.joint["honest"])
        }
        found.append(Plan(prompt, tree, needs, known))
        if not known:
            break  # estimates cost as many texts at every place
    far = 2 * trial.samples
    return min(
        found, key=lambda one: max((need or far for need in one.needs.values()), default=far)
    )


def share_kept(draws: Sequence[Said], depth: int) -> float | None:
    """Share of kept guesses among the tokens that another one is judged after."""
    flags = [said.kept(at) for said in draws for at in range(depth - 1)]
    known = [flag for flag in flags if flag is not None]
    return sum(known) / len(known) if known else None


def _fewer(rate: float | None, tokens: int, state: int | None) -> float | None:
    """The share of kept guesses in ``tokens``, moved by its spread so that ``state`` is rarer."""
    if rate is None or state is None or not tokens:
        return rate
    spread = math.sqrt(max(rate * (1 - rate), 1 / tokens) / tokens)
    return min(1.0, max(0.0, rate - spread if state == 0 else rate + spread))


def _need(tree: Tree, fault: str, trial: Trial, kept_rate: float | None, exact: bool) -> int | None:
    """Texts that catch a fault, with some room since simulated runs are few; None if too many."""
    for most in (trial.samples // 16, trial.samples // 4, trial.samples):
        counts = runs(tree, fault, most, trial, kept_rate, exact, seed=1)
        caught = sorted(count for count in counts if count is not None)
        enough = math.ceil(trial.power * len(counts))
        if len(caught) >= enough:
            return math.ceil(ROOM * caught[enough - 1])
    return None


def runs(
    tree: Tree, fault: str, draws: int, trial: Trial, kept_rate: float | None, exact: bool,
    seed: int,
) -> list[int | None]:  # fmt: skip
    """After how many texts each simulated run of a planted fault was caught."""
    generator, found = torch.Generator().manual_seed(seed), []
    after = FAULTS[fault][2]
    for _ in range(RUNS):
        seen = tree.simulate(fault, draws, generator, kept_rate)
        # what shows after some tokens alone has a test of its own
        seen = seen if after is None else seen.where(seen.state == after)
        plain = None if exact else tree.simulate("honest", draws, generator, None)
        found.append(crossing(tree, seen, trial.alpha / TESTS, plain))
    return found
