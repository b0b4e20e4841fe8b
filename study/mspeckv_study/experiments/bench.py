"""What one process needs to run trials: the pair, the prompts, and being warm."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Any

from mspeckv.accelerate.kept_prompts import Prefills
from mspeckv.api import engine_of, stream
from mspeckv.decoding.run import versions
from mspeckv.events import Event, Round, RunSummary
from mspeckv.models.load import DEFAULT, load_pair
from mspeckv.models.packed import form_of
from mspeckv.models.pair import Pair
from mspeckv.settings import Link, RunConfig, refuse
from mspeckv_study.documents import load_document
from mspeckv_study.experiments.ablations import Experiment, Preset, Trial
from mspeckv_study.experiments.rows import Row, Setup, hardware, installed

WARM_UP_ROUNDS = 3
"""Rounds after which a run has built what it will use again: on a GPU, its graphs."""


@dataclass(frozen=True)
class Models:
    """What to load, as in `mspeckv.load_pair`; hashable, and small to send to a worker."""

    target: str = DEFAULT
    draft: str = DEFAULT
    device: str = "cpu"
    dtype: str = "float32"

    def load(self) -> Pair:
        """The pair, its weights as floats on every machine.

        Raises:
            ValueError: it cannot be loaded.
            ModelMissing: the default target is absent and cannot be fetched.
        """
        return load_pair(self.target, self.draft, device=self.device, dtype=self.dtype)


class Bench:
    """A pair, ready for trials one after the other; they share prefills."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.prefills = Prefills()
        self.hardware = hardware(pair.device)
        self._prompts: dict[tuple[str, int], list[int]] = {}
        self._warm = False

    def check(self, experiment: Experiment) -> None:
        """Refuse an experiment for another number of layers, and a pair without a tokenizer."""
        preset, layers = experiment.preset, experiment.preset.layers
        if self.pair.layers != layers:
            allowed = f"it places {layers} layers and the target has {self.pair.layers}: "
            raise refuse("preset", preset.name, f"{allowed}use a target of {layers} layers")
        if self.pair.tokenizer is None:
            raise refuse("target", self.pair.target_id, "use a target with a tokenizer")

    def setup(self, preset: Preset, step_seconds: float | None = None) -> Setup:
        """What this bench's rows share.

        The target's step, which an ``origin`` link is scaled by, is measured if it is not given.
        """
        pair = self.pair
        if preset.link.preset == "origin" and pair.device.type == "cpu":
            engine = engine_of(pair)
            engine.step_seconds = step_seconds
            assert engine.hooks.step is not None
            step_seconds = engine.hooks.step(engine, pair)
        return Setup(
            pair.target_id,
            pair.draft_id,
            pair.device.type,
            str(pair.dtype).removeprefix("torch."),
            step_seconds,
            self.hardware,
            datetime.now(UTC).isoformat(timespec="seconds"),
            form_of(pair.target),
        )

    def run(self, trial: Trial, cancel: threading.Event | None = None) -> Row | None:
        """One trial's row, whether it works or fails; None if it was cancelled."""
        began = time.perf_counter()
        try:
            self._warm_up(trial)
            began = time.perf_counter()
            *events, summary = self._stream(trial, self._config(trial), cancel)
        except Exception as error:  # one trial's failure is a row, and the rest go on
            return failed_row(trial, error, self.hardware, began)
        assert isinstance(summary, RunSummary)
        if summary.cancelled:
            return None
        rounds = [event for event in events if isinstance(event, Round)]
        tokens = sum(len(done.tokens) for done in rounds)
        moved = sum(done.link_bytes() for done in rounds)
        read = {str(tier.tier): 0.0 for tier in summary.tiers}
        for done in rounds:
            for one in done.passes:
                read[str(one.tier)] += one.kv_bytes / len(summary.tokens)
        return Row(
            **_common(trial, self.hardware, began),
            status="ok",
            result=summary.to_json(),
            link_bytes_per_token=moved / tokens if tokens else 0.0,
            kv_read_per_token=read,
            prefill_shared=self.prefills.shared,
            prefill_saved_seconds=self.prefills.saved_seconds,
        )

    def _config(self, trial: Trial) -> RunConfig:
        """The trial's run; a short list as long as this vocabulary would be no list."""
        config = trial.config
        if config.speculation.draft_vocab < self.pair.vocab_size:
            return config
        return replace(config, speculation=replace(config.speculation, draft_vocab=0))

    def _stream(
        self, trial: Trial, config: RunConfig, cancel: threading.Event | None = None
    ) -> Iterator[Event]:
        prompt = self._prompt(trial.cell.preset)
        return stream(self.pair, prompt, config, cancel=cancel, prefills=self.prefills)

    def _warm_up(self, trial: Trial) -> None:
        """A few rounds that do not count: on a CPU once, on a GPU for every trial's graphs."""
        if self._warm and self.pair.device.type == "cpu":
            return
        config = replace(self._config(trial), link=Link())
        deque(islice(self._stream(trial, config), 1 + WARM_UP_ROUNDS), maxlen=0)
        self._warm = True

    def _prompt(self, preset: Preset) -> list[int]:
        key = preset.document, preset.prefill
        if key not in self._prompts:
            assert self.pair.tokenizer is not None
            self._prompts[key] = load_document(key[0], self.pair.tokenizer, key[1])
        return self._prompts[key]


def failed_row(
    trial: Trial, error: BaseException, hardware: dict[str, Any], began: float | None = None
) -> Row:
    """The row of a trial that failed; ``began`` is by `time.perf_counter`, None for just now."""
    return Row(
        **_common(trial, hardware, time.perf_counter() if began is None else began),
        status="failed",
        error=f"{type(error).__name__}: {' '.join(str(error).split())}",
    )


def _common(trial: Trial, hardware: dict[str, Any], began: float) -> dict[str, Any]:
    """What every row of a trial says, however it ended."""
    cell = trial.cell
    seconds = time.perf_counter() - began
    return {
        "key": trial.key,
        "experiment": cell.experiment,
        "preset": cell.preset.name,
        "axis": cell.axis,
        "value": cell.value,
        "variant": cell.variant,
        "seed": trial.seed,
        "started": (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds"),
        "seconds": seconds,
        "hardware": hardware,
        "versions": versions(),
        "mspeckv": installed("mspeckv"),
    }


@lru_cache(maxsize=1)
def bench_of(models: Models) -> Bench:
    """This process' bench for ``models``; a cluster's worker keeps it between trials."""
    return Bench(models.load())
