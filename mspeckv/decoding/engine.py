"""Running a method: check, prefill, rounds, summary."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from operator import index
from typing import Any, Unpack, cast, overload

import numpy as np
import torch

from mspeckv.compatibility import check_lengths
from mspeckv.config import RunConfig, Sampling, Settings, refuse
from mspeckv.decoding.prefills import Prefills
from mspeckv.decoding.recorder import Progress
from mspeckv.decoding.run import Run
from mspeckv.decoding.sizes import check_method, uses_draft
from mspeckv.events import Event, RunSummary
from mspeckv.memory import check_memory
from mspeckv.models import Pair
from mspeckv.parallel import together

Prompt = str | Sequence[int]


@overload
def generate(
    pair: Pair,
    prompt: Prompt,
    *,
    cancel: threading.Event | None = None,
    on_progress: Progress | None = None,
    prefills: Prefills | None = None,
    **settings: Unpack[Settings],
) -> RunSummary: ...


@overload
def generate(
    pair: Pair,
    prompt: list[str] | list[list[int]],
    *,
    cancel: threading.Event | None = None,
    on_progress: Progress | None = None,
    prefills: Prefills | None = None,
    **settings: Unpack[Settings],
) -> list[RunSummary]: ...


def generate(
    pair: Pair,
    prompt: Prompt | list[str] | list[list[int]],
    *,
    cancel: threading.Event | None = None,
    on_progress: Progress | None = None,
    prefills: Prefills | None = None,
    **settings: Unpack[Settings],
) -> RunSummary | list[RunSummary]:
    """Decode after ``prompt``, or after each of several.

    Several prompts, of any lengths, are checked together and decoded one after the other, each
    exactly as if it were alone: rows of one batch would have to roll back by different lengths.

    Args:
        pair: models and tokenizer, from `mspeckv.load_pair`.
        prompt: text or token ids; or a list of either, for several.
        cancel: as in `stream`, and so ``on_progress`` and ``prefills``.
        settings: the fields of `RunConfig`: ``method``, ``new_tokens``, ``policy``,
            ``speculation``, ``sampling``, ``link``, ``device_gb`` and ``graphs``.

    Returns:
        The run's summary; for several prompts a list, which ends early when the run is cancelled.

    Raises:
        ValueError: a setting that is not allowed, before any work; the message says what is.
    """
    config = RunConfig.build(**settings)

    def begin(one: Prompt) -> Iterator[Event]:
        return stream(pair, one, config, cancel=cancel, on_progress=on_progress, prefills=prefills)

    if not isinstance(prompt, list) or not prompt or isinstance(prompt[0], Integral):
        return _summary(begin(cast("Prompt", prompt)))
    runs = [begin(row) for row in cast("list[Prompt]", prompt)]
    done: list[RunSummary] = []
    while len(done) < len(runs) and not (done and done[-1].cancelled):
        done.append(_summary(runs[len(done)]))
    return done


def _summary(events: Iterator[Event]) -> RunSummary:
    """The last of a run's events."""
    *_, last = events
    assert isinstance(last, RunSummary)
    return last


def stream(
    pair: Pair,
    prompt: Prompt,
    config: RunConfig | None = None,
    *,
    cancel: threading.Event | None = None,
    on_progress: Progress | None = None,
    prefills: Prefills | None = None,
) -> Iterator[Event]:
    """Decode, yielding one `Prefill`, a `Round` per tier-2 pass, and one `RunSummary`.

    Args:
        pair: models and tokenizer, from `mspeckv.load_pair`.
        prompt: text, or token ids.
        config: the run's settings; `RunConfig.build` makes one of `generate`'s keyword arguments.
        cancel: set it from another thread and the run ends within one pass, keeping what it has:
            the last event is then a `RunSummary` with ``cancelled`` true.
        on_progress: told of prefill as ``("prefill", layers done, layers)``.
        prefills: keeps the prompts that its runs have read; one that begins with the same caches
            takes them up instead, and its `Prefill` then tells the time of that, and no passes.

    Raises:
        ValueError: a setting that is not allowed; at the call, before any work.
    """
    config = config or RunConfig()
    with together(pair.ranks):
        tokens = encode_prompt(pair, prompt)
        check_run(pair, config, len(tokens))
    if pair.ranks is not None:
        pair.ranks.check_same("prompt and settings", (tokens, config))
    return Run(pair, config, tokens, cancel, on_progress, prefills=prefills).events()


def encode_prompt(pair: Pair, prompt: Prompt) -> list[int]:
    """Token ids of a prompt.

    Raises:
        ValueError: an empty prompt, an id outside the vocabulary, or text without a tokenizer.
    """
    if isinstance(prompt, str):
        if pair.tokenizer is None:
            raise refuse("prompt", prompt[:40], "this pair has no tokenizer: pass token ids")
        tokens = list(pair.tokenizer(prompt)["input_ids"])
    else:
        tokens = _ids(prompt)
    if not tokens:
        raise refuse("prompt", prompt, "it needs at least one token")
    wrong = next((token for token in tokens if not 0 <= token < pair.vocab_size), None)
    if wrong is not None:
        raise refuse("prompt", wrong, f"token ids lie in 0 .. {pair.vocab_size - 1}")
    return tokens


def _ids(prompt: Any) -> list[int]:
    """Token ids of whatever holds one row of them: a list, an array, a tokenizer's answer."""
    given = prompt["input_ids"] if isinstance(prompt, Mapping) and "input_ids" in prompt else prompt
    if isinstance(given, (torch.Tensor, np.ndarray)):
        given = given.tolist()
    if isinstance(given, Sequence) and len(given) == 1 and isinstance(given[0], Sequence):
        given = given[0]
    try:
        return [index(token) for token in given]
    except TypeError:
        shown = f"{type(prompt).__name__} {str(prompt)[:40]}"
        allowed = "use text, token ids, or one row of them as a tokenizer gives it"
        raise refuse("prompt", shown, allowed) from None


def check_run(pair: Pair, config: RunConfig, prompt: int) -> None:
    """Refuse a run that cannot work, before anything is allocated.

    Raises:
        ValueError: the placement, the length or the method does not fit this pair, or the run
            does not fit into memory.
    """
    config.policy.check_layers(pair.layers)
    check_method(config, pair)
    _check_stops(pair, config.sampling)
    total = prompt + config.new_tokens
    if total > pair.max_positions:
        raise refuse(
            "prompt + new_tokens",
            f"{prompt} + {config.new_tokens}",
            f"the target has {pair.max_positions} positions: "
            f"use at most {max(0, pair.max_positions - config.new_tokens)} prompt tokens",
        )
    check_lengths(pair.target.config, "target", prompt, config.new_tokens)
    if uses_draft(config, pair):
        assert pair.draft is not None
        check_lengths(pair.draft.config, "draft", prompt, config.new_tokens)
    check_memory(pair, config, prompt)


def _check_stops(pair: Pair, sampling: Sampling) -> None:
    """Refuse stops that could never be met."""
    wrong = next((t for t in sampling.stop_tokens if not 0 <= t < pair.vocab_size), None)
    if wrong is not None:
        raise refuse("stop_tokens", wrong, f"token ids lie in 0 .. {pair.vocab_size - 1}")
    if sampling.stop_strings and pair.tokenizer is None:
        raise refuse("stop_strings", sampling.stop_strings, "this pair has no tokenizer")
