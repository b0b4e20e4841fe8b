"""Where samples are counted: the texts after a prompt, cut into few cells with known chances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from mspeckv_study.verification.engine import Said
from mspeckv_study.verification.faults import FAULTS, coarse, honest, stand_in

Row = Callable[[Sequence[int]], torch.Tensor | None]
"""Of a text after the prompt: probabilities ``[V]``."""
NAMED, LEAST = 40, 0.004
"""Tokens with a cell of their own, at most; and their least chance."""
ENUMERATED = 600
"""So many texts are all gone on from; of more, the likely ones."""
KNOWN, GUESSED = (32, 0.004), (6, 0.02)
"""Texts to go on from, at most, and the least chance of one: of known chances and of estimates."""
TOLD, ASKED = (0, 1), 2
"""The state before a token: a kept guess, another token, or unknown (and before the first)."""


@dataclass(frozen=True)
class Events:
    """Tokens that were drawn, each an entry.

    Attributes:
        draw: which text it belongs to, rising.
        place: the context that it was drawn in.
        state: what came before: 0 a kept guess, 1 any other token, 2 unknown or nothing.
        cell: where it fell.
    """

    draw: torch.Tensor
    place: torch.Tensor
    state: torch.Tensor
    cell: torch.Tensor

    def where(self, mask: torch.Tensor) -> Events:
        """Those of them."""
        return Events(self.draw[mask], self.place[mask], self.state[mask], self.cell[mask])


@dataclass(frozen=True)
class Tree:
    """Contexts after one prompt, and in each the cells of the next token.

    Attributes:
        contexts: texts after the prompt; the first is empty.
        cells: of each context, the cell of each token; ``rest`` of one that is not in it.
        rest: of each context.
        p: ``[C, K]``, chances of the cells by plain decoding.
        child: ``[C, K]``, the context that a cell leads to, or -1.
        joint: by fault, ``[C, 2, 2, K]``: after a kept guess or another token, how likely the next
            one falls into each cell as a kept guess and otherwise; "honest" is the rule itself.
        enumerated: every text of the depth has a cell.
        depth: tokens of a text.
        acceptance: of the draft that the faults are planted with, after the prompt.
    """

    contexts: tuple[tuple[int, ...], ...]
    cells: tuple[dict[int, int], ...]
    rest: tuple[int, ...]
    p: torch.Tensor
    child: torch.Tensor
    joint: dict[str, torch.Tensor]
    enumerated: bool
    depth: int
    acceptance: float

    def events(self, draws: Sequence[Said]) -> Events:
        """What was drawn, by context and cell."""
        found = []
        for number, said in enumerate(draws):
            place = 0
            for at, token in enumerate(said.tokens[: self.depth]):
                cell = self.cells[place].get(token, self.rest[place])
                kept = said.kept(at - 1) if at else None
                found.append((number, place, ASKED if kept is None else int(not kept), cell))
                place = int(self.child[place, cell])
                if place < 0:
                    break
        return Events(*torch.tensor(found, dtype=torch.long).reshape(-1, 4).T)

    def simulate(
        self, fault: str, draws: int, generator: torch.Generator, kept_rate: float | None
    ) -> Events:
        """What an engine with a planted ``fault``, or an "honest" one, draws.

        ``kept_rate`` is how often a token is a kept guess; None where the engine does not tell.
        """
        joint, width = self.joint[fault], self.p.shape[1]
        number = torch.arange(draws)
        place, state = torch.zeros_like(number), torch.zeros_like(number)
        parts = []
        for at in range(self.depth):
            cell, kept = torch.empty_like(place), torch.empty_like(place, dtype=torch.bool)
            for one in (place * 2 + state).unique().tolist():
                here = (place * 2 + state == one).nonzero()[:, 0]
                shares = joint[one // 2, one % 2].flatten()
                found = torch.multinomial(shares, len(here), replacement=True, generator=generator)
                cell[here], kept[here] = found % width, found < width
            told = kept_rate is not None and at > 0
            parts.append((number, place, state if told else torch.full_like(state, ASKED), cell))
            if kept_rate is not None:
                kept = torch.rand(len(kept), generator=generator) < kept_rate
            following = self.child[place, cell]
            on = following >= 0
            number, place, state = number[on], following[on], (~kept[on]).long()
        joined = [torch.cat(part) for part in zip(*parts, strict=True)]
        order = joined[0].argsort(stable=True)
        return Events(*(part[order] for part in joined))

    @cached_property
    def densities(self) -> dict[str, torch.Tensor]:
        """By planted fault ``[C, 3, K]``: chances after a kept guess, another token, and untold."""
        found = {}
        for fault in FAULTS:
            joint = self.joint[fault]
            known = joint.sum(2)
            mixed = known[:, 0].clone()
            for place, cell in (self.child >= 0).nonzero().tolist():
                # of those who come here, so many were not kept
                came = joint[place, 0, :, cell]
                share = came[1] / came.sum().clamp(min=1e-300)
                child = int(self.child[place, cell])
                mixed[child] = (1 - share) * known[child, 0] + share * known[child, 1]
            found[fault] = torch.cat([known, mixed[:, None]], 1)
        return found


def grow(p_of: Row, q_of: Row, depth: int, names: Sequence[int] | None = None) -> Tree:
    """The contexts and cells after a prompt.

    Args:
        p_of: plain decoding's distribution after a text.
        q_of: the draft's; where it gives None, a stand-in's.
        depth: tokens of a text.
        names: the token of each entry of a distribution; default: its place.
    """
    contexts: list[_Context] = []
    waiting: list[tuple[float, tuple[int, ...], int, int]] = [(-1.0, (), -1, -1)]
    enumerated, (most, often) = False, KNOWN if names is None else GUESSED
    while waiting and len(contexts) < (ENUMERATED if enumerated else most):
        waiting.sort()
        share, text, parent, cell = waiting.pop(0)
        p, q = p_of(text), q_of(text)
        assert p is not None
        p = p.double()
        q = stand_in(p) if q is None else q.double()
        enumerated = enumerated or (not text and len(p) ** depth <= ENUMERATED)
        one = _Context(text, parent, cell, p, q, *_cells(p, q, enumerated))
        contexts.append(one)
        for token in one.named if len(text) < depth - 1 else []:
            mass = share * float(p[token])
            if -mass >= often or (enumerated and mass < 0):
                following = (*text, token if names is None else names[token])
                waiting.append((mass, following, len(contexts) - 1, int(one.cell_of[token])))
    return _joined(contexts, depth, enumerated, names)


@dataclass(frozen=True)
class _Context:
    text: tuple[int, ...]
    parent: int
    cell: int
    p: torch.Tensor
    q: torch.Tensor
    cell_of: torch.Tensor
    named: list[int]


def _cells(p: torch.Tensor, q: torch.Tensor, enumerated: bool) -> tuple[torch.Tensor, list[int]]:
    """The cell of each token, and the tokens with one of their own.

    The others share two: those that the draft likes more than the target does, and the rest.
    """
    order = p.argsort(descending=True)
    if enumerated:
        return torch.arange(len(p)), order[p[order] > 0].tolist()
    named = order[: min(NAMED, int((p >= LEAST).sum()))]
    cell_of = len(named) + (q <= p).long()
    cell_of[named] = torch.arange(len(named))
    return cell_of, named.tolist()


def _joined(
    contexts: list[_Context], depth: int, enumerated: bool, names: Sequence[int] | None
) -> Tree:
    width = max(int(one.cell_of.max()) + 1 for one in contexts)

    def pooled(shares: torch.Tensor, one: _Context) -> torch.Tensor:
        empty = shares.new_zeros(*shares.shape[:-1], width)
        return empty.index_add(-1, one.cell_of, shares)

    child = torch.full((len(contexts), width), -1)
    for place, one in enumerate(contexts[1:], 1):
        child[one.parent, one.cell] = place
    joint = {}
    for name, (_, rule, after) in {"honest": ("", honest, None), **FAULTS}.items():
        rows = [
            pooled(rule(coarse(one.p) if state == after and one.text else one.p, one.q), one)
            for one in contexts
            for state in TOLD
        ]
        joint[name] = torch.stack(rows).unflatten(0, (-1, len(TOLD)))
    tokens = [range(len(one.p)) if names is None else names for one in contexts]
    cells = [one.cell_of.tolist() for one in contexts]
    return Tree(
        tuple(one.text for one in contexts),
        tuple(dict(zip(*pairs, strict=True)) for pairs in zip(tokens, cells, strict=True)),
        tuple(width - 1 if enumerated else len(one.named) + 1 for one in contexts),
        torch.stack([pooled(one.p, one) for one in contexts]),
        child,
        joint,
        enumerated,
        depth,
        float(torch.minimum(contexts[0].p, contexts[0].q).sum()),
    )
