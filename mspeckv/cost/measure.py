"""What a pair's passes take on this machine: a few seconds that stand in for the roofline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import torch
from transformers import PreTrainedModel

from mspeckv.api import engine_of, stream
from mspeckv.clock import clock_of
from mspeckv.config import KVPolicy, RunConfig, Sampling, Speculation
from mspeckv.cost.hardware import Hardware, MeasuredPasses
from mspeckv.cost.timing import milliseconds, wait_for
from mspeckv.cost.unpacking import unpacking_ns
from mspeckv.decoding.reader import ModelReader, Seat
from mspeckv.decoding.recorder import Recorder
from mspeckv.decoding.sampling import Sampler
from mspeckv.events import Round
from mspeckv.kv.full import FullCache
from mspeckv.kv.layers import Floats
from mspeckv.kv.ledger import Ledger
from mspeckv.kv.link import open_link
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.kv.shape import KVShape
from mspeckv.models import Pair

_TOKENS = (1, 2, 5, 9, 17)
_CONTEXTS = (128, 1024, 2048)
_DRAFT_TOKENS = (1, 2)
_DRAFT_CONTEXTS = (32, 320)
_RUN_PROMPT, _RUN_TOKENS, _RUN_GBPS = 192, 16, 0.4
"""The short run that corrects the rest."""


@torch.inference_mode()
def measure(machine: Hardware, pair: Pair, sampling: Sampling | None = None) -> Hardware:
    """``machine`` with a pair's measured pass times, unpacking, choosing and drawing.

    Passes run over on-chip caches filled with noise, so no prompt has to be read.

    Args:
        machine: from `mspeckv.calibrate`.
        pair: whose passes.
        sampling: how tokens will be drawn; default `Sampling`.
    """
    passes = {"target": _passes(pair, pair.target, _TOKENS, _CONTEXTS)}
    if pair.draft is not None:
        passes["draft"] = _passes(pair, pair.draft, _DRAFT_TOKENS, _DRAFT_CONTEXTS)
    alone = replace(
        machine,
        source=f"{machine.source}; passes of {pair.target_id} measured",
        dtype=str(pair.dtype).removeprefix("torch."),
        passes=passes,
        unpack_ns=unpacking_ns(pair),
        choose_us=_choosing(pair),
        row_us=_drawing(pair, sampling or Sampling()),
    )
    return _within_a_run(alone, pair)


def _within_a_run(machine: Hardware, pair: Pair) -> Hardware:
    """Corrected by a short run: there tiers evict one another's weights from the processor's
    caches, and the link's thread takes turns with compute.
    """
    # whatever else runs can only slow one down: the fastest of three counts
    rounds = min((_short_run(pair) for _ in range(3)), key=lambda run: sum(one.ms for one in run))
    slower = {role: _slowdown(machine, pair, rounds, role) for role in machine.passes}
    passes = {
        role: replace(table, ms=tuple(tuple(slower[role] * ms for ms in row) for row in table.ms))
        for role, table in machine.passes.items()
    }
    rest = [
        one.ms - sum(p.ms + p.tokens * machine.row_us / 1e3 for p in one.passes) for one in rounds
    ]
    late = [0.0]
    if pair.device.type == "cpu":
        fetches = [t for one in rounds for t in one.transfers if t.purpose == "verify" and t.bytes]
        late = [t.ms - t.bytes / _RUN_GBPS / 1e6 for t in fetches] or late
    return replace(
        machine,
        passes=passes,
        round_us=max(0.0, median(rest)) * 1e3,
        copy_us=max(0.0, median(late)) * 1e3,
    )


def _short_run(pair: Pair) -> list[Round]:
    """Rounds of a run through all tiers, half of the layers streamed."""
    found = stream(
        pair,
        [index % pair.vocab_size for index in range(_RUN_PROMPT)],
        RunConfig.build(
            method="mspeckv",
            new_tokens=_RUN_TOKENS,
            policy=KVPolicy(bits="full", on_chip=pair.layers // 2),
            speculation=Speculation(gamma=4, draft_gamma=2, budget=128),
            sampling=Sampling(stop_at_eos=False),
            link=_RUN_GBPS,
        ),
    )
    # the first round builds what later ones use
    return [event for event in found if isinstance(event, Round)][1:]


def _slowdown(machine: Hardware, pair: Pair, rounds: Sequence[Round], role: str) -> float:
    """Time of a run's passes over that of the same ones back to back."""
    model = pair.draft if role == "draft" else pair.target
    assert model is not None
    shape, tier = KVShape.of(model.config, pair.dtype), 0 if role == "draft" else 1
    passes = [p for done in rounds for p in done.passes if p.tier == tier]
    alone = sum(
        float(machine.passes[role].at(p.tokens, p.kv_bytes / shape.layers / shape.token_bytes))
        for p in passes
    )
    return sum(p.ms for p in passes) / alone if passes else 1.0


