"""Tier 0's cache: attention sinks and a recent window (StreamingLLM, arXiv 2309.17453).

Window keys keep their absolute positions. The sinks are moved instead: whenever the window slides
they are read again at the positions just before it. That equals rotating their keys, since rotary
embeddings compose and sinks attend to sinks only, and it needs no knowledge of the model's rotary
layout. Sliding happens once per `slack` tokens, not per token.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mspeckv.kv.floats import Buffer, FloatLayer
from mspeckv.kv.kinds import ALL, Sight
from mspeckv.kv.layers import Tier
from mspeckv.kv.recurrent import layers_of, reach_of
from mspeckv.kv.shape import KVShape
from mspeckv.kv.windows import WindowLayer


def streaming_slots(sinks: int, window: int, slack: int) -> int:
    """Slots per layer of a `StreamingCache`."""
    return sinks + window + slack


class StreamingCache(Tier):
    """Sinks in slots ``[0, sinks)``, then the window.

    Args:
        sinks: first tokens always seen.
        window: recent tokens seen at least, as far as there are any.
        slack: tokens that may be appended before the window must slide.
    """

    settled_slots = 0  # the window slides

    def __init__(
        self, shape: KVShape, sinks: int, window: int, slack: int, device: torch.device
    ) -> None:
        self.sinks, self.window, self.slack = sinks, window, slack
        slots = streaming_slots(sinks, window, slack)

        def attending(index: int, sight: Sight) -> FloatLayer | WindowLayer:
            buffer = Buffer(shape, slots, device)
            return FloatLayer(buffer) if sight == ALL else WindowLayer(buffer, sight, slack)

        super().__init__(layers=layers_of(shape, attending, reach_of(slack)))
        self.dropped = 0

    @property
    def length(self) -> int:
        """Tokens of the sequence that the cache stands for, dropped ones included."""
        return int(self.attending[0].length) + self.dropped

    @property
    def bytes(self) -> int:
        """Bytes allocated."""
        return sum(int(layer.buffer.bytes) for layer in self.attending)

    def to_read(self, tokens: list[int]) -> Iterator[tuple[list[int], int]]:
        """Sinks and window of a prompt; later what is new, after the sinks where the window slides.

        A tier that was left out for many rounds begins anew: what it would see now is less to read
        than what it missed.
        """
        new = tokens[self.length :]
        if not self.length or len(new) > self.slack:
            self.restart()
            # of a prompt, sinks and window only
            self.dropped = max(0, len(tokens) - self.sinks - self.window)
            visible = tokens[: self.sinks] + tokens[self.sinks + self.dropped :]
            yield from self.again(visible, self.dropped)
            return
        filled = int(self.attending[0].length)
        if filled + len(new) > self.sinks + self.window + self.slack:
            aside = [(state, state.length, state.held()) for state in self.states]
            self.slide()
            if self.sinks:
                for state in self.states:
                    state.take(0, [(None, None, False)] * state.number_of_states)
                # they stand just before the window
                yield tokens[: self.sinks], self.dropped
                for state, length, held in aside:
                    state.take(length, held)
            for layer in self.attending:
                # the sinks are filled: show the window again
                layer.length = self.sinks + self.window
        yield from super().to_read(tokens)

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on."""
        for layer in self.attending:
            layer.settle(min(int(layer.length), length - self.dropped))
        for state in self.states:
            state.settle(length)

    def restart(self) -> None:
        """Forget everything: a prompt may be read anew."""
        self.dropped = 0
        super().restart()

    def slide(self) -> None:
        """Drop the oldest window tokens; afterwards the sinks must be read again.

        Leaves the cache with slots ``[0, sinks)`` open.
        """
        excess = int(self.attending[0].length) - self.sinks - self.window
        for layer in self.attending:
            kept = layer.buffer.read(int(layer.length), self.sinks + excess)
            layer.buffer.write(self.sinks, *(part.clone() for part in kept))
            layer.length = 0
        self.dropped += excess
