"""What a pair's work takes on this machine: a few seconds that stand in for the roofline.

`mspeckv_study.whatif.here` keeps it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from transformers import PreTrainedModel

from mspeckv.accelerate.nibble import NibblePlanes
from mspeckv.accelerate.packed_attention import Packed, attend_packed, usable
from mspeckv.api import engine_of, stream
from mspeckv.decoding.attention import attend_floats
from mspeckv.decoding.reader import ModelReader, Seat
from mspeckv.decoding.sampling import Sampler
from mspeckv.events import Pass, Round, Transfer
from mspeckv.kv.blocks import Arrived
from mspeckv.kv.floats import Buffer, Floats
from mspeckv.kv.full import FullCache
from mspeckv.kv.latent import Latents, latent_widths
from mspeckv.kv.link import open_link
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.kv.shape import KVShape
from mspeckv.kv.tier1 import Tier1Room
from mspeckv.models.pair import Pair
from mspeckv.record import Ledger, Recorder, clock_of
from mspeckv.settings import WIDTHS, KVPolicy, RunConfig, Sampling, Speculation
from mspeckv_study.whatif.machines import Hardware, MeasuredPasses

_LAYER_TOKENS, _LAYER_READ = 1024, 5
"""Tokens of a layer that is unpacked, and of the pass that reads it."""
_RUN_PROMPT, _RUN_TOKENS, _RUN_GBPS = 192, 16, 0.4
"""The short run that corrects the rest."""


@torch.inference_mode()
def measure(machine: Hardware, pair: Pair) -> Hardware:
    """``machine`` with a pair's measured pass times, unpacking, choosing and drawing.

    Passes run over on-chip caches filled with noise, so no prompt has to be read.
    """
    passes = {"target": _passes(pair, pair.target, (1, 2, 5, 9, 17), (128, 1024, 2048))}
    if pair.draft is not None:
        passes["draft"] = _passes(pair, pair.draft, (1, 2), (32, 320))
    alone = replace(
        machine,
        source=f"{machine.source}; passes of {pair.target_id} measured",
        dtype=str(pair.dtype).removeprefix("torch."),
        passes=passes,
        unpack_ns=_unpacking(pair),
        choose_us=_choosing(pair),
        row_us=_drawing(pair),
    )
    return _within_a_run(alone, pair)


def _within_a_run(machine: Hardware, pair: Pair) -> Hardware:
    """Corrected by a short run: there tiers evict one another's weights from the processor's
    caches, and the link's thread takes turns with compute.
    """
    # whatever else runs can only slow one down: the fastest of three counts
    runs = [_short_run(pair) for _ in range(3)]
    rounds = min(runs, key=lambda run: sum(one.ms for one in run))
    passes = dict(machine.passes)
    for role, tier in (("target", 1), ("draft", 0)):
        there = [p for one in rounds for p in one.passes if p.tier == tier]
        if role in passes and there:
            # than the same passes, back to back
            slower = sum(p.ms for p in there) / sum(_usual(passes[role], p) for p in there)
            rows = tuple(tuple(slower * ms for ms in row) for row in passes[role].ms)
            passes[role] = replace(passes[role], ms=rows)
    rest = [
        one.ms - sum(p.ms + p.tokens * machine.row_us / 1e3 for p in one.passes) for one in rounds
    ]
    late = [0.0]
    if pair.device.type == "cpu":
        fetches = [t for one in rounds for t in one.transfers if t.purpose == "verify" and t.bytes]
        late = [t.ms - t.bytes / _RUN_GBPS / 1e6 for t in fetches] or late
    round_us, copy_us = (max(0.0, median(times)) * 1e3 for times in (rest, late))
    found = replace(machine, passes=passes, round_us=round_us, copy_us=copy_us)
    told = [
        ([p for o in run for p in o.passes], [t for o in run for t in o.transfers]) for run in runs
    ]
    return replace(found, own=tuple(slowdown(found, *one) or 1.0 for one in told))


def _usual(table: MeasuredPasses, one: Pass) -> float:
    """Milliseconds that a pass takes by a table; no less than its fastest, however far outside."""
    context = one.kv_bytes / (table.layers * table.token_bytes)
    return max(float(table.at(one.tokens, context)), min(map(min, table.ms)))


def slowdown(
    machine: Hardware, passes: Iterable[Pass], transfers: Iterable[Transfer]
) -> float | None:
    """How many times as long passes take as they usually did in its calibration's own runs.

    The median of each against the median of theirs. Passes of tiers 0 and 1 read floats and never
    wait for the link. Tier 2's count, less their waits, where no layer is packed: unpacking is no
    part of a calibrated pass.

    Args:
        machine: from `this_machine` with the run's pair.
        passes: a run's, of any of its events.
        transfers: of the same events.

    Returns:
        1 for just as fast; None where nothing can be compared.
    """
    waits = [(one.start + one.ms / 1e3, one.wait_ms) for one in transfers if one.wait_ms]
    ratios = []
    for one in passes:
        table = machine.passes.get("target" if one.tier else "draft")
        packed = one.tier == 2 and one.hits + one.misses > 0
        if table is None or not table.token_bytes or one.step == "prefill" or one.builds or packed:
            continue
        ms, end = one.ms, one.start + one.ms / 1e3
        if one.tier == 2:
            # who waited went on when it arrived
            ms -= sum(wait for arrived, wait in waits if one.start <= arrived <= end)
        ratios.append(ms / _usual(table, one))
    return median(ratios) / median(machine.own or (1.0,)) if ratios else None


def _short_run(pair: Pair) -> list[Round]:
    """Rounds of a run through all tiers, half of the layers streamed."""
    config = RunConfig.build(
        method="mspeckv",
        new_tokens=_RUN_TOKENS,
        policy=KVPolicy(bits="full", on_chip=pair.layers // 2),
        speculation=Speculation(gamma=4, draft_gamma=2, budget=128),
        sampling=Sampling(stop_at_eos=False),
        link=_RUN_GBPS,
    )
    found = stream(pair, [index % pair.vocab_size for index in range(_RUN_PROMPT)], config)
    # the first round builds what later ones use
    return [event for event in found if isinstance(event, Round)][1:]


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
    with open_link(recorder.ledger, None, pair.device) as link:
        on_chip = KVPolicy(bits="full", on_chip=shape.layers)
        cache = FullCache(shape, on_chip, len(ids), link, pair.device)
        hooks = engine_of(pair).hooks
        seat = Seat(2, "decode", model, cache, recorder, products=hooks.products(model))
        reader = ModelReader(replace(seat, kernels=hooks.kernels))
        for layer in cache.attending:
            for part in layer.buffer.whole:
                part.normal_()

        def read(count: int, context: int) -> None:
            for part in cache.parts:
                part.stand_at(context)
            _wait_for(reader.read(ids[: context + count], rows=count))

        read(tokens[0], places[0])
        rows = tuple(
            tuple(_milliseconds(partial(read, count, context), warm=False) for context in places)
            for count in tokens
        )
    return MeasuredPasses(shape.layers, tuple(tokens), tuple(places), rows, shape.token_bytes)


def _choosing(pair: Pair) -> float:
    """Microseconds per layer of choosing tier 1's chunks anew, with a budget of 256."""
    shape = KVShape.of(pair.target.config, pair.dtype)
    prompt, read = 1024, 9
    room = Tier1Room(shape, Speculation(refresh=1), prompt, 64 * read)
    cache = RetrievalCache(room, None, pair.device)
    stored = _noise(pair, 1, shape.heads, prompt + 64 * read)
    text = pair.target.config.get_text_config()
    # queries compare with keys, which a layer of latents does not store
    widths = latent_widths(text)
    compared = int(text.qk_head_dim) if widths else shape.dim
    keys = _noise(pair, 1, text.num_attention_heads, stored.shape[2], dim=compared)

    def look(new: int, total: int) -> None:
        floats = Floats(stored[:, :, :total], stored[:, :, :total])
        shown = Latents(floats, widths, keys[:, :, :total]) if widths else floats
        for layer in shape.growing:
            cache.watch(layer, keys[:, :, total - new : total], shown)

    totals = iter(range(prompt, stored.shape[2], read))
    look(prompt, next(totals))

    def choose() -> None:
        look(read, next(totals))
        _wait_for(cache.layers[shape.growing[-1]].buffer.key)

    return _milliseconds(choose) * 1e3 / shape.layers


