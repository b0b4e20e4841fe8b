"""Running a method: check, prefill, rounds, summary."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TypedDict, Unpack, cast, overload

import torch
import transformers

from mspeckv.config import KVPolicy, Link, RunConfig, Sampling, Speculation, refuse
from mspeckv.decoding.methods import Tiers, build_tiers, check_method
from mspeckv.decoding.reader import ModelReader
from mspeckv.decoding.recorder import Cancelled, Progress, Recorder
from mspeckv.decoding.text import TextStream
from mspeckv.events import (
    Event,
    LinkSummary,
    Memory,
    Prefill,
    Residency,
    Round,
    RunSummary,
    count_tiers,
    total_bytes,
)
from mspeckv.kv.cache import FullCache
from mspeckv.kv.ledger import Ledger
from mspeckv.kv.link import CopyEngine, bandwidth, origin_gbps
from mspeckv.kv.shape import KVShape
from mspeckv.memory import check_memory, predict
from mspeckv.models import Pair

Prompt = str | Sequence[int]


class Settings(TypedDict, total=False):
    """`generate`'s keyword arguments: those of `stream`."""

    method: str
    new_tokens: int
    policy: KVPolicy | None
    speculation: Speculation | None
    sampling: Sampling | None
    link: Link | str | float | None
    device_gb: float | None
    cancel: threading.Event | None
    on_progress: Progress | None


@overload
def generate(pair: Pair, prompt: Prompt, **settings: Unpack[Settings]) -> RunSummary: ...


@overload
def generate(
    pair: Pair, prompt: list[str] | list[list[int]], **settings: Unpack[Settings]
) -> list[RunSummary]: ...


def generate(
    pair: Pair, prompt: Prompt | list[str] | list[list[int]], **settings: Unpack[Settings]
) -> RunSummary | list[RunSummary]:
    """Decode after ``prompt``, or after each of several; see `stream` for settings and errors.

    Several prompts, of any lengths, are checked together and decoded one after the other, each
    exactly as if it were alone: rows of one batch would have to roll back by different lengths.

    Returns:
        The run's summary; for several prompts a list, which ends early when the run is cancelled.
    """
    if not isinstance(prompt, list) or not prompt or isinstance(prompt[0], int):
        *_, last = stream(pair, cast("Prompt", prompt), **settings)
        assert isinstance(last, RunSummary)
        return last
    runs = [stream(pair, row, **settings) for row in cast("list[Prompt]", prompt)]
    done: list[RunSummary] = []
    while len(done) < len(runs) and not (done and done[-1].cancelled):
        *_, last = runs[len(done)]
        assert isinstance(last, RunSummary)
        done.append(last)
    return done


def stream(
    pair: Pair,
    prompt: Prompt,
    *,
    method: str = "mspeckv",
    new_tokens: int = 32,
    policy: KVPolicy | None = None,
    speculation: Speculation | None = None,
    sampling: Sampling | None = None,
    link: Link | str | float | None = None,
    device_gb: float | None = None,
    cancel: threading.Event | None = None,
    on_progress: Progress | None = None,
) -> Iterator[Event]:
    """Decode, yielding one `Prefill`, a `Round` per tier-2 pass, and one `RunSummary`.

    Args:
        pair: models and tokenizer, from `mspeckv.load_pair`.
        prompt: text, or token ids.
        method: ``autoregressive``, ``vanilla``, ``triforce`` or ``mspeckv``.
        new_tokens: tokens to produce at most.
        policy: width and placement of tier 2's KV; the width defaults to 8 for ``mspeckv`` and to
            ``"full"`` for the rest.
        speculation: gammas, budget, chunk and windows.
        sampling: temperature, top-p, seed.
        link: emulated link on CPU: ``"off"``, ``"live"``, ``"origin"`` or GB/s.
        device_gb: device memory the run may take, in 1e9 bytes; default: what is free.
        cancel: set it from another thread and the run ends within one pass, keeping what it has:
            the last event is then a `RunSummary` with ``cancelled`` true.
        on_progress: told of prefill as ``("prefill", layers done, layers)``.

    Raises:
        ValueError: a setting that is not allowed; at the call, before any work.
    """
    config = RunConfig.build(method, new_tokens, policy, speculation, sampling, link, device_gb)
    tokens = encode_prompt(pair, prompt)
    check_run(pair, config, len(tokens))
    return _Run(pair, config, tokens, cancel, on_progress).events()


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
        tokens = [int(token) for token in prompt]
    if len(tokens) < 2:
        raise refuse("prompt", prompt, "it needs at least two tokens")
    wrong = next((token for token in tokens if not 0 <= token < pair.vocab_size), None)
    if wrong is not None:
        raise refuse("prompt", wrong, f"token ids lie in 0 .. {pair.vocab_size - 1}")
    return tokens


