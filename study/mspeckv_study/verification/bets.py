"""Sequential tests with a stated error rate: betting against the engine being honest.

Each token that is drawn is a bet at fair odds: where plain decoding's chance of it is p, a stake
placed as f pays f / p. If the engine is honest, no stake grows on average, and the chance that
wealth ever comes to 1 / alpha is at most alpha, however often one looks and whenever one stops
(Ville's inequality; Ramdas, Grünwald, Vovk and Shafer, arXiv 2210.01948, section 2). The stake is
split among the planted faults, at full and at half weight, and among shares that are learnt from
the tokens before, in each context and after each kind of token (Dirichlet priors around p).

Where p is not known, tokens come in pairs, one of the engine and one of plain decoding in the same
context. An honest pair is as likely the other way round, so that a bet on the order as it came pays
twice its weight (Shekhar and Ramdas, arXiv 2112.09162, section 3; the pair's own bet is that of
Pandeva et al., arXiv 2210.13027, section 3).
"""

from __future__ import annotations

import math

import torch

from mspeckv_study.verification.tree import ASKED, Events, Tree

PRIORS = (8.0, 64.0, 512.0)
"""Tokens that the belief in p is worth before the first one is seen."""


def _before(key: torch.Tensor) -> torch.Tensor:
    """How many earlier entries have the same key."""
    order = key.argsort(stable=True)
    sorted_key, rank = key[order], torch.arange(len(key))
    first = torch.ones_like(sorted_key, dtype=torch.bool)
    first[1:] = sorted_key[1:] != sorted_key[:-1]
    start = torch.where(first, rank, 0).cummax(0).values
    out = torch.empty_like(rank)
    out[order] = rank - start
    return out


def wealth(
    tree: Tree, seen: Events, plain: Events | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Natural logarithm of the wealth after each bet, of one coin at first; and texts by then.

    Args:
        tree: the contexts.
        seen: the engine's tokens.
        plain: plain decoding's, where its chances in ``tree`` are estimates alone.

    Returns:
        Both ``[n]``: an entry for each of ``seen``, or for each pair.
    """
    if not len(seen.cell):
        return torch.zeros(0, dtype=torch.float64), seen.draw
    paid, draws = _bets(tree, seen) if plain is None else _paired_bets(tree, seen, plain)
    stakes = paid.clamp(-1e3, 1e4).cumsum(1)
    return stakes.logsumexp(0) - math.log(len(stakes)), draws + 1


def _bets(tree: Tree, seen: Events) -> tuple[torch.Tensor, torch.Tensor]:
    """``[stakes, n]``: logarithms of what each stake pays; and the texts that the bets are on."""
    fair = tree.p[seen.place, seen.cell]
    where = seen.place * 3 + seen.state
    in_cell, in_all = _before(where * tree.p.shape[1] + seen.cell), _before(where)
    staked = [(in_cell + prior * fair) / (in_all + prior) for prior in PRIORS]
    for density in tree.densities.values():
        share = density[seen.place, seen.state, seen.cell]
        staked += [share, (share + fair) / 2]
    # a token that cannot come is beyond every bet
    paid = torch.where(fair > 0, torch.stack(staked) / fair, torch.inf)
    return paid.log(), seen.draw


def _paired_bets(tree: Tree, seen: Events, plain: Events) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for pairs: the n-th tokens of both in a context."""
    count = len(tree.contexts) * (len(seen.cell) + len(plain.cell))
    ours = seen.place * count + _before(seen.place)
    theirs = plain.place * count + _before(plain.place)
    at = {key: i for i, key in enumerate(theirs.tolist())}
    both = [(i, at[key]) for i, key in enumerate(ours.tolist()) if key in at]
    mine, other = torch.tensor(both, dtype=torch.long).reshape(-1, 2).T
    place, x, y = seen.place[mine], seen.cell[mine], plain.cell[other]
    px, py = tree.p[place, x], tree.p[place, y]
    width, rows = tree.p.shape[1], torch.arange(len(mine))
    # how often each cell came before, of the engine and of plain decoding
    came = torch.zeros(2, len(mine), len(tree.contexts) * width, dtype=torch.float64)
    for side, cell in enumerate((x, y)):
        came[side, rows, place * width + cell] = 1
    came = came.cumsum(1) - came
    at_x, at_y = came[:, rows, place * width + x], came[:, rows, place * width + y]
    paid = [
        _twice((at_x[0] + prior * px) * (at_y[1] + prior * py),
               (at_y[0] + prior * py) * (at_x[1] + prior * px))
        for prior in PRIORS
    ]  # fmt: skip
    for density in tree.densities.values():
        fx, fy = density[place, ASKED, x], density[place, ASKED, y]
        paid += [_twice(fx * py, fy * px), _twice((fx + px) * py, (fy + py) * px)]
    return torch.stack(paid), torch.maximum(seen.draw[mine], plain.draw[other])


def _twice(as_came: torch.Tensor, reverse: torch.Tensor) -> torch.Tensor:
    """Logarithm of twice the weight of the order as it came."""
    total = as_came + reverse
    return torch.where(total > 0, 2 * as_came / total.clamp(min=1e-300), 1.0).log()


def crossing(tree: Tree, seen: Events, alpha: float, plain: Events | None = None) -> int | None:
    """Texts that had been drawn when wealth came to 1 / alpha; None if it never did."""
    logs, draws = wealth(tree, seen, plain)
    over = (logs >= -math.log(alpha)).nonzero()
    return int(draws[int(over[0])]) if len(over) else None
