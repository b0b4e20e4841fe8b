"""The rows of one call of the drop-in: each a run of its own, judged token by token.

A run settles several tokens at once; stopping criteria and streamers are shown one at a time, as
plain ``generate`` shows them. What comes after the token that ends a row is dropped.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import Any

import torch
from transformers import (
    DynamicCache,
    EosTokenCriteria,
    MaxLengthCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)
from transformers.cache_utils import Cache

from mspeckv.decoding.run import Run
from mspeckv.events import Round, RunSummary
from mspeckv.kv.full import FullCache
from mspeckv.settings import refuse

BY_ROW = (EosTokenCriteria, MaxLengthCriteria, StopStringCriteria)
"""Criteria that judge a row by its own tokens, whatever step it is and whatever others say.

Under them alone rows are decoded one after the other, so that they use the same caches.
"""


class Row:
    """One row: its run, and the tokens that it has shown.

    Args:
        run: of this row's prompt.
        cache: transformers' cache to fill when the row ends, if any.

    Attributes:
        tokens: the prompt's and those shown.
        settled: the run's, one by one.
        summary: the run's, once it has ended.
    """

    def __init__(self, run: Run, cache: Cache | None) -> None:
        self.run, self.tokens, self.over = run, list(run.prompt), False
        if cache is not None:
            run.on_end = partial(fill, cache)
        self._events = run.events()
        rounds = (event.tokens for event in self._events if isinstance(event, Round))
        self.settled = chain.from_iterable(rounds)
        self.summary: RunSummary

    def end(self) -> None:
        """No more tokens are wanted: what was shown is what the run has produced."""
        self.run.ending.keep(len(self.tokens) - len(self.run.prompt))
        for event in self._events:
            if isinstance(event, RunSummary):
                self.summary = event


def decode(
    rows: list[Row],
    criteria: StoppingCriteriaList,
    streamer: Any,
    padding: int,
    device: torch.device,
) -> None:
    """Show tokens step by step, until every row is over; see `BY_ROW` for which go together.

    Rows that are over get ``padding`` where a token may end them; else they go on with the rest, as
    in ``generate``.
    """
    pads = any(hasattr(one, "eos_token_id") for one in criteria)
    alone = BY_ROW if pads else MaxLengthCriteria
    together = streamer is not None or not all(isinstance(one, alone) for one in criteria)
    for group in [rows] if together else [[row] for row in rows]:
        while not all(row.over for row in group):
            for row in group:
                row.tokens.append(padding if row.over and pads else next(row.settled))
            ids = torch.tensor([row.tokens for row in group], device=device)
            if streamer is not None:
                streamer.put(ids[:, -1].cpu())
            enough = criteria(ids, None)
            for row, ends in zip(group, enough.tolist(), strict=True):
                if ends and not row.over:
                    row.over = True
                    if pads:
                        row.end()
        if not pads:
            for row in group:
                row.end()


def handed_in(model_kwargs: dict[str, Any], rows: int) -> tuple[str, Cache | None]:
    """The argument's name, and the caller's own cache; transformers may have made one by itself.

    Raises:
        ValueError: it cannot be filled as ``generate`` would: it holds tokens, is of another kind
            than `DynamicCache`, or is for several rows.
    """
    name = "cache" if "cache" in model_kwargs else "past_key_values"
    cache = model_kwargs.get(name)
    if cache is None or not getattr(cache, "_is_user_defined", False):
        return name, None
    if cache.get_seq_length():
        raise refuse(name, "a filled cache", "pass the whole prompt instead")
    if type(cache) is not DynamicCache:
        raise refuse(name, type(cache).__name__, "use a DynamicCache, or leave it out")
    if rows > 1:
        raise refuse(name, f"one for {rows} rows", "use one row, or leave it out")
    return name, cache


def fill(cache: Cache, full: FullCache, length: int) -> None:
    """Put tier 2's first ``length`` tokens into transformers' cache, as attention sees them."""
    full.begin_pass()
    for index, layer in enumerate(full.layers):
        key, value = layer.read(full.length).whole()
        with torch.inference_mode(mode=False), torch.no_grad():
            cache.update(key[:, :, :length].clone(), value[:, :, :length].clone(), index)
