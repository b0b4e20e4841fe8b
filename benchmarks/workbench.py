"""One prompt, read once, decoded again and again: by our nestings, and by transformers."""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import DynamicCache

from mspeckv import KVPolicy, Pair, RunConfig, Sampling, Speculation
from mspeckv.accelerate.short_head import make_head
from mspeckv.adaptive.estimates import Costs, PassCost
from mspeckv.adaptive.lengths import Planner
from mspeckv.adaptive.lookup import SHORTEST, SHORTEST_CHOSEN, Lookup
from mspeckv.adaptive.rounds import Adaptive
from mspeckv.api import engine_of
from mspeckv.decoding.reader import ModelReader
from mspeckv.decoding.sampling import Sampler
from mspeckv.decoding.speculate import Autoregress, Level, nest_over
from mspeckv.decoding.tiers import build_tiers
from mspeckv.kv.link import CopyEngine
from mspeckv.models.checks import cache_argument
from mspeckv.record import Ledger, Recorder

GREEDY = Sampling(temperature=0, stop_at_eos=False)


@dataclass(frozen=True)
class Way:
    """A nesting of ours.

    Attributes:
        path: tiers, bottom first.
        tier0: ``draft`` or ``lookup``.
        gamma: a number, or ``"auto"`` (then ``path`` says which tiers there are).
        draft_gamma: likewise.
        draft_vocab: tokens that the draft scores; 0 for all.
    """

    path: tuple[int, ...]
    tier0: str = "draft"
    gamma: int | str = 4
    draft_gamma: int | str = 2
    draft_vocab: int = 0

    @property
    def name(self) -> str:
        """Such as ``lookup>2 gamma 8``."""
        first = {0: self.tier0, 1: "1", 2: "2"}
        words = ">".join(first[tier] for tier in self.path)
        if len(self.path) > 1:
            inner = f"/{self.draft_gamma}" if self.path == (0, 1, 2) else ""
            words += f" gamma {self.gamma}{inner}"
        return words + (f" vocab {self.draft_vocab}" if self.draft_vocab else "")


@dataclass(frozen=True)
class Outcome:
    """Decoding measured: tokens per second, tokens kept per tier-2 pass, and the tokens."""

    rate: float
    per_pass: float
    tokens: list[int]


class Workbench:
    """Every tier of ours over one prompt, all KV on the device, link off.

    A way with chosen lengths is run again as the engine runs settings again: it knows what passes
    cost.

    Use as a context manager.

    Attributes:
        prefill_seconds: that each tier took to read the prompt; 2 is the target, while tier 1 looks
            on.
    """

    def __init__(self, pair: Pair, prompt: list[int], new_tokens: int) -> None:
        self.pair, self.prompt, self.new_tokens = pair, prompt, new_tokens
        self.recorder = Recorder(Ledger())
        self.link = CopyEngine(self.recorder.ledger, None)
        self.sampler = Sampler(GREEDY)
        self.prefill_seconds: dict[int, float] = {}
        config = RunConfig(
            "mspeckv", new_tokens, KVPolicy("full", on_chip=pair.layers),
            Speculation(gamma="auto", draft_gamma="auto"), GREEDY,
        )  # fmt: skip
        with torch.inference_mode():
            tiers = build_tiers(
                engine_of(pair), config, pair, prompt, self.link, self.recorder, lent=ExitStack()
            )
            for reader in tiers.prefilled:
                start = time.perf_counter()
                reader.prefill(prompt[:-1])
                self.prefill_seconds[reader.tier] = time.perf_counter() - start
        root = tiers.root
        assert isinstance(root, Adaptive)
        assert isinstance(root.guesser, Autoregress)
        self.root, self.draft = root, root.guesser
        self._counted = _Counted(root.top)
        self._costs: defaultdict[Way, Costs] = defaultdict(lambda: defaultdict(PassCost))
        self.lookups = {
            chosen: Lookup(pair.vocab_size, torch.empty(0), shortest)
            for chosen, shortest in ((False, SHORTEST), (True, SHORTEST_CHOSEN))
        }
        self.recorder.take()

    def __enter__(self) -> Workbench:
        return self

    def __exit__(self, *_: object) -> None:
        self.link.__exit__()

    @torch.inference_mode()
    def run(self, way: Way) -> Outcome:
        """Decode, then take everything back."""
        root = self._nest(way)
        tokens = list(self.prompt)
        end = len(self.prompt) + self.new_tokens
        start = time.perf_counter()
        while len(tokens) < end:
            tokens += root.round(tokens, end - len(tokens)).tokens
            self.recorder.take()
        seconds = time.perf_counter() - start
        root.settle(len(self.prompt) - 1)
        self.root.settle(len(self.prompt) - 1)
        return Outcome(
            self.new_tokens / seconds,
            self.new_tokens / self._counted.passes,
            tokens[-self.new_tokens :],
        )

    def _nest(self, way: Way) -> Level:
        reader = self.draft.reader
        assert isinstance(reader, ModelReader)
        head = None
        if way.draft_vocab:
            head = make_head(reader.model, self.prompt, way.draft_vocab)
        self.draft.reader = ModelReader(replace(reader.seat, head=head))
        # one that chooses lengths sets its own
        self.draft.chain = None
        guesser: Level | None = None
        if 0 in way.path:
            guesser = self.lookups[way.gamma == "auto"] if way.tier0 == "lookup" else self.draft
        middle = self.root.middle if 1 in way.path else None
        top = self._counted = _Counted(self.root.top)
        if way.gamma == "auto":
            speculation = Speculation(gamma="auto", draft_gamma="auto")
            planner = Planner(
                speculation, guesser is not None, middle is not None, way.tier0 == "lookup",
                self._costs[way],
            )  # fmt: skip
            return Adaptive(guesser, middle, top, planner, self.sampler, self.recorder)
        below = guesser
        if middle is not None:
            below = nest_over(below, middle, int(way.draft_gamma), self.sampler, self.recorder)
        return nest_over(below, top, int(way.gamma), self.sampler, self.recorder)


