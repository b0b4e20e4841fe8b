"""A trial pass: does a model do with its cache and its attention what the engine relies on?

Every layer hands new keys and values to its own cache layer, once and in order, and then attends,
once, over the very tensors that it gets back. What a configuration does not tell shows here:
attention of a model's own, keys repeated or split before attention, layers that share a cache layer
or run several times, masks and other extras. A layer that sees a window must say so as well: by its
mask, or by an option of its attention. One pass over two tokens, so about a decode step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache, PreTrainedModel
from transformers.masking_utils import causal_mask_function as causal

from mspeckv.context import Pass, Shown, carrying
from mspeckv.kv.floats import Buffer, FloatLayer
from mspeckv.kv.kinds import Sight
from mspeckv.kv.layers import Tier
from mspeckv.kv.recurrent import layers_of
from mspeckv.kv.scores import Scores
from mspeckv.kv.shape import KVShape
from mspeckv.models.checks import ALLOWED, cache_argument
from mspeckv.models.interface import changes_scores, check_options, index_of, sight_of
from mspeckv.models.stepwise import read_stepwise
from mspeckv.settings import refuse

_PAST, _NEW = 2, 2
_LARGE = 1e3
"""A state that no later token outweighs."""


class _Unlike(Exception):
    """What the model does otherwise."""


class _TrialLayer(FloatLayer):
    """Holds tokens already, and notes what it is given and what it gives back."""

    def __init__(self, index: int, shape: KVShape, updates: list[int], device: torch.device):
        # A slot more than is used: views of the keys are then laid out as in any run.
        super().__init__(Buffer(shape, _PAST + _NEW + 1, device))
        for part in self.buffer.whole:
            part.zero_()
        self.length, self.index, self.updates = _PAST, index, updates
        self.expected = (1, shape.heads, _NEW, shape.dim)
        self.shown: Shown | None = None

    def append(self, key: torch.Tensor, value: torch.Tensor) -> Shown:
        """Take new tokens, if the shapes are those that the configuration tells."""
        for part, what in ((key, "keys"), (value, "values")):
            if tuple(part.shape) != self.expected:
                raise _Unlike(
                    f"layer {self.index} caches {what} of shape {tuple(part.shape)}, where its "
                    f"configuration tells {self.expected}"
                )
        self.updates.append(self.index)
        self.shown = super().append(key, value)
        return self.shown


def check_pass(model: PreTrainedModel, field: str, ranks: int = 1) -> int:
    """Refuse a model that uses its cache or its attention in another way than the engine does.

    Args:
        model: passed every check of `mspeckv.models.checks`.
        ranks: processes that the model's heads are shared out over.

    Returns:
        Bytes of all its recurrent states.

    Raises:
        ValueError: see above; it names the model's class and what it does.
    """
    config = model.config.get_text_config()
    shape = KVShape.of(config, model.dtype, ranks)
    updates: list[int] = []
    attended: list[int] = []
    kinds = shape.every
    layers = layers_of(
        shape, lambda index, _: _TrialLayer(index, shape, updates, model.device), reach=0
    )
    cache = Tier(layers=layers)
    masks = _Masks(config.max_position_embeddings)

    def attend(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *given: Any,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        layer = index_of(module)
        masks.check(layer, sight_of(module), attention_mask, options.get("sliding_window"))
        check_options(None, options)
        if Scores.of(options) is not None and (shape.latent or not changes_scores(model)):
            raise _Unlike(f"layer {layer} changes its scores")
        shown = layers[layer].shown
        attended.append(layer)
        if updates[-1:] != [layer]:
            raise _Unlike(f"layer {layer} attends over what is cached as layer {updates[-1:]}")
        expands = shape.latent and key.shape[2] == value.shape[2] == _PAST + _NEW
        if shown is None or not (expands or (key is shown.key and value is shown.value)):
            raise _Unlike(
                f"layer {layer} attends over other keys and values than its cache returned"
            )
        if query.shape[1] % key.shape[1]:
            raise _Unlike(f"its {query.shape[1]} query heads do not share {shape.heads} KV heads")
        out = scaled_dot_product_attention(query, key, value, enable_gqa=True)
        return out.transpose(1, 2).contiguous(), None

    try:
        if shape.states and not _reads_alike(model, _PAST):
            if not _reads_alike(model, 0):
                raise _Unlike("its states depend on how a text came in passes")
            read_stepwise(model)
        own_dtype = torch.autocast(model.device.type, enabled=False)
        with carrying(Pass(attend, mask=masks.make)), own_dtype, torch.no_grad():
            new = torch.arange(_NEW, device=model.device)[None]
            logits = _read(model, new, cache, _PAST)
        once = [index for index, kind in enumerate(kinds) if kind.sight is not None]
        for index, kind in enumerate(kinds):
            if kind.states and not cache.has_previous_state(index):
                raise _Unlike(f"layer {index} keeps no state in its cache")
        if attended != once or updates != once:
            raise _Unlike(
                f"its cache layers are written in the order {updates} and attended over in the "
                f"order {attended}, not each once: {once}"
            )
        given, wanted = tuple(logits.shape), (1, 1, config.vocab_size)
        if given != wanted:
            raise _Unlike(f"asked for the logits of one token, it returns {given}, not {wanted}")
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # Whatever a model's code raises here, it would raise in a run.
        told = str(error).partition(";")[0].partition("\n")[0]
        reason = told if isinstance(error, _Unlike) else f"a trial pass fails: {told}"
        raise refuse(field, type(model).__name__, f"{reason}; {ALLOWED}") from error
    return sum(state.bytes_to_read(0) for state in cache.states)


@torch.no_grad()
def _reads_alike(model: PreTrainedModel, past: int) -> bool:
    """Whether a text after ``past`` tokens is read alike by one pass and by passes of one token.

    Some of transformers' recurrent layers begin anew with every pass of several tokens. A state of
    the past is made large, so that it shows whether it counts. Without a past it shows whether such
    a model can be read token by token (`mspeckv.models.stepwise`).
    """
    ids = torch.arange(_PAST + _NEW, device=model.device)[None]
    found = []
    for width in (_PAST + _NEW, 1):
        cache = DynamicCache(config=model.config)
        if past:
            _read(model, ids[:, :past], cache)
            for state in _states(cache):
                state.fill_(_LARGE)
        logits = [_read(model, part, cache) for part in ids[:, past:].split(width, 1)]
        found.append([logits[-1], *_states(cache)])
    rounding = 1e-3 if model.dtype == torch.float32 else 0.05
    pairs = ((one.float(), other.float()) for one, other in zip(*found, strict=True))
    return all(bool((one - other).norm() <= rounding * other.norm()) for one, other in pairs)


def _states(cache: DynamicCache) -> list[torch.Tensor]:
    """The recurrent states of transformers' cache."""
    held = (getattr(layer, "recurrent_states", {}).values() for layer in cache.layers)
    return [state for states in held for state in states if state is not None]


