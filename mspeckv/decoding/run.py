"""One run: prefill, rounds, summary."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from statistics import median

import torch
import transformers
from transformers import LogitsProcessorList

from mspeckv.decoding.ending import Ending, TextStream
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
    count_tiers,
    total_bytes,
)
from mspeckv.kv.full import FullCache
from mspeckv.kv.link import ORIGIN_CONTEXT, KVLink, bandwidth, open_link, origin_gbps
from mspeckv.models.pair import Pair
from mspeckv.record import Cancelled, Ledger, Progress, Recorder, clock_of, span
from mspeckv.settings import KVPolicy, RunConfig

_STEPS = 16
"""Steps whose time is measured, the first of them to warm up."""


def measured_step_seconds(engine: Engine, pair: Pair) -> float:
    """Time of one target step with all KV on the device; measured once per engine.

    Taken where an ``origin`` link is scaled, at `ORIGIN_CONTEXT` tokens or as many as the target
    takes. The median: transfer is to stand to compute as steps mostly are, not as the luckiest is.
    """
    with engine.lock:
        if engine.step_seconds is None:
            engine.step_seconds = _time_steps(engine, pair)
        return engine.step_seconds


def _time_steps(engine: Engine, pair: Pair) -> float:
    context = min(ORIGIN_CONTEXT, pair.max_positions - _STEPS)
    tokens = [place % pair.vocab_size for place in range(context + _STEPS)]
    recorder = Recorder(Ledger(clock_of(pair.device)))
    with open_link(recorder.ledger, None, pair.device) as link, torch.inference_mode():
        on_chip = KVPolicy(bits="full", on_chip=pair.layers)
        cache = FullCache(pair.kv_shape, on_chip, len(tokens), link, pair.target.device)
        reader = ModelReader(_plain_seat(engine, pair, cache, recorder))
        reader.prefill(tokens[:context])
        for end in range(context, len(tokens)):
            reader.read(tokens[: end + 1], rows=1)
    return median(p.ms for p in recorder.take().passes[2:]) / 1e3


def _plain_seat(engine: Engine, pair: Pair, cache: FullCache, recorder: Recorder) -> Seat:
    """The target, decoding by itself."""
    products, kernels = engine.hooks.products(pair.target), engine.hooks.kernels
    return Seat(2, "decode", pair.target, cache, recorder, kernels=kernels, products=products)


class Run:
    """One run's state between its events.

    Args:
        engine: the pair's: what is plugged in, and what it remembers.
        pair: models and tokenizer.
        config: settings, checked against the pair.
        prompt: token ids.
        cancel: ends the run within a pass when set.
        on_progress: told of prefill's layers.
        processors: see `mspeckv.decoding.sampling.Sampler`.
        prefills: prompts read by earlier runs; this one takes up what it finds.

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
    ) -> None:
        self.engine, self.pair, self.config, self.prompt = engine, pair, config, prompt
        self.cancel, self.on_progress, self.processors = cancel, on_progress, processors
        # What one rank has dropped another may still keep: then one would read and one would not.
        self.prefills = prefills if engine.hooks.accord is None else None
        sampling = config.sampling
        ends = set(sampling.stop_tokens) | (pair.eos_ids if sampling.stop_at_eos else set())
        self.ending = Ending(
            config.new_tokens, ends, sampling.stop_strings, TextStream(pair.tokenizer)
        )
        self.accord = engine.hooks.accord(cancel) if engine.hooks.accord is not None else None
        self.memory = Memory(0, 0, 0, 0)
        self.prefill_seconds = 0.0
        self.rounds: list[Round] = []
        self.on_end: Callable[[FullCache, int], None] | None = None

    def events(self) -> Iterator[Event]:
        """One `Prefill`, a `Round` per tier-2 pass, one `RunSummary`."""
        gbps = self._gbps()
        cancel, on_progress = self.cancel, self.on_progress
        if self.accord is not None:
            if gbps is not None:
                gbps = self.accord.figure(gbps)
            cancel = self.accord.stop
            on_progress = self.accord.between_layers(on_progress)
        self.ledger = Ledger(clock_of(self.pair.device))
        self.recorder = Recorder(self.ledger, cancel, on_progress)
        self.sampler = (
            Sampler(self.config.sampling, self.processors)
            if self.accord is None
            else self.accord.sampler(self.config.sampling, self.processors)
        )
        cancelled = False
        with open_link(self.ledger, gbps, self.pair.device) as link, ExitStack() as lent:
            try:
                opening, opened = self._open(link) if len(self.prompt) == 1 else (None, [])
                if opening is not None and self.ending.over:
                    tiers = opening
                    yield Prefill(1, 0.0, (), (), self.memory)
                else:
                    tiers, event = self._prefill(link, lent)
                    yield event
                yield from opened
                while not self.ending.over:
                    yield self._round(tiers, link)
                if self.on_end is not None:
                    self._show_end(tiers.full)
            except Cancelled:
                cancelled = True
        yield self._summary(link, cancelled)

    def _gbps(self) -> float | None:
        """The emulated link's bandwidth in 1e9 bytes/s; None where it is not throttled."""
        if self.pair.device.type == "cuda":
            return None  # the bus has a speed of its own
        return bandwidth(
            self.config.link,
            lambda: origin_gbps(
                measured_step_seconds(self.engine, self.pair),
                self.pair.layers,
                self.pair.kv_shape.token_bytes,
            ),
        )

    def _open(self, link: KVLink) -> tuple[Tiers, list[Round]]:
        """Draw a first token after a prompt of one, which would leave prefill nothing to read."""
        on_chip = KVPolicy(bits="full", on_chip=self.pair.layers)
        cache = FullCache(self.pair.kv_shape, on_chip, 1, link, self.pair.device)
        reader = ModelReader(_plain_seat(self.engine, self.pair, cache, self.recorder))
        tiers = Tiers(Autoregress(reader, self.sampler), cache, [reader], Plan((2,), 0, 0))
        return tiers, [self._round(tiers, link)]

    @torch.inference_mode()
    def _prefill(self, link: KVLink, lent: ExitStack) -> tuple[Tiers, Prefill]:
        """Every tier reads the prompt but its last token, which the first round reads."""
        start, prompt = time.perf_counter(), self.prompt + self.ending.tokens
        self.memory = predict(self.engine, self.pair, self.config, len(prompt)).record()
        tiers = build_tiers(
            self.engine,
            self.config,
            self.pair,
            prompt,
            link,
            self.recorder,
            self.sampler,
            self.accord,
            lent=lent,
        )
        if self.prefills is not None:
            self.prefills.read(tiers.prefilled, prompt[:-1], link)
        else:
            for reader in tiers.prefilled:
                reader.prefill(prompt[:-1])
        link.drain()
        self.prefill_seconds = time.perf_counter() - start
        noted = self.recorder.take()
        event = Prefill(
            len(self.prompt), self.prefill_seconds, noted.passes, noted.transfers, self.memory
        )
        return tiers, event

    @torch.inference_mode()
    def _round(self, tiers: Tiers, link: KVLink) -> Round:
        with span("round"):
            return self._run_round(tiers, link)

    def _run_round(self, tiers: Tiers, link: KVLink) -> Round:
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
        proposer = noted.tiers[-2] if len(noted.tiers) > 1 else None
        event = Round(
            index=len(self.rounds),
            start=start,
            ms=(self.ledger.now() - start) * 1e3,
            tokens=tuple(tokens),
            text=text,
            settled_by=tuple(emission.settled_by[: len(tokens)]),
            proposed=proposer.proposed if proposer else 0,
            accepted=proposer.accepted if proposer else 0,
            plan=tiers.plan,
            guesses=noted.guesses,
            tiers=noted.tiers,
            passes=noted.passes,
            transfers=noted.transfers,
        )
        self.rounds.append(event)
        return event

    @torch.inference_mode()
    def _show_end(self, full: FullCache) -> None:
        """The last token was settled, but not read by tier 2."""
        assert self.on_end is not None
        self.on_end(full, len(self.prompt) + len(self.ending.tokens) - 1)

    def _summary(self, link: KVLink, cancelled: bool) -> RunSummary:
        tokens = self.ending.tokens
        decode_ms = sum(done.ms for done in self.rounds)
        transfers = self.ledger.since()
        decode_transfers = [t for t in transfers if t.purpose != "prefill"]
        proposed_rounds = len(self.rounds) or 1
        counts = count_tiers(count for done in self.rounds for count in done.tiers)
        passes = [one for done in self.rounds for one in done.passes]
        return RunSummary(
            tokens=tuple(tokens),
            text=self.ending.text,
            settled_by=tuple(tier for done in self.rounds for tier in done.settled_by)[
                : len(tokens)
            ],
            tokens_per_second=len(tokens) / decode_ms * 1e3 if decode_ms else 0.0,
            ms_per_token=decode_ms / len(tokens) if tokens else 0.0,
            prefill_seconds=self.prefill_seconds,
            rounds=len(self.rounds),
            accepted_per_round=sum(done.accepted for done in self.rounds) / proposed_rounds,
            tiers=counts,
            kv_read_bytes=tuple(
                sum(one.kv_bytes for one in passes if one.tier == count.tier) for count in counts
            ),
            link=LinkSummary(
                link.kind,
                link.gbps,
                total_bytes(transfers, "to_device"),
                total_bytes(transfers, "to_host"),
                sum(t.ms for t in decode_transfers),
            ),
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
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
