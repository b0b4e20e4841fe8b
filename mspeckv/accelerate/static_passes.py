"""Passes of fixed shape: the same kernels on the same addresses, whatever has been decoded so far.

Saves nothing by itself: these are the passes that CUDA graphs replay (`mspeckv.accelerate.graphs`).
To launch a pass's kernels one by one takes the host longer than the GPU takes to compute them, even
for a 7B model. So nothing in such a pass depends on a length that only the host knows: token ids,
positions and slots lie in device buffers, new keys go where the slots say, and every layer shows
all of its slots (`mspeckv.accelerate.slot_attention`).

The same passes run on a CPU, without a graph; the tests compare them with the ordinary ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from mspeckv.accelerate.graphs import Cut, Direct, StaticInputs
from mspeckv.accelerate.slot_attention import CodeSlots, Slots, attend_slots, readable
from mspeckv.context import Shown
from mspeckv.decoding.reader import ModelReader, Seat
from mspeckv.events import Step
from mspeckv.kv.blocks import BlockLayer
from mspeckv.kv.floats import Buffer, FloatLayer
from mspeckv.kv.latent import latent_widths
from mspeckv.kv.layers import PlacedLayer, Tier
from mspeckv.kv.placement import ResidentLayer
from mspeckv.kv.shape import KVShape
from mspeckv.models.interface import changes_scores

LONGEST = 64
"""Tokens of the longest static pass; longer ones are rare, and busy enough by themselves."""
_OWN_SHAPE = 4
"""Passes up to this length have a shape of their own where lengths are fixed; longer ones share."""


def width_of(tokens: int) -> int:
    """Tokens that a static pass over ``tokens`` reads: beyond four, the next power of two.

    Capturing a pass takes as long as several replays, and chosen lengths try many; and a GPU's
    matrix product hardly tells 9 rows from 16.
    """
    return tokens if tokens <= _OWN_SHAPE else 1 << (tokens - 1).bit_length()


class SlottedLayer(PlacedLayer):
    """One layer of a cache, as a static pass sees it.

    Args:
        cut: called with the host's work, where there is any.
        settled: slots that hold the prompt.
        rows: of a KV head, where attention may read a resident layer's codes; else 0.
        looked_at: whether a layer must be unpacked for who looks on, even so.
    """

    def __init__(
        self, base: PlacedLayer, inputs: StaticInputs, cut: Cut, settled: int, rows: int,
        looked_at: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.base, self.inputs, self.cut, self.settled = base, inputs, cut, settled
        self.codes = shows_codes(base, rows)
        self.unpacks = isinstance(under(base), BlockLayer) and (looked_at or not self.codes)
        self.length = filled(base)

    def append(self, key: torch.Tensor, value: torch.Tensor) -> Shown:
        """Put the new tokens where the slots say; shows every slot."""
        base, inputs = under(self.base), self.inputs
        packed = isinstance(base, BlockLayer)
        if self.unpacks:
            # what is on the host, or packed, when the pass is run
            self.cut(lambda: self.base.bring(filled(self.base)))
        if packed:
            key, value = base.codec.turn(key), base.codec.turn(value)
        if inputs.ring:
            # what padding computes may differ in the last bit
            key, value = (part.index_select(2, inputs.stands) for part in (key, value))
        if packed:
            base.tail.write_at(inputs.tail, key, value)
        if self.unpacks or not packed:
            view_of(base).write_at(inputs.slots, key, value)
        if self.codes:
            key, value = base.tail.whole
            return CodeSlots(key, value, inputs, self.settled, base)
        shown = Slots(*view_of(base).whole, inputs, self.settled)
        return base.in_its_axes(shown) if packed else shown


def shows_codes(layer: Any, rows: int) -> bool:
    """Whether attention by ``rows`` of a KV head reads a layer's codes."""
    return isinstance(layer, ResidentLayer) and readable(layer.codec, rows)


def code_width(layers: Sequence[Any], groups: int) -> int:
    """Tokens of the widest pass that reads some layer's codes; 0 where only short ones do."""
    widths = (w for w in (16, 8) if any(shows_codes(layer, groups * w) for layer in layers))
    return next(widths, 0)


def under(layer: Any) -> Any:
    """The layer itself, or the one that it is another look at."""
    return getattr(layer, "base", layer)


def filled(layer: Any) -> int:
    """Slots of a layer that hold a token."""
    return max(int(layer.length), int(under(layer).length))