def _passes(
    pair: Pair, model: PreTrainedModel, tokens: Sequence[int], contexts: Sequence[int]
) -> MeasuredPasses:
    """Median times of passes of ``model``, by tokens read and tokens of context."""
    room = pair.max_positions - max(tokens)
    places = sorted({min(context, room) for context in contexts})
    places = places if len(places) > 1 else [room // 2, room]
    shape = KVShape.of(model.config, pair.dtype)
    recorder = Recorder(Ledger(clock_of(pair.device)))
    ids = [index % pair.vocab_size for index in range(places[-1] + max(tokens))]
    columns: list[list[float]] = []
    with open_link(recorder.ledger, None, pair.device) as link:
        on_chip = KVPolicy(bits="full", on_chip=shape.layers)
        cache = FullCache(shape, on_chip, len(ids), link, pair.device)
        hooks = engine_of(pair).hooks
        seat = Seat(2, "decode", model, cache, recorder, products=hooks.products(model))
        reader = ModelReader(replace(seat, kernels=hooks.kernels))
        for layer in cache.layers:
            layer.buffer.key.normal_()
            layer.buffer.value.normal_()
        warm = True
        for context in places:
            column = []
            for count in tokens:

                def read(context: int = context, count: int = count) -> None:
                    for layer in cache.layers:
                        layer.length = context
                    wait_for(reader.read(ids[: context + count], rows=count))

                column.append(milliseconds(read, warm))
                warm = False
            columns.append(column)
    rows = tuple(tuple(column[i] for column in columns) for i in range(len(tokens)))
    return MeasuredPasses(shape.layers, tuple(tokens), tuple(places), rows)


def _choosing(pair: Pair) -> float:
    """Microseconds per layer of choosing tier 1's chunks anew, with a budget of 256."""
    shape = KVShape.of(pair.target.config, pair.dtype)
    prompt, read = 1024, 9
    cache = RetrievalCache(shape, Speculation(refresh=1), prompt, 64 * read, pair.device)
    heads = int(pair.target.config.get_text_config().num_attention_heads)

    def noise(heads: int, tokens: int) -> torch.Tensor:
        return torch.randn(1, heads, tokens, shape.dim, dtype=pair.dtype, device=pair.device)

    key = noise(shape.heads, prompt + 64 * read)
    query, whole = noise(heads, read), noise(heads, prompt)
    for layer in range(shape.layers):
        cache.watch(layer, whole, Floats(key[:, :, :prompt], key[:, :, :prompt]))
    total = prompt

    def choose() -> None:
        nonlocal total
        total += read
        for layer in range(shape.layers):
            cache.watch(layer, query, Floats(key[:, :, :total], key[:, :, :total]))
        wait_for(cache.layers[-1].buffer.key)

    return milliseconds(choose) * 1e3 / shape.layers


def _drawing(pair: Pair, sampling: Sampling) -> float:
    """Microseconds of turning logits into a distribution and a token, per row."""
    sampler, rows = Sampler(sampling), 9
    logits = 3 * torch.randn(rows, pair.vocab_size, dtype=pair.dtype, device=pair.device)

    def draw() -> None:
        sampler.draw(sampler.distribution(logits, [0] * rows)[0])

    return milliseconds(draw) * 1e3 / rows
