"""What a pair's work takes on this machine: a few seconds that stand in for the roofline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import psutil
import torch
from transformers import PreTrainedModel

from mspeckv.accelerate.nibble import NibblePlanes
from mspeckv.accelerate.packed_attention import Packed, attend_packed, usable
from mspeckv.api import engine_of, stream
from mspeckv.decoding.attention import attend_floats
from mspeckv.decoding.reader import ModelReader, Seat
from mspeckv.decoding.sampling import Sampler
from mspeckv.events import Round
from mspeckv.kv.full import FullCache
from mspeckv.kv.layers import Buffer, Floats
from mspeckv.kv.link import open_link
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.kv.shape import KVShape
from mspeckv.models import Pair
from mspeckv.profiling import calibrate
from mspeckv.record import Ledger, Recorder, clock_of
from mspeckv.settings import KVPolicy, RunConfig, Sampling, Speculation, Width
from mspeckv.whatif.machines import GRAPH_US, Hardware, MeasuredPasses

_TOKENS = (1, 2, 5, 9, 17)
_CONTEXTS = (128, 1024, 2048)
_DRAFT_TOKENS = (1, 2)
_DRAFT_CONTEXTS = (32, 320)
_LAYER_TOKENS, _LAYER_READ = 1024, 5
"""Tokens of a layer that is unpacked, and of the pass that reads it."""
_REPEATS = 2
_RUN_PROMPT, _RUN_TOKENS, _RUN_GBPS = 192, 16, 0.4
"""The short run that corrects the rest."""


def this_machine(device: str = "cpu", pair: Pair | None = None) -> Hardware:
    """This machine from `mspeckv.calibrate`; with ``pair`` also its measured pass times.

    Takes a few seconds the first time; with a pair up to ten more.

    Raises:
        ValueError: no such device here.
    """
    found = calibrate(device)
    on_gpu = found.device != "cpu"
    total = psutil.virtual_memory().total
    if on_gpu:
        total = torch.cuda.get_device_properties(torch.device(device)).total_memory
    machine = Hardware(
        name="this",
        source=f"measured by mspeckv.calibrate, torch {found.torch}",
        kind="gpu" if on_gpu else "cpu",
        memory_gb=total / 1e9,
        memory_gbps=found.memory_gbps,
        matrix_gflops=found.matrix_gflops,
        link_gbps=found.to_device_gbps,
        launch_us=found.call_us,
        graph_us=GRAPH_US if on_gpu else None,
        dtype="float32",
    )
    return machine if pair is None else measure(machine, pair)


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


def unpacking_ns(pair: Pair) -> dict[str, float]:
    """Nanoseconds per token and layer of unpacking, by width; layers are cold, as in a pass.

    Where attention reads codes as they are (`mspeckv.accelerate.packed_attention`), what that takes
    beyond attention over floats, at least 0.

    Args:
        pair: whose KV.
    """
    shape = KVShape.of(pair.target.config, pair.dtype)
    scratch = Buffer(shape.heads, _LAYER_TOKENS, shape.dim, shape.dtype, pair.device)
    for part in scratch.whole:
        part.normal_()
    per_token = 1e6 / shape.layers / _LAYER_TOKENS
    restore = engine_of(pair).hooks.faster.restore
    found: dict[str, float] = {}
    widths: tuple[Width, ...] = (8, 4, 2, "full")
    for width in widths:
        codec = BlockCodec(shape, KVPolicy(bits=width), restore)
        layers = [codec.encode(*scratch.whole) for _ in range(shape.layers)]
        if usable(codec, pair.device):
            ms = max(0.0, _beyond_floats(pair, shape, codec, layers))
        else:
            each = [(records,) for records in layers]
            ms = milliseconds(partial(_unpack, codec.decode, each, scratch))
        found[str(width)] = ms * per_token
    planes = NibblePlanes(BlockCodec(shape, KVPolicy(bits=8), restore))
    whole = planes.whole.encode(*scratch.whole)
    halves = [planes.split(whole) for _ in range(shape.layers)]
    found["nibble"] = milliseconds(partial(_unpack, planes.join, halves, scratch)) * per_token
    return found


def _unpack(
    unpack: Callable[..., object], layers: Sequence[tuple[torch.Tensor, ...]], scratch: Buffer
) -> None:
    """Every layer's stored tensors, one layer after the other into the same floats."""
    for stored in layers:
        unpack(*stored, *scratch.whole)
    wait_for(scratch.key)


def _beyond_floats(
    pair: Pair, shape: KVShape, codec: BlockCodec, layers: list[torch.Tensor]
) -> float:
    """Milliseconds that attention over packed layers takes beyond attention over float ones."""
    heads = int(pair.target.config.get_text_config().num_attention_heads)

    def noise(*size: int) -> torch.Tensor:
        return torch.randn(*size, shape.dim, dtype=shape.dtype)

    query, tail = noise(1, heads, _LAYER_READ), noise(2, 1, shape.heads, _LAYER_READ)
    floats = [noise(2, 1, shape.heads, _LAYER_TOKENS + _LAYER_READ) for _ in layers]

    def read_packed() -> None:
        for records in layers:
            attend_packed(query, Packed(tail[0], tail[1], records, codec), None, {})

    def read_floats() -> None:
        for key, value in floats:
            attend_floats(query, Floats(key, value), None, {})

    return milliseconds(read_packed) - milliseconds(read_floats)


def milliseconds(work: Callable[[], None], warm: bool = True) -> float:
    """Median milliseconds of a few calls, after one that does not count if ``warm``."""
    if warm:
        work()
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return median(times)


def wait_for(tensor: torch.Tensor) -> None:
    """Until the device has computed ``tensor``."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
