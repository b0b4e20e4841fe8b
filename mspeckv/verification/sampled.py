"""Sampled text: is it distributed as plain decoding's own, and would we have seen it if not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from mspeckv.decoding.sampling import Sampler
from mspeckv.settings import Sampling
from mspeckv.testing.exactness import chi_square
from mspeckv.verification.asking import Asking, TimeUp
from mspeckv.verification.bets import crossing, quantile, wealth
from mspeckv.verification.engine import Engine, Said
from mspeckv.verification.faults import FAULTS
from mspeckv.verification.findings import Finding
from mspeckv.verification.tree import Events, Row, Tree, grow
from mspeckv.verification.trial import Trial

PILOT = 400
"""Texts of plain decoding from which its chances are estimated where it does not tell them."""
RUNS = 40
"""Simulated runs of each planted fault, for a plan and again for a control."""
LOOK, ROOM = 32, 1.3
"""Texts after which one first looks; by what a plan exceeds what its simulated runs needed."""
SUBSETS = {"after a kept guess": 0, "after a correction or bonus": 1}
_TESTS = 2 + len(SUBSETS)
"""Tests that share the error rate."""


@dataclass(frozen=True)
class Plan:
    """How many texts catch which fault.

    Attributes:
        prompt: the one where the fewest are needed.
        tree: its contexts.
        needs: by fault, texts within which ``power`` of the simulated runs were caught, or None.
        kept_rate: how often the engine's tokens are guesses that it kept; None if it does not tell.
        exact: whether plain decoding's chances are known, not estimated.
    """

    prompt: list[int]
    tree: Tree
    needs: dict[str, int | None]
    kept_rate: float | None
    exact: bool

    def budget(self, most: int) -> int:
        """Texts to draw."""
        return max((most if need is None else need for need in self.needs.values()), default=most)

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


def plan(
    engine: Engine, against: Engine, ask: Asking, prompts: Sequence[list[int]], trial: Trial
) -> Plan:
    """The prompt at which the planted faults are caught soonest, and how soon that is."""
    depth, sampling, found = trial.depth, trial.sampling, list[Plan]()
    for prompt in prompts:
        seeds = (replace(sampling, seed=sampling.seed + i) for i in range(LOOK))
        kept_rate = _kept_rate([ask(engine, prompt, one, depth + 1) for one in seeds], depth)
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
            fault: _need(tree, fault, trial, kept_rate, known)
            for fault in FAULTS
            if not torch.allclose(tree.joint[fault], tree.joint["honest"])
        }
        found.append(Plan(prompt, tree, needs, kept_rate, known))
    return min(found, key=lambda one: max(need or 2 * trial.samples for need in one.needs.values()))


def _kept_rate(draws: Sequence[Said], depth: int) -> float | None:
    """Share of kept guesses among the tokens that another one is judged after."""
    flags = [said.kept(at) for said in draws for at in range(depth - 1)]
    known = [flag for flag in flags if flag is not None]
    return sum(known) / len(known) if known else None


def _need(tree: Tree, fault: str, trial: Trial, kept_rate: float | None, exact: bool) -> int | None:
    """Texts that catch a fault, with some room since simulated runs are few; None if too many."""
    for most in (trial.samples // 16, trial.samples // 4, trial.samples):
        runs = _runs(tree, fault, most, trial, kept_rate, exact, seed=1)
        need = quantile(runs, trial.power)
        if need is not None:
            return math.ceil(ROOM * need)
    return None


def _runs(
    tree: Tree, fault: str, draws: int, trial: Trial, kept_rate: float | None, exact: bool,
    seed: int,
) -> list[int | None]:  # fmt: skip
    """After how many texts each simulated run of a planted fault was caught."""
    generator = torch.Generator().manual_seed(seed)
    return [
        crossing(
            tree,
            tree.simulate(fault, draws, generator, kept_rate),
            trial.alpha / _TESTS,
            None if exact else tree.simulate("honest", draws, generator, None),
        )
        for _ in range(RUNS)
    ]


def judge_samples(
    engine: Engine, against: Engine, ask: Asking, planned: Plan, trial: Trial
) -> list[Finding]:
    """Draw what was planned, stopping early where the engine is caught; then the controls."""
    tree, budget = planned.tree, min(planned.budget(trial.samples), trial.samples)
    draws, plain, late = list[Said](), list[Said](), False
    look = LOOK
    try:
        while len(draws) < budget:
            one = replace(trial.sampling, seed=trial.sampling.seed + len(draws))
            draws.append(ask(engine, planned.prompt, one, tree.depth + 1))
            if not planned.exact:
                other = replace(one, seed=2 * 10**9 + len(draws))
                plain.append(ask(against, planned.prompt, other, tree.depth + 1))
            if len(draws) == look:
                look *= 2
                if _crossed(planned, draws, plain, trial.alpha) is not None:
                    break
    except TimeUp:
        late = True
    return _findings(planned, draws, plain, trial, late=late)


def _crossed(planned: Plan, draws: list[Said], plain: list[Said], alpha: float) -> int | None:
    tree = planned.tree
    return crossing(
        tree, tree.events(draws), alpha / _TESTS, None if planned.exact else tree.events(plain)
    )


def _findings(
    planned: Plan, draws: list[Said], plain: list[Said], trial: Trial, *, late: bool
) -> list[Finding]:
    tree, rate = planned.tree, trial.alpha / _TESTS
    seen = tree.events(draws)
    others = None if planned.exact else tree.events(plain)
    kept_rate, missed = _kept_rate(draws, tree.depth), {}
    for fault in planned.needs:
        runs = _runs(tree, fault, len(draws), trial, kept_rate, planned.exact, seed=2)
        share = sum(run is not None for run in runs) / RUNS
        if share < trial.power:
            missed[fault] = share
    controls = ", ".join(
        f"{name} ({FAULTS[name][0]}{f'; {missed[name]:.0%} of runs' if name in missed else ''})"
        for name in planned.needs
    )
    caught = bool(planned.needs) and not missed
    short = f"; time was up after {len(draws)}" if late else ""
    finding = _bet("sampled: first tokens and short texts", tree, seen, others, rate)
    found = [
        Finding.of(
            finding[0], finding[1], f"{finding[2]}; {planned.words(trial.samples)}{short}", caught,
            f"{controls} in {trial.power:.0%} of {RUNS} runs of {len(draws)} texts each",
            texts=len(draws), needs=planned.needs, missed=missed, log_wealth=finding[3],
        )
    ]  # fmt: skip
    chance = _chi_square(planned, draws, plain)
    found.append(
        Finding.of(
            "sampled: chi-square over the texts", chance < rate,
            f"p = {chance:.2g} of {len(draws)} texts, a fault below {rate:.2g}", caught,
            "as above", p=chance,
        )
    )  # fmt: skip
    for name, state in SUBSETS.items() if kept_rate is not None else []:
        part = seen.where(seen.state == state)
        subset = _bet(f"sampled: {name}", tree, part, others, rate)
        fault = "kept" if state == 0 else "scale"
        found.append(
            Finding.of(
                subset[0], subset[1], subset[2], fault in planned.needs and fault not in missed,
                f"{fault} ({FAULTS[fault][0]})", tokens=len(part.cell), log_wealth=subset[3],
            )
        )  # fmt: skip
    if kept_rate is None:
        told = "the engine does not tell which tokens were guesses that it kept"
        found.append(Finding("sampled: after kept and rejected guesses", "not offered", told))
    return found


def _bet(
    check: str, tree: Tree, seen: Events, plain: Events | None, rate: float
) -> tuple[str, bool, str, float]:
    """The sequential test of some tokens: its name, whether they are at fault, words, wealth."""
    logs, draws = wealth(tree, seen, plain)
    best = float(logs.max()) if len(logs) else 0.0
    over = (logs >= -math.log(rate)).nonzero()
    told = (
        f"{len(seen.cell)} tokens, the bet against them came to e^{best:.1f} at most; "
        f"a fault from e^{-math.log(rate):.1f} on (error rate {rate:.2g})"
    )
    if len(over):
        told += f", reached after {int(draws[int(over[0])])} texts; {_gap(tree, seen, plain)}"
    return check, bool(len(over)), told, best


def _gap(tree: Tree, seen: Events, plain: Events | None) -> str:
    """The cell that came most out of line with its chance."""
    shape = tree.p.shape
    came = torch.bincount(seen.place * shape[1] + seen.cell, minlength=tree.p.numel()).view(shape)
    due = tree.p * came.sum(1, keepdim=True)
    if plain is not None:
        due = torch.bincount(plain.place * shape[1] + plain.cell, minlength=tree.p.numel())
        due = due.view(shape).double()
    odd = ((came - due).abs() / (due + 1).sqrt()).flatten().argmax()
    place, cell = int(odd) // shape[1], int(odd) % shape[1]
    tokens = [token for token, where in tree.cells[place].items() if where == cell]
    name = str(tokens[0]) if len(tokens) == 1 else f"one of {len(tokens)} rare ones"
    return (
        f"after {list(tree.contexts[place])} token {name} came {int(came[place, cell])} times, "
        f"where {float(due[place, cell]):.0f} are due"
    )


def _chi_square(planned: Plan, draws: list[Said], plain: list[Said]) -> float:
    """Chance of texts as far from plain decoding's as these."""
    tree = planned.tree

    def paths(events: Events) -> Counter[tuple[int, ...]]:
        found: dict[int, tuple[int, ...]] = {}
        for draw, place, cell in zip(
            events.draw.tolist(), events.place.tolist(), events.cell.tolist(), strict=True
        ):
            found[draw] = (*found.get(draw, ()), place, cell)
        return Counter(found.values())

    seen = paths(tree.events(draws))
    if planned.exact:
        return chi_square(seen, _chances(tree))
    other = paths(tree.events(plain))
    both = seen + other
    often = [path for path, count in both.items() if count >= 10]
    table = torch.tensor(
        [[side[path] for path in often] + [side.total() - sum(side[p] for p in often)]
         for side in (seen, other)],
        dtype=torch.float64,
    )  # fmt: skip
    table = table[:, table.sum(0) > 0]
    due = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
    distance = ((table - due) ** 2 / due).sum() / 2
    degrees = torch.tensor((table.shape[1] - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(degrees, distance)) if table.shape[1] > 1 else 1.0


def _chances(tree: Tree) -> dict[tuple[int, ...], float]:
    """The probability of each path."""
    found: dict[tuple[int, ...], float] = {}

    def walk(place: int, path: tuple[int, ...], mass: float) -> None:
        for cell, share in enumerate(tree.p[place].tolist()):
            here, child = (*path, place, cell), int(tree.child[place, cell])
            if child >= 0:
                walk(child, here, mass * share)
            else:
                found[here] = mass * share

    walk(0, (), 1.0)
    return found