def view_of(layer: PlacedLayer) -> Buffer:
    """Where every token of a layer can be found, by slot, once brought."""
    layer = under(layer)
    if isinstance(layer, FloatLayer):
        return layer.buffer
    assert isinstance(layer, BlockLayer)
    return layer.scratch


def tail_start(cache: Tier) -> int:
    """Slot at which the float tails of packed layers begin."""
    packed = (layer for layer in map(under, cache.layers) if isinstance(layer, BlockLayer))
    return max((layer.packed_tokens for layer in packed), default=0)


def can_be_static(seat: Seat) -> bool:
    """Whether every layer is of a kind whose slots are known, and keys and scores are plain."""
    known = all(isinstance(under(layer), FloatLayer | BlockLayer) for layer in seat.cache.layers)
    expands = latent_widths(seat.model.config.get_text_config()) is not None
    return known and not seat.cache.states and not expands and not changes_scores(seat.model)


class StaticReader(ModelReader):
    """`ModelReader` by static passes; prefill and very long passes as there.

    Where lengths are chosen, rare ones share the shape of the longest (`Seat.longest`), or of the
    longest that reads codes, as a wider one unpacks them. Which are rare depends on what came
    before, and the last bit of a logit on the shape.

    Args:
        runner: runs, or replays, the passes of this reader and of others like it.
    """

    ring = False
    """See `mspeckv.accelerate.graphs.StaticInputs`."""

    def __init__(self, seat: Seat, runner: Direct) -> None:
        super().__init__(seat)
        self.runner = runner
        self._slots = int(view_of(self.cache.layers[0]).key.shape[2])
        self._kernels = {Slots: attend_slots, **seat.kernels}
        if self.ring:
            # bits that hang on nothing but a row have been checked on a GPU with this alone
            self._kernels[Slots] = attend_slots
        config = self.model.config.get_text_config()
        # queries of a KV head for each token, where attention may read codes
        self._groups = 0
        if CodeSlots in self._kernels and not self.ring:
            self._groups = config.num_attention_heads // KVShape.of(config, self.model.dtype).heads
        self._shared = width_of(seat.longest) if seat.longest <= LONGEST else 0
        self._narrow = min(code_width(self.cache.layers, self._groups), self._shared)
        for layer in self.cache.layers:
            # what is masked has no weight, but would have to be a number
            for part in view_of(layer).whole:
                part[:, :, seat.settled :].zero_()

    def _run(
        self, tokens: list[int], position: int, step: Step, rows: int
    ) -> tuple[torch.Tensor, bool]:
        first = filled(self.cache.layers[0])
        room = min(self._slots - first, self.cache.room(self.cache.length), LONGEST)
        if step == "prefill" or len(tokens) > room:
            return super()._run(tokens, position, step, rows)
        due, watched, looking = False, 0, self.seat.onlooker
        if looking is not None:
            due = looking.begin(position + len(tokens))
            watched = looking.slot_of(position)
        alike = due, self.seat.settled
        width = self._width(len(tokens), alike)
        inputs = self.runner.inputs.get(width)
        if inputs is None:
            inputs = self.runner.inputs[width] = StaticInputs(width, self.model.device, self.ring)
        inputs.fill(tokens, position, first, first - tail_start(self.cache), watched)
        logits, builds = self.runner.run((width, *alike), partial(self._body, inputs, due))
        for layer in self.cache.layers:
            layer.length = filled(layer) + len(tokens)
        return inputs.last(logits, len(tokens), rows), builds

    def _width(self, tokens: int, alike: tuple[object, ...]) -> int:
        """Rows of a pass over so many ``tokens``, of a graph like ``alike``."""
        width = width_of(tokens)
        shared = self._narrow if width <= self._narrow else self._shared
        rare = width < shared and self.runner.rare((width, *alike))
        return shared if rare else width

    def _body(self, inputs: StaticInputs, due: bool, cut: Cut) -> torch.Tensor:
        """The pass itself: logits ``[width, V]``, padding's included."""
        width, looking = inputs.width, self.seat.onlooker
        given = inputs, cut, self.seat.settled, self._groups * width, due
        cache = Tier(layers=[SlottedLayer(layer, *given) for layer in self.cache.layers])

        def watch(layer: int, query: torch.Tensor, shown: Shown) -> None:
            """`RetrievalCache.watch` of a static pass."""
            if looking is not None:
                looking.layers[layer].buffer.write_at(inputs.watched, *shown.newest(width))
                if due:
                    looking.choose(layer, query, *shown.whole(), inputs.real)

        return self._logits(inputs.ids, inputs.positions, cache, watch, width)
