"""Recurrent layers that begin anew with every pass of several tokens, read token by token.

Some of transformers' recurrent layers (Jamba's Mamba, arXiv 2403.19887) go on from a state in
passes of one token only: a longer pass takes the text to begin with it. In a pass of ours such a
layer is handed its tokens one by one; attention and the rest of the model read them all at once, as
anywhere. For everyone else a layer does what it did.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
from transformers import Cache, PreTrainedModel

from mspeckv.context import current


def read_stepwise(model: PreTrainedModel) -> None:
    """Have every recurrent layer of a model's kind answer by thread."""
    for module in model.modules():
        # what keeps a state, and no layer around it
        recurrent = hasattr(module, "conv1d") and hasattr(module, "layer_idx")
        kind: Any = type(module)
        if recurrent and not hasattr(kind.forward, "stepwise"):
            kind.forward = _stepwise(kind.forward)


def _stepwise(own: Any) -> Any:
    """A layer's forward that goes on from its state in passes of ours."""

    @wraps(own)
    def forward(module: Any, hidden_states: torch.Tensor, *args: Any, **given: Any) -> Any:
        caches = [one for one in (*args, *given.values()) if isinstance(one, Cache)]
        goes_on = bool(caches) and caches[0].has_previous_state(module.layer_idx)
        if current() is None or not goes_on:
            return own(module, hidden_states, *args, **given)
        steps = [own(module, one, *args, **given) for one in hidden_states.split(1, 1)]
        return torch.cat(steps, 1)

    forward.stepwise = True  # type: ignore[attr-defined]
    return forward
