"""Recurrent layers: Mamba, gated delta rules, short convolutions.

Such a layer keeps one state for the whole text, and no token can be taken out of a state. So a copy
of it is made before a pass. Where guesses are taken back, the layer returns to the newest copy that
holds none of them, and the tokens that were kept since are read again (`mspeckv.kv.layers.Tier`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.cache_utils import LinearAttentionLayer

from mspeckv.kv.kinds import Sight
from mspeckv.kv.shape import KVShape
from mspeckv.kv.windows import WINDOW_SLACK

_LEAST_REACH = 8
_Part = tuple[torch.Tensor | None, torch.Tensor | None, bool]


class StateLayer(LinearAttentionLayer):  # type: ignore[misc]  # transformers is not typed here
    """A layer's state as transformers keeps it, and copies of earlier ones.

    Args:
        states: their number; 0 for a layer that keeps nothing of the text, as an MLP's.
        reach: tokens that may be taken back at most.

    Attributes:
        length: tokens that the state holds.
        marks: copies ``(length, state)``, oldest first.
    """

    attends = False
    beside = None

    def __init__(self, states: int, reach: int) -> None:
        super().__init__(number_of_states=states)
        self.length, self.reach = 0, reach
        self.marks: list[tuple[int, list[_Part]]] = []

    def stand_at(self, length: int) -> None:
        """As if ``length`` tokens had been read; what they were does not matter."""
        self.marks.clear()
        self.length = length

    def mark(self) -> None:
        """Copy the state; let go of copies that are no longer needed."""
        if not self.marks or self.marks[-1][0] != self.length:
            self.marks.append((self.length, self.held()))
        while len(self.marks) > 1 and self.marks[1][0] <= self.length - self.reach:
            del self.marks[0]

    def settle(self, length: int) -> None:
        """Return to the newest copy that holds no token from ``length`` on."""
        while self.marks and self.marks[-1][0] > length:
            self.marks.pop()
        if self.length > length:
            if not self.marks:
                raise RuntimeError(f"no state of {length} tokens or fewer is left")
            self.take(*self.marks[-1])

    def adopt(self, other: StateLayer, length: int) -> None:
        """Take another tier's state of at most ``length`` tokens, if it holds more of them."""
        found = [one for one in other.marks if one[0] <= length]
        if other.length <= length:
            found.append((other.length, other.held()))
        if found and found[-1][0] > self.length:
            self.take(*found[-1])

    def held(self) -> list[_Part]:
        """A copy of the state."""
        conv, recurrent, there = self.conv_states, self.recurrent_states, self.has_previous_state
        return [(_copy(conv[i]), _copy(recurrent[i]), there[i]) for i in there]

    def take(self, length: int, state: list[_Part]) -> None:
        """Have a copy's state."""
        self.length = length
        for i, (conv, recurrent, there) in enumerate(state):
            self.conv_states[i], self.is_conv_states_initialized[i] = _copy(conv), conv is not None
            self.conv_kernel_size[i] = None if conv is None else conv.shape[-1]
            self.recurrent_states[i] = _copy(recurrent)
            self.is_recurrent_states_initialized[i] = recurrent is not None
            self.has_previous_state[i] = there

    def restart(self) -> None:
        """Forget everything."""
        self.marks.clear()
        self.take(0, [(None, None, False)] * self.number_of_states)

    def bytes_to_read(self, length: int) -> int:
        """Bytes of the state."""
        return sum(int(part.nbytes) for part in self.contents)

    def bytes_by_place(self) -> dict[str, int]:
        """Its size is known when it has been read."""
        return {}

    @property
    def contents(self) -> list[torch.Tensor]:
        """The state."""
        parts = (*self.conv_states.values(), *self.recurrent_states.values())
        return [part for part in parts if part is not None]


def reach_of(slack: Any) -> Any:
    """Tokens that guesses may add to a state; ``slack`` as of `mspeckv.kv.sizes.window_slack`."""
    more = slack - WINDOW_SLACK + 2 - _LEAST_REACH
    return _LEAST_REACH + more * (more > 0)


def states_held(reach: Any) -> Any:
    """States of a layer at most: each pass leaves a copy behind, and adds a token at least."""
    return reach + 2


def layers_of(shape: KVShape, attending: Callable[[int, Sight], Any], reach: int) -> list[Any]:
    """All layers of a cache: of those without attention the states, or nothing.

    Args:
        attending: makes the layer of an index that has attention, which sees so far; where it keeps
            a state too, that stands beside it.
        reach: see `StateLayer`.
    """
    layers: list[Any] = []
    for index, kind in enumerate(shape.every):
        state = StateLayer(kind.states, reach)
        if kind.sight is None:
            layers.append(state)
            continue
        layer = attending(index, kind.sight)
        layers.append(layer)
        if kind.states:
            layer.beside = state
            # where older transformers' models look for it
            layer.conv_states, layer.recurrent_states = state.conv_states, state.recurrent_states
            layer.record_past = False
    return layers


def _copy(part: Any) -> Any:
    return None if part is None else part.clone()
