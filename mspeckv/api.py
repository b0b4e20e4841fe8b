"""Loading a pair and decoding with it: the one place that chooses what is plugged into the engine.

`mspeckv.decoding` decodes by itself. What makes it faster on this machine, what chooses lengths and
what lets several processes take part is plugged in here, once per pair. ``MSPECKV_ACCELERATE`` in
the environment names the accelerations to use, such as ``workspace,bitwise``, or is ``none``; all
of them if it is not set.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from numbers import Integral
from typing import Unpack, cast, overload
from weakref import WeakKeyDictionary

import torch

from mspeckv import extensions  # noqa: F401  # registers what is in it
from mspeckv.adaptive import lookup, rounds  # noqa: F401  # lookup registers itself
from mspeckv.adaptive.step_time import step_seconds
from mspeckv.decoding.fits import check_run
from mspeckv.decoding.hooks import Engine, Hooks, KeptPrompts
from mspeckv.decoding.run import Run
from mspeckv.events import Event, RunSummary
from mspeckv.kv import doors  # noqa: F401  # with what `extensions` added
from mspeckv.models.kept import files
from mspeckv.models.load import DEFAULT, parse_device, parse_dtype
from mspeckv.models.load import load_pair as load_whole
from mspeckv.models.packed import AUTO
from mspeckv.models.pair import Pair
from mspeckv.models.text import Prompt, encode_prompt
from mspeckv.parallel import Ranks, before_leaving, together
from mspeckv.parallel.agreement import Agreement
from mspeckv.parallel.tensor_parallel import Split
from mspeckv.record import OnStep, Progress
from mspeckv.settings import RunConfig, Settings, check_kind, refuse

SWITCH = "MSPECKV_ACCELERATE"
ACCELERATIONS = (
    "split_keys", "packed_attention", "weight_copies", "packed_weights", "whole_layers",
    "triton_unpack", "short_head", "nibble", "decode_attention", "workspace", "bitwise",
)  # fmt: skip
"""Modules of `mspeckv.accelerate` with a ``plug``, in the order in which they are plugged in."""

_PACKED = "mspeckv.accelerate.packed_weights"

_engines: WeakKeyDictionary[Pair, Engine] = WeakKeyDictionary()
_turn = threading.Lock()


def load_pair(
    target: str = DEFAULT,
    draft: str = DEFAULT,
    *,
    device: str = "cpu",
    dtype: str | torch.dtype = "float32",
    ranks: Ranks | None = None,
    weights: str = "auto",
) -> Pair:
    """Load a target and a draft.

    Args:
        target: ``"default"`` (SmolLM2-135M-Instruct, fetched when absent), or a Hugging Face id
            or a local folder of any decoder with standard attention.
        draft: ``"default"`` (two layers distilled for the default target, sharing its embedding
            and head), ``"none"``, a ``.safetensors`` file of ``tools/train_draft.py``, or an id or
            folder with the target's vocabulary.
        device: ``"cpu"`` or ``"cuda"`` (``"cuda:1"``, ...).
        dtype: compute dtype: float32, bfloat16 or float16.
        ranks: split the target over them (`mspeckv.parallel.join`); every rank calls this.
        weights: ``"float"``; or ``"int4"`` or ``"int8"`` for packed ones on a CPU in float32: the
            default target's own 4-bit groups, others rounded to nearest (`mspeckv.models.packed`).
            All tiers and plain decoding read the same. ``"auto"``: of the default target its own
            4 bits where they are read fast, on a CPU in float32 with a C++ compiler; else floats.

    Raises:
        ValueError: a model that cannot be loaded or does not fit; a device that is not there; a
            target that cannot be split over so many ranks.
        ModelMissing: the default target is absent or damaged and cannot be fetched.
    """
    splitting = Split(ranks) if ranks is not None else None
    if weights == AUTO:
        weights = "float" if ranks is not None else usual_weights(target, device, dtype)
    # what multiplies packed weights, where it is chosen
    fast = "packed_weights" in chosen()
    read = import_module(_PACKED).read_packed if fast else lambda model: None
    pair = load_whole(
        target, draft, device=device, dtype=dtype, splitting=splitting, weights=weights, read=read
    )
    engine_of(pair)  # makes what is kept of the weights now, not in the first run
    return pair


def usual_weights(target: str, device: str = "cpu", dtype: str | torch.dtype = "float32") -> str:
    """What ``weights="auto"`` is here, and so said; compiles what reads packed ones if need be."""
    on_cpu, single = parse_device(device).type == "cpu", parse_dtype(dtype) == torch.float32
    can = on_cpu and single and target == DEFAULT and "packed_weights" in chosen()
    return "int4" if can and import_module(_PACKED).kernel() else "float"


@overload
def generate(
    pair: Pair,
    prompt: Prompt,
    *,
    cancel: threading.Event | None = None,
    on_progress: Progress | None = None,
    prefills: KeptPrompts | None = None,
    **settings: Unpack[Settings],
) -> RunSummary: ...


@overload
def generate(
    pair: Pair,
    prompt: list[str] | list[list[int]],
    *,
    cancel: threading.Event | None = None,
    on_progress: Progress | None = None,
    prefills: KeptPrompts | None = None,
    **settings: Unpack[Settings],
) -> list[RunSummary]: ...


def generate(
    pair: Pair,
    prompt: Prompt | list[str] | list[list[int]],
    *,
    cancel: threading.Event | None = None,
    on_progress: Progress | None = None,
    prefills: KeptPrompts | None = None,
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
            ``speculation``, ``sampling``, ``link``, ``device_gb``, ``graphs`` and ``exact``.

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
    prefills: KeptPrompts | None = None,
    on_step: OnStep | None = None,
) -> Iterator[Event]:
    """Decode, yielding one `Prefill`, a `Round` per tier-2 pass, and one `RunSummary`.

    Args:
        pair: models and tokenizer, from `mspeckv.load_pair`.
        prompt: text, or token ids.
        config: the run's settings; `RunConfig.build` makes one of `generate`'s keyword arguments.
        cancel: set it from another thread and the run ends within one pass, keeping what it has:
            the last event is then a `RunSummary` with ``cancelled`` true.
        on_progress: told of prefill as ``("prefill", layers done, layers)``.
        prefills: keeps what the prompts of its runs left; a later run of the same prompt, whatever
            else differs, places that instead: its `Prefill` tells the time of it, and no passes.
        on_step: told of each `Pass` as it has ended and each `Transfer` as it has arrived, on the
            thread that did it; of a GPU's when the round is over. The same come in the events, a
            transfer then with its wait. If it raises, it is told no more, and the run goes on.

    Raises:
        ValueError: a setting that is not allowed; at the call, before any work.
    """
    config, engine, ranks = config or RunConfig(), engine_of(pair), ranks_in(pair)
    with together(ranks):
        tokens = encode_prompt(pair, prompt)
        check_run(engine, pair, config, len(tokens))
    if ranks is not None:
        ranks.check_same("prompt and settings", (tokens, config))
    watched = partial(Run, prefills=prefills, on_step=on_step)
    return watched(engine, pair, config, tokens, cancel, on_progress).events()


def engine_of(pair: Pair) -> Engine:
    """What decodes with ``pair``, and remembers from run to run."""
    check_kind("pair", pair, Pair)
    with _turn:
        if pair not in _engines:
            _engines[pair] = Engine(hooks_for(pair))
            for model in pair.models:
                _engines[pair].hooks.products(model)
        return _engines[pair]


def forget_measured() -> None:
    """Measure anew, when it is next asked for, what is kept of this machine's times."""
    for path in files():
        path.unlink(missing_ok=True)
    with _turn:
        for engine in _engines.values():
            engine.step_seconds = None


