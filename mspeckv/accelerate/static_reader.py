"""A reader whose decoding passes have fixed shapes, so that a GPU can replay them."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import torch

from mspeckv.accelerate.static_passes import (
    LONGEST,
    Cut,
    Mask,
    Slots,
    StaticInputs,
    attend_slots,
    filled,
    slotted,
    tail_start,
    under,
    view_of,
    width_of,
)
from mspeckv.context import Shown, Watcher
from mspeckv.decoding.reader import ModelReader, Seat
from mspeckv.events import Step


class Runner(Protocol):
    """`mspeckv.accelerate.graphs.Graphs`, or `Direct` there."""

    def rare(self, key: Any) -> bool:
        """Whether the static pass called ``key``, wanted now, had better be a shared one."""

    def ready(self, key: Any) -> bool:
        """Whether the pass called ``key`` builds nothing any more."""

    def run(self, key: Any, body: Any) -> torch.Tensor:
        """The logits of the static pass called ``key``."""


class StaticReader(ModelReader):
    """`ModelReader` by static passes; prefill and very long passes as there.

    Where lengths are chosen, rare ones share the shape of the longest (`Seat.longest`). Which are
    rare depends on what came before, and the last bit of a logit on the shape.

    Args:
        seat: as for `ModelReader`.
        runner: runs, or replays, a pass.
        inputs: buffers by width, kept with the runner: what it captured reads them.
    """

    def __init__(self, seat: Seat, runner: Runner, inputs: dict[int, StaticInputs]) -> None:
        super().__init__(seat)
        self.runner, self._inputs = runner, inputs
        self._kernels = {**seat.kernels, Slots: attend_slots}
        self._shared = width_of(seat.longest) if seat.longest <= LONGEST else 0
        for layer in self.cache.layers:
            # what is masked has no weight, but would have to be a number
            for part in view_of(under(layer)).whole:
                part[:, :, seat.settled :].zero_()

    def _run(
        self, tokens: list[int], position: int, step: Step, rows: int
    ) -> tuple[torch.Tensor, bool]:
        """Logits ``[rows, V]`` of the last of ``tokens``, and whether something was built."""
        if step == "prefill" or len(tokens) > LONGEST or self._room() < len(tokens):
            return super()._run(tokens, position, step, rows)
        due, watched, looking = False, 0, self.seat.onlooker
        if looking is not None:
            due = looking.begin(position + len(tokens))
            watched = looking.slot_of(position)
        width = width_of(len(tokens))
        if width < self._shared and self.runner.rare(self._key(width, due)):
            width = self._shared
        inputs = self._inputs.get(width)
        if inputs is None:
            inputs = self._inputs[width] = StaticInputs(width, self.model.device)
        first = filled(self.cache.layers[0])
        inputs.fill(tokens, position, first, first - tail_start(self.cache), watched)
        key = self._key(width, due)
        builds = not self.runner.ready(key)
        logits = self.runner.run(key, partial(self._body, inputs, due))
        for layer in self.cache.layers:
            layer.length = filled(layer) + len(tokens)
        return logits[len(tokens) - rows : len(tokens)], builds

    def _key(self, width: int, due: bool) -> tuple[object, ...]:
        """What two passes of one runner must share to be one graph."""
        return self.tier, width, due, self.seat.settled

    def _body(self, inputs: StaticInputs, due: bool, cut: Cut) -> torch.Tensor:
        """The pass itself: logits ``[width, V]``, padding's included."""
        slots = view_of(under(self.cache.layers[0])).key.shape[2]
        mask = Mask.of(inputs, self.seat.settled, slots, self.model.dtype)
        cache = slotted(self.cache, inputs, cut, mask)
        watcher = self._onlooking(inputs, due) if self.seat.onlooker is not None else None
        return self._logits(inputs.ids, inputs.positions, cache, watcher, inputs.width)

    def _onlooking(self, inputs: StaticInputs, due: bool) -> Watcher:
        """`RetrievalCache.watch` of a static pass."""
        looking = self.seat.onlooker
        assert looking is not None

        def watch(layer: int, query: torch.Tensor, shown: Shown) -> None:
            looking.layers[layer].buffer.write_at(inputs.watched, *shown.newest(inputs.width))
            if due:
                looking.choose(layer, query, *shown.whole(), inputs.real)

        return watch

    def _room(self) -> int:
        """Tokens that the cache still takes."""
        first = self.cache.layers[0]
        slots: int = view_of(under(first)).key.shape[2] - filled(first)
        return min(slots, self.cache.room(self.cache.length))