def _read(model: PreTrainedModel, ids: torch.Tensor, cache: Any, past: int = 0) -> torch.Tensor:
    """Logits after tokens that are their own positions, ``past`` further on."""
    given = {"input_ids": ids, "position_ids": ids + past, cache_argument(model): cache}
    logits: torch.Tensor = model(**given, use_cache=True, logits_to_keep=1).logits
    return logits


class _Masks:
    """Masks that a model hands to its layers, and what each would let a query see."""

    def __init__(self, positions: int) -> None:
        self.positions = positions
        self._made: list[tuple[torch.Tensor, Callable[..., Any]]] = []

    def make(self, *, mask_function: Callable[..., Any] = causal, **_: Any) -> torch.Tensor:
        """What transformers asks for."""
        self._made.append((torch.zeros(1, 1, _NEW, _PAST + _NEW, dtype=torch.bool), mask_function))
        return self._made[-1][0]

    def check(self, layer: int, sight: Sight, mask: torch.Tensor | None, window: Any) -> None:
        """Compare what a layer sees with what its configuration tells."""
        functions = [function for made, function in self._made if made is mask]
        if mask is not None and not functions:
            raise _Unlike(f"layer {layer} has a mask of its own")
        told = sight.tokens and not sight.chunked and window == sight.tokens
        if functions:
            told = self._alike(sight, functions[0])
        elif not sight.tokens:
            told = not window or window >= self.positions
        if not told:
            raise _Unlike(f"layer {layer} sees other tokens than its configuration tells")

    def _alike(self, sight: Sight, function: Callable[..., Any]) -> bool:
        """Whether queries around the borders see the same."""
        most = self.positions - 1
        places = {most, *(min(most, sight.tokens * k + d) for k in (1, 2) for d in (-1, 0, 1))}
        for query in (place for place in places if place >= 0):
            first = max(0, sight.first(query))
            for key in {0, first - 1, first, query, query + 1} - {-1}:
                at = (torch.tensor(index) for index in (0, 0, query, key))
                if bool(function(*at)) != (first <= key <= query):
                    return False
        return True