class _Counted:
    """A reader that counts its passes."""

    def __init__(self, reader: Any) -> None:
        self.reader, self.tier, self.passes = reader, reader.tier, 0

    def read(self, tokens: list[int], rows: int) -> torch.Tensor:
        self.passes += 1
        logits: torch.Tensor = self.reader.read(tokens, rows)
        return logits

    def room(self, length: int) -> int:
        return int(self.reader.room(length))

    def settle(self, length: int) -> None:
        self.reader.settle(length)


class Peer:
    """transformers' own ``generate`` over one prompt.

    Plain decoding goes on from a cache that has read the prompt. The other ways read it every
    time: given a filled cache they run, but guess worse and end with other tokens.

    Attributes:
        prefill_seconds: that reading the prompt took.
    """

    def __init__(self, pair: Pair, prompt: list[int], new_tokens: int) -> None:
        self.pair, self.new_tokens = pair, new_tokens
        self.ids = torch.tensor([prompt])
        self.cache = DynamicCache()
        start = time.perf_counter()
        with torch.inference_mode():
            pair.target(
                input_ids=self.ids[:, :-1],
                logits_to_keep=1,
                **{cache_argument(pair.target): self.cache},
            )
        self.prefill_seconds = time.perf_counter() - start

    def run(self, **arguments: Any) -> Outcome:
        """Decode; what comes before the first token arrives does not count."""
        clock = _Clock()
        if not arguments:
            arguments = {cache_argument(self.pair.target): copy.deepcopy(self.cache)}
        out = self.pair.target.generate(
            self.ids, attention_mask=torch.ones_like(self.ids), do_sample=False,
            max_new_tokens=self.new_tokens, eos_token_id=-1, streamer=clock, **arguments,
        )  # fmt: skip
        first, last = clock.arrivals[0], clock.arrivals[-1]
        tokens = sum(count for _, count in clock.arrivals[1:])
        rate = tokens / (last[0] - first[0])
        new = out[0, self.ids.shape[1] :].tolist()
        return Outcome(rate, self.new_tokens / len(clock.arrivals), new)


class _Clock:
    """A streamer that notes when how many tokens arrive."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[float, int]] = []
        self._prompt = True

    def put(self, value: torch.Tensor) -> None:
        if not self._prompt:
            self.arrivals.append((time.perf_counter(), value.numel()))
        self._prompt = False

    def end(self) -> None:
        """Nothing more comes."""
