"""Sampled text: is it distributed as plain decoding's own, and would we have seen it if not."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import torch

from mspeckv.testing.exactness import chi_square
from mspeckv_study.verification.asking import Asking, TimeUp
from mspeckv_study.verification.bets import crossing, wealth
from mspeckv_study.verification.engine import Said
from mspeckv_study.verification.faults import FAULTS
from mspeckv_study.verification.findings import Finding
from mspeckv_study.verification.plan import LOOK, RUNS, TESTS, Plan, runs, share_kept
from mspeckv_study.verification.tree import Events, Tree
from mspeckv_study.verification.trial import Trial

SUBSETS = (("kept", "after a kept guess", 0), ("scale", "after a correction or bonus", 1))
"""Fault that is planted, what is tested, state of its tokens."""


def judge_samples(ask: Asking, planned: Plan, trial: Trial) -> list[Finding]:
    """Draw what was planned, stopping early where the engine is caught; then the controls."""
    tree, look = planned.tree, LOOK
    draws, plain = list[Said](), list[Said]()
    try:
        while len(draws) < planned.budget(trial.samples):
            one = replace(trial.sampling, seed=trial.sampling.seed + len(draws))
            said = ask(ask.engine, planned.prompt, one, tree.depth + 1)
            if not planned.exact:
                other = replace(one, seed=2 * 10**9 + len(draws))
                plain.append(ask(ask.against, planned.prompt, other, tree.depth + 1))
            draws.append(said)
            if len(draws) == look:
                look *= 2
                others = None if planned.exact else tree.events(plain)
                if crossing(tree, tree.events(draws), trial.alpha / TESTS, others) is not None:
                    break
    except TimeUp:
        plain = plain[: len(draws)]
    return _findings(planned, draws, plain, trial)


def _findings(planned: Plan, draws: list[Said], plain: list[Said], trial: Trial) -> list[Finding]:
    """The tests, and the same tests of as many texts with each planted fault."""
    tree, rate, most = planned.tree, trial.alpha / TESTS, planned.budget(trial.samples)
    seen, others = tree.events(draws), None if planned.exact else tree.events(plain)
    kept = share_kept(draws, tree.depth)
    shares = {}
    for fault in planned.needs:
        counts = runs(tree, fault, len(draws), trial, kept, planned.exact, seed=2)
        shares[fault] = sum(count is not None for count in counts) / RUNS

    def test(name: str, part: Events, *faults: str, chance: float | None = None) -> Finding:
        """The sequential test of some tokens, beside the faults that must show in it."""
        logs, _ = wealth(tree, part, others)
        best, texts = max(logs.tolist(), default=0.0), crossing(tree, part, rate, others)
        told = f"{len(part.cell)} tokens; the bet against them came to e^{best:.1f}, a fault from "
        told += f"e^{-math.log(rate):.1f} on (error rate {rate:.2g})"
        if texts is not None:
            told += f", reached after {texts} texts; {_gap(tree, part, others)}"
        if chance is not None:
            told += f"; chi-square over {len(draws)} texts: p = {chance:.2g}, a fault below "
            told += f"{rate:.2g}"
        known = [fault for fault in faults if fault in shares]
        caught = bool(known) and all(shares[fault] >= trial.power for fault in known)
        planted = [
            f"{fault} ({FAULTS[fault][0]}) in {shares[fault]:.0%} of runs" for fault in known
        ]
        faulty = texts is not None or (chance is not None and chance < rate)
        numbers = {"tokens": len(part.cell), "bet": best, "p": chance}
        return Finding.of(f"sampled: {name}", faulty, told, caught, ", ".join(planted), **numbers)

    # its p-value is for a number of texts that was settled before
    chance = _chi_square(planned, draws, plain) if len(draws) == most else None
    rules = [name for name, (_, _, after) in FAULTS.items() if after is None]
    whole = test("first tokens and short texts", seen, *rules, chance=chance)
    whole.numbers.update(texts=len(draws), plan=planned.words(trial.samples), power=shares)
    if kept is not None:
        parts = [(name, seen.where(seen.state == state), fault) for fault, name, state in SUBSETS]
        return [whole, *(test(*part) for part in parts)]
    told = "the engine does not tell which tokens were guesses that it kept"
    told = told if tree.depth > 1 else "texts of one token have none before it"
    return [whole, Finding("sampled: after kept and rejected guesses", "not offered", told)]


def _gap(tree: Tree, seen: Events, plain: Events | None) -> str:
    """The cell that came most out of line with its chance."""
    shape = tree.p.shape
    came = torch.bincount(seen.place * shape[1] + seen.cell, minlength=tree.p.numel()).view(shape)
    due = tree.p * came.sum(1, keepdim=True)
    if plain is not None:
        due = torch.bincount(plain.place * shape[1] + plain.cell, minlength=tree.p.numel())
        due = due.view(shape).double()
    odd = ((came - due).abs() / (due + 1).sqrt()).flatten().argmax()
    place, cell = divmod(int(odd), shape[1])
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
