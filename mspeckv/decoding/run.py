"""One run: prefill, rounds, summary."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import torch
import transformers
from transformers import LogitsProcessorList

from mspeckv.decoding.ending import Ending
from mspeckv.decoding.fits import predict
from mspeckv.decoding.hooks import Engine, KeptPrompts
from mspeckv.decoding.reader import ModelReader, Seat
from mspeckv.decoding.sampling import Sampler
from mspeckv.decoding.speculate import Autoregress
from mspeckv.decoding.tiers import Tiers, build_tiers
from mspeckv.events import (
    Event,
    LinkSummary,
    Memory,
    Plan,
    Prefill,
    Residency,
    Round,
    RunSummary,
    TierCount,
    count_tiers,
    total_bytes,
)
from mspeckv.kv.full import FullCache
from mspeckv.kv.link import LIVE_GBPS, KVLink, open_link, origin_gbps
from mspeckv.models.pair import Pair
from mspeckv.models.text import TextStream
from mspeckv.record import Cancelled, Ledger, OnStep, Progress, Recorder, clock_of, span
from mspeckv.settings import KVPolicy, RunConfig, Sampling


def target_alone(
    engine: Engine, pair: Pair, capacity: int, link: KVLink, recorder: Recorder
) -> tuple[ModelReader, FullCache]:
    """The target, decoding by itself with all KV on the device."""
    on_chip = KVPolicy(bits="full", on_chip=pair.layers)
    cache = FullCache(pair.kv_shape, on_chip, capacity, link, pair.device)
    products, kernels = engine.hooks.products(pair.target), engine.hooks.kernels
    seat = Seat(2, "decode", pair.target, cache, recorder, kernels=kernels, products=products)
    return ModelReader(seat), cache


class Run:
    """One run's state between its events; settings are checked already (`check_run`).

    Args:
        processors: see `mspeckv.decoding.sampling.Sampler`; the rest as of `mspeckv.stream`.

    Attributes:
        on_end: shown tier 2's cache, and how many of its tokens count, when the run is over.
    """

    def __init__(
        self,
        engine: Engine,
        pair: Pair,
        config: RunConfig,
        prompt: list[int],
        cancel: threading.Event | None = None,
        on_progress: Progress | None = None,
        *,
        processors: LogitsProcessorList | None = None,
        prefills: KeptPrompts | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        self.engine, self.pair, self.config, self.prompt = engine, pair, config, prompt
        self.cancel, self.on_progress, self.on_step = cancel, on_progress, on_step
        self.processors = processors
        # What one rank has dropped another may still keep: then one would read and one would not.
        self.prefills = prefills if engine.hooks.accord is None else None
        drawn, text = config.sampling, TextStream(pair.tokenizer)
        ends = set(drawn.stop_tokens) | (pair.eos_ids if drawn.stop_at_eos else set())
        self.ending = Ending(config.new_tokens, ends, drawn.stop_strings, text)
        self.accord = engine.hooks.accord(cancel) if engine.hooks.accord is not None else None
        self.memory, self.prefill_seconds = Memory(0, 0, 0, 0), 0.0
        self.rounds: list[Round] = []
        self.on_end: Callable[[FullCache, int], None] | None = None

    def events(self) -> Iterator[Event]:
        """One `Prefill`, a `Round` per tier-2 pass, one `RunSummary`."""
        gbps = self._gbps()
        cancel, on_progress = self.cancel, self.on_progress
        make_sampler: Callable[[Sampling, LogitsProcessorList | None], Sampler] = Sampler
        if self.accord is not None:
            gbps = self.accord.figure(gbps) if gbps is not None else None
            cancel, make_sampler = self.accord.stop, self.accord.sampler
            on_progress = self.accord.between_layers(on_progress)
        self.ledger = Ledger(clock_of(self.pair.device), self.on_step)
        self.recorder = Recorder(self.ledger, cancel, on_progress)
        self.sampler = make_sampler(self.config.sampling, self.processors)
        cancelled = False
        with open_link(self.ledger, gbps, self.pair.device) as link, ExitStack() as lent:
            try:
                opening, opened = self._open(link) if len(self.prompt) == 1 else (None, [])
                if opening is not None and self.ending.over:
                    tiers = opening
                    yield Prefill(1, 0.0, (), (), self.memory)
                else:
                    tiers, prefill = self._prefill(link, lent)
                    yield prefill
                yield from opened
                while not self.ending.over:
                    with span("round"):
                        event = self._round(tiers, link)
                    yield event
                if self.on_end is not None:
                    # the last token was settled, but not read by tier 2
                    with torch.inference_mode():
                        self.on_end(tiers.full, len(self.prompt) + len(self.ending.tokens) - 1)
            except Cancelled:
                cancelled = True
        yield self._summary(link, cancelled)

    def _gbps(self) -> float | None:
        """The emulated link's bandwidth in 1e9 bytes/s; None where it is not throttled."""
        if self.pair.device.type == "cuda":
            return None  # the bus has a speed of its own
        if self.config.link.preset == "origin":
            assert self.engine.hooks.step is not None
            step = self.engine.hooks.step(self.engine, self.pair)
            return origin_gbps(step, self.pair.layers, self.pair.kv_shape.token_bytes)
        return LIVE_GBPS if self.config.link.preset == "live" else self.config.link.gbps

    def _open(self, link: KVLink) -> tuple[Tiers, list[Round]]:
        """Draw a first token after a prompt of one, which would leave prefill nothing to read."""
        reader, cache = target_alone(self.engine, self.pair, 1, link, self.recorder)
        tiers = Tiers(Autoregress(reader, self.sampler), cache, [reader], Plan((2,), 0, 0))
        with span("round"):
            return tiers, [self._round(tiers, link)]

    @torch.inference_mode()
    def _prefill(self, link: KVLink, lent: ExitStack) -> tuple[Tiers, Prefill]:
        """Every tier reads the prompt but its last token, which the first round reads."""
        start, prompt = time.perf_counter(), self.prompt + self.ending.tokens
        need = predict(self.engine, self.pair, self.config, len(prompt))
        places = need.on_chip, need.resident, need.offloaded
        self.memory = Memory(*places, need.device, need.kv_device)
        tiers = build_tiers(
            self.engine, self.config, self.pair, prompt, link, self.recorder, self.sampler,
            self.accord, lent=lent,
        )  # fmt: skip
        if self.prefills is not None:
            self.prefills.read(tiers.prefilled, prompt[:-1], link)
        else:
            for reader in tiers.prefilled:
                reader.prefill(prompt[:-1])
        link.drain()
        self.prefill_seconds = time.perf_counter() - start
        noted = self.recorder.take()
        count, seconds = len(self.prompt), self.prefill_seconds
        return tiers, Prefill(count, seconds, noted.passes, noted.transfers, self.memory)

    @torch.inference_mode()
    def _round(self, tiers: Tiers, link: KVLink) -> Round:
        """Tier 2's next pass, with the drafting before it."""
        self.recorder.check()
        start = self.ledger.now()
        prefix = self.prompt + self.ending.tokens
        tiers.full.begin_pass()
        emission = tiers.root.round(prefix, self.ending.left)
        tokens, text = self.ending.take(emission.tokens)
        with span("record"):
            if self.ending.over:
                link.drain()
            link.collect()
            cut = len(tokens) < len(emission.tokens)
            noted = self.recorder.take(len(tokens) if cut else None)
        below = noted.tiers[-2] if len(noted.tiers) > 1 else TierCount(0, 0, 0, 0, 0.0)
        event = Round(
            index=len(self.rounds),
            start=start,
            ms=(self.ledger.now() - start) * 1e3,
            tokens=tuple(tokens),
            text=text,
            settled_by=tuple(emission.settled_by[: len(tokens)]),
            proposed=below.proposed,
            accepted=below.accepted,
            plan=getattr(tiers.root, "plan", tiers.plan),
            **noted._asdict(),
        )
        self.rounds.append(event)
        return event

    def _summary(self, link: KVLink, cancelled: bool) -> RunSummary:
        """Every round added up."""
        tokens, rounds, transfers = self.ending.tokens, self.rounds, self.ledger.since()
        decode_ms = sum(done.ms for done in rounds)
        moved = total_bytes(transfers, "to_device"), total_bytes(transfers, "to_host")
        busy = sum(t.ms for t in transfers if t.purpose != "prefill")
        counts = count_tiers(count for done in rounds for count in done.tiers)
        passes = [one for done in rounds for one in done.passes]
        settled_by = [tier for done in rounds for tier in done.settled_by]
        return RunSummary(
            tokens=tuple(tokens),
            text=self.ending.text,
            settled_by=tuple(settled_by[: len(tokens)]),
            tokens_per_second=len(tokens) / decode_ms * 1e3 if decode_ms else 0.0,
            ms_per_token=decode_ms / len(tokens) if tokens else 0.0,
            prefill_seconds=self.prefill_seconds,
            rounds=len(rounds),
            accepted_per_round=sum(done.accepted for done in rounds) / (len(rounds) or 1),
            tiers=counts,
            kv_read_bytes=tuple(
                sum(one.kv_bytes for one in passes if one.tier == count.tier) for count in counts
            ),
            link=LinkSummary(link.kind, link.gbps, *moved, busy),
            residency=Residency.of(passes),
            memory=self.memory,
            cancelled=cancelled,
            config={
                **self.config.to_dict(),
                "prompt_tokens": len(self.prompt),
                "target": self.pair.target_id,
                "draft": self.pair.draft_id,
                "placement": list(self.config.policy.placement(self.pair.layers)),
                "ranks": self.pair.rank_count,
            },
            versions=versions(),
        )


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    own = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"python": platform.python_version(), **own}