def check_run(pair: Pair, config: RunConfig, prompt: int) -> None:
    """Refuse a run that cannot work, before anything is allocated.

    Raises:
        ValueError: the placement, the length or the method does not fit this pair, or the run
            does not fit into memory.
    """
    config.policy.check_layers(pair.layers)
    check_method(config, pair)
    total = prompt + config.new_tokens
    if total > pair.max_positions:
        raise refuse(
            "prompt + new_tokens",
            f"{prompt} + {config.new_tokens}",
            f"the target has {pair.max_positions} positions: "
            f"use at most {max(0, pair.max_positions - config.new_tokens)} prompt tokens",
        )
    check_memory(pair, config, prompt)


def measured_step_seconds(pair: Pair) -> float:
    """Time of one target step with all KV on the device; measured once per pair.

    The fastest of eight: whatever else the machine is doing can only slow a step down.
    """
    if pair.step_seconds is None:
        recorder = Recorder(Ledger())
        shape = KVShape.of(pair.target.config, pair.dtype)
        tokens = list(range(16))
        with CopyEngine(recorder.ledger, None) as link, torch.inference_mode():
            on_chip = KVPolicy(bits="full", on_chip=pair.layers)
            cache = FullCache(shape, on_chip, 16, link, pair.target.device)
            reader = ModelReader(2, "decode", pair.target, cache, recorder)
            reader.prefill(tokens[:8])
            for end in range(9, 17):
                reader.read(tokens[:end], rows=1)
        passes, _, _ = recorder.take()
        pair.step_seconds = min(p.ms for p in passes[1:]) / 1e3
    return pair.step_seconds