def _drawing(pair: Pair) -> float:
    """Microseconds of turning logits into a distribution and a token, per row."""
    sampler, rows = Sampler(Sampling()), 9
    logits = 3 * torch.randn(rows, pair.vocab_size, dtype=pair.dtype, device=pair.device)

    def draw() -> None:
        sampler.draw(sampler.distribution(logits, [0] * rows)[0])

    return _milliseconds(draw) * 1e3 / rows


def _unpacking(pair: Pair) -> dict[str, float]:
    """Nanoseconds per token and layer of unpacking, by width; layers are cold, as in a pass.

    Where attention reads codes as they are (`mspeckv.accelerate.packed_attention`), what that takes
    beyond attention over floats, at least 0.
    """
    shape = KVShape.of(pair.target.config, pair.dtype)
    scratch = Buffer(shape, _LAYER_TOKENS, pair.device)
    for part in scratch.whole:
        part.normal_()

    def unpack(layers: Sequence[Arrived]) -> None:
        for blocks in layers:
            blocks.decode(scratch.whole)
        _wait_for(scratch.key)

    def time(layers: Sequence[Arrived]) -> float:
        straight = usable(layers[0].codec, pair.device)
        return _beyond_floats(pair, layers) if straight else _milliseconds(partial(unpack, layers))

    restore = engine_of(pair).hooks.restore
    found: dict[str, float] = {}
    for width in WIDTHS:
        codec = BlockCodec(shape, KVPolicy(bits=width), restore)
        layers = [Arrived(codec.encode(*scratch.whole), codec) for _ in range(shape.layers)]
        found[str(width)] = time(layers)
    planes = NibblePlanes(BlockCodec(shape, KVPolicy(bits=8), restore))
    whole = planes.whole.encode(*scratch.whole)
    found["nibble"] = time([planes.join(*planes.split(whole)) for _ in range(shape.layers)])
    return {width: ms * 1e6 / shape.layers / _LAYER_TOKENS for width, ms in found.items()}