def release(pair: Pair) -> None:
    """Give back the memory of caches and graphs that are kept for the next run."""
    engine_of(pair).give_back()


def hooks_for(pair: Pair, accelerations: tuple[str, ...] | None = None) -> Hooks:
    """Everything that is plugged in for a pair.

    Args:
        accelerations: names of `ACCELERATIONS`; default: what the environment says, else all.

    Raises:
        ValueError: no acceleration has such a name.
    """
    names = chosen() if accelerations is None else accelerations
    hooks = rounds.plug(Hooks(step=partial(step_seconds, names)))
    for name in names:
        hooks = import_module(f"mspeckv.accelerate.{name}").plug(hooks, pair.device)
    ranks = ranks_in(pair)
    if ranks is None:
        return hooks
    if hooks.forget not in before_leaving:
        before_leaving.append(hooks.forget)
    return replace(hooks, accord=partial(Agreement, ranks))


def chosen() -> tuple[str, ...]:
    """The accelerations that the environment names, of those that are installed.

    Raises:
        ValueError: one that there is not.
    """
    there = ACCELERATIONS if find_spec("mspeckv.accelerate") is not None else ()
    named = os.environ.get(SWITCH, "all").replace(" ", "")
    if named in ("all", ""):
        return tuple(name for name in there if find_spec(f"mspeckv.accelerate.{name}") is not None)
    if named == "none":
        return ()
    for name in named.split(","):
        if name not in there:
            raise refuse(SWITCH, name, f"use all, none, or some of {', '.join(there)}")
    return tuple(name for name in there if name in named.split(","))


def ranks_in(pair: Pair) -> Ranks | None:
    """The processes that the target is split over."""
    return cast("Ranks | None", pair.ranks)