class _Run:
    """One run's state between its events."""

    def __init__(
        self,
        pair: Pair,
        config: RunConfig,
        prompt: list[int],
        cancel: threading.Event | None,
        on_progress: Progress | None,
    ) -> None:
        self.pair, self.config, self.prompt = pair, config, prompt
        self.cancel, self.on_progress = cancel, on_progress
        self.memory = Memory(0, 0, 0, 0)
        self.prefill_seconds = 0.0
        self.rounds: list[Round] = []

    def events(self) -> Iterator[Event]:
        shape = KVShape.of(self.pair.target.config, self.pair.dtype)
        gbps = bandwidth(
            self.config.link,
            lambda: origin_gbps(
                measured_step_seconds(self.pair), self.pair.layers, shape.token_bytes
            ),
        )
        self.ledger = Ledger()
        self.recorder = Recorder(self.ledger, self.cancel, self.on_progress)
        self.text = TextStream(self.pair.tokenizer)
        cancelled = False
        with CopyEngine(self.ledger, gbps) as link:
            try:
                tiers, event = self._prefill(link)
                yield event
                while not self._ends(self._tokens()):
                    yield self._round(tiers, link)
            except Cancelled:
                cancelled = True
        yield self._summary(link, cancelled)

    @torch.inference_mode()
    def _prefill(self, link: CopyEngine) -> tuple[Tiers, Prefill]:
        """Every tier reads the prompt but its last token, which the first round reads."""
        start = time.perf_counter()
        self.memory = predict(self.pair, self.config, len(self.prompt)).record()
        tiers = build_tiers(self.config, self.pair, len(self.prompt), link, self.recorder)
        for reader in tiers.prefilled:
            reader.prefill(self.prompt[:-1])
        link.drain()
        self.prefill_seconds = time.perf_counter() - start
        passes, _, transfers = self.recorder.take()
        event = Prefill(len(self.prompt), self.prefill_seconds, passes, transfers, self.memory)
        return tiers, event

    @torch.inference_mode()
    def _round(self, tiers: Tiers, link: CopyEngine) -> Round:
        self.recorder.check()
        start = self.ledger.now()
        prefix = self.prompt + self._tokens()
        limit = self.config.new_tokens - len(self._tokens())
        tiers.full.begin_pass()
        emission = tiers.root.round(prefix, limit)
        tokens = self._until_eos(emission.tokens)
        if self._ends(self._tokens() + tokens):
            link.drain()
        passes, counts, transfers = self.recorder.take()
        proposer = counts[-2] if len(counts) > 1 else None
        event = Round(
            index=len(self.rounds),
            start=start,
            ms=(self.ledger.now() - start) * 1e3,
            tokens=tuple(tokens),
            text=self.text.push(tokens),
            settled_by=tuple(emission.settled_by[: len(tokens)]),
            proposed=proposer.proposed if proposer else 0,
            accepted=proposer.accepted if proposer else 0,
            tiers=counts,
            passes=passes,
            transfers=transfers,
        )
        self.rounds.append(event)
        return event

    def _tokens(self) -> list[int]:
        return [token for done in self.rounds for token in done.tokens]

    def _until_eos(self, tokens: list[int]) -> list[int]:
        """Cut after the first end-of-sequence token."""
        for place, token in enumerate(tokens):
            if self.config.sampling.stop_at_eos and token in self.pair.eos_ids:
                return tokens[: place + 1]
        return tokens

    def _ends(self, tokens: list[int]) -> bool:
        """Whether a run with these tokens is over."""
        ended = bool(tokens) and tokens[-1] in self.pair.eos_ids
        stops = ended and self.config.sampling.stop_at_eos
        return len(tokens) >= self.config.new_tokens or stops

    def _summary(self, link: CopyEngine, cancelled: bool) -> RunSummary:
        tokens = self._tokens()
        decode_ms = sum(done.ms for done in self.rounds)
        transfers = self.ledger.since()
        decode_transfers = [t for t in transfers if t.purpose != "prefill"]
        proposed_rounds = len(self.rounds) or 1
        return RunSummary(
            tokens=tuple(tokens),
            text=self.text.text,
            settled_by=tuple(tier for done in self.rounds for tier in done.settled_by),
            tokens_per_second=len(tokens) / decode_ms * 1e3 if decode_ms else 0.0,
            ms_per_token=decode_ms / len(tokens) if tokens else 0.0,
            prefill_seconds=self.prefill_seconds,
            rounds=len(self.rounds),
            accepted_per_round=sum(done.accepted for done in self.rounds) / proposed_rounds,
            tiers=count_tiers(count for done in self.rounds for count in done.tiers),
            link=LinkSummary(
                link.kind,
                link.gbps,
                total_bytes(transfers, "to_device"),
                total_bytes(transfers, "to_host"),
                sum(t.ms for t in decode_transfers),
            ),
            residency=Residency.of(p for done in self.rounds for p in done.passes),
            memory=self.memory,
            cancelled=cancelled,
            config={
                **self.config.to_dict(),
                "prompt_tokens": len(self.prompt),
                "target": self.pair.target_id,
                "draft": self.pair.draft_id,
                "placement": list(self.config.policy.placement(self.pair.layers)),
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