def _beyond_floats(pair: Pair, layers: Sequence[Arrived]) -> float:
    """Milliseconds that attention over packed layers takes beyond attention over float ones."""
    text, heads = pair.target.config.get_text_config(), pair.kv_shape.heads
    query = _noise(pair, 1, text.num_attention_heads, _LAYER_READ)
    tail = _noise(pair, 2, 1, heads, _LAYER_READ)
    floats = [_noise(pair, 2, 1, heads, _LAYER_TOKENS + _LAYER_READ) for _ in layers]

    def read_packed() -> None:
        for blocks in layers:
            attend_packed(query, Packed(tail[0], tail[1], blocks), None, {})

    def read_floats() -> None:
        for key, value in floats:
            attend_floats(query, Floats(key, value), None, {})

    return max(0.0, _milliseconds(read_packed) - _milliseconds(read_floats))


def _noise(pair: Pair, *size: int, dim: int | None = None) -> torch.Tensor:
    """Normal numbers ``[*size, D]`` where the pair computes, of its type."""
    return torch.randn(*size, dim or pair.kv_shape.dim, dtype=pair.dtype, device=pair.device)


def _milliseconds(work: Callable[[], None], warm: bool = True) -> float:
    """Median milliseconds of two calls, after one that does not count if ``warm``."""
    if warm:
        work()
    times = []
    for _ in range(2):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return median(times)


def _wait_for(tensor: torch.Tensor) -> None:
    """Until the device has computed ``tensor``."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
