"""``exact="bitwise"``: a token's logits are the same bits, whatever else is in its pass.

Saves nothing, and costs some time; how much, `benchmarks.bitwise` measures.

A sum of floats depends on its order, and kernels choose an order by the shape of their work. So a
pass of nine rows and one of one row give other last bits, and in half precision now and then
another token. Here tier 2's passes have one shape, whoever guesses and however much:

* A pass has 16 rows. Those that no token needs repeat the last one.
* A token stands in the row that its position leaves when divided by 16, alone or among others: if
  a kernel treats rows differently, then always this one so.
* Every slot of the cache is read, the prompt's by one call and those after it by another. A mask
  hides what comes after a row's own token; what is hidden adds exactly nothing.

Products, norms and attention then do the same for a token each time, by the same kernels on the
same shapes, and no row looks at another. Prompts are read alike by all methods, and blocks packed
from the same floats are the same bytes; so tokens, logits and stored KV are plain decoding's.

It holds for one machine, one number of threads and one prompt: a text that goes on in a second run
is a prompt there, and is read at once. Models of experts are refused: they multiply the rows of an
expert together, and how many those are depends on the others.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from mspeckv.accelerate.graphs import Direct
from mspeckv.accelerate.static_passes import StaticReader, can_be_static
from mspeckv.decoding.hooks import Hooks, MakeReader
from mspeckv.decoding.reader import ModelReader, Seat
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.models.interface import changes_scores
from mspeckv.models.pair import Pair
from mspeckv.settings import refuse

ROWS = 16
"""Rows of every pass of tier 2. A product of 16 rows hardly takes longer than one of nine."""


def plug(hooks: Hooks, device: torch.device) -> Hooks:
    """Have ``exact="bitwise"``."""
    return replace(hooks, exact={**hooks.exact, "bitwise": steady})


def steady(pair: Pair, make: MakeReader) -> MakeReader:
    """``make``, but tier 2 is read by passes of one shape.

    Raises:
        ValueError: the target has experts, layers that do not grow, or scores that are changed.
    """
    if any(name.endswith("experts") for name, _ in pair.target.named_modules()):
        raise refuse("exact", "bitwise", "experts multiply rows together: use exact='tokens'")
    shape = pair.kv_shape
    if shape.kinds or shape.latent or changes_scores(pair.target):
        allowed = "its windows, states, latents or scores have no steady pass: use exact='tokens'"
        raise refuse("exact", "bitwise", allowed)
    return partial(_reader, make)


def _reader(make: MakeReader, seat: Seat) -> ModelReader:
    made = make(seat)
    if seat.tier != 2:
        return made
    if not can_be_static(seat) or not isinstance(seat.onlooker, RetrievalCache | None):
        raise refuse("exact", "bitwise", "use a placement and a tier 1 that the engine knows")
    return SteadyReader(seat, made.runner if isinstance(made, StaticReader) else Direct())


class SteadyReader(StaticReader):
    """`StaticReader` whose passes have one width, and whose tokens have rows of their own."""

    ring = True

    def room(self, length: int) -> int:
        """Most guesses that may follow a prefix of ``length`` tokens in one pass."""
        return min(super().room(length), ROWS - 1)

    def _width(self, tokens: int, alike: tuple[object, ...]) -> int:
        return ROWS
