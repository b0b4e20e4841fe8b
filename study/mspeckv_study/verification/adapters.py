"""Engines as they come: this one's methods, transformers' ways of decoding, a function by name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from transformers import GenerationConfig

from mspeckv.accelerate.kept_prompts import Prefills
from mspeckv.api import generate, stream
from mspeckv.events import Round
from mspeckv.models.pair import Pair
from mspeckv.settings import METHODS, RunConfig, Sampling, check_number, refuse
from mspeckv.testing.exactness import prefilled
from mspeckv.testing.logits import decoded
from mspeckv_study.verification.endpoint import Endpoint
from mspeckv_study.verification.engine import Engine, Function, NotOffered, Said

WAYS = ("plain", "assisted", "lookup", "ensemble=W", "custom=module:name")
"""What may follow ``transformers:``."""


class Own(Engine):
    """A method of this engine, as ``config`` says; the sampling is each question's own."""

    def __init__(self, pair: Pair, config: RunConfig) -> None:
        self.pair, self.config, self._prefills = pair, config, Prefills()
        models = f"{pair.target_id}, draft {pair.draft_id}"
        self.name = f"mspeckv {config.method} of {models}, KV {config.policy.bits}"
        self.setting = repr(replace(config, sampling=Sampling(), new_tokens=1))
        self.tokenizer, self.dtype = pair.tokenizer, pair.target.dtype

    def say(self, prompt: list[int], sampling: Sampling, n: int, logprobs: bool = False) -> Said:
        """As of `Engine`."""
        config = replace(self.config, sampling=sampling, new_tokens=n)
        if logprobs:
            found = decoded(self.pair, prompt, config)
            return Said(found.tokens, found.rounds, _logprobs(found.logits, found.tokens))
        rounds = [
            event.tokens
            for event in stream(self.pair, prompt, config, prefills=self._prefills)
            if isinstance(event, Round)
        ]
        tokens = tuple(token for one in rounds for token in one)
        plain = self.config.method == "autoregressive"
        return Said(tokens, () if plain else tuple(len(one) for one in rounds))

    def rows(self, prompt: list[int], sampling: Sampling, n: int, count: int) -> list[Said]:
        """As of `Engine`."""
        config = replace(self.config, sampling=sampling, new_tokens=n)
        parts = ("method", "policy", "speculation", "sampling", "new_tokens", "graphs", "exact")
        settings: Any = {part: getattr(config, part) for part in parts}
        return [Said(one.tokens) for one in generate(self.pair, [prompt] * count, **settings)]

    def logits(self, prompt: list[int], text: Sequence[int]) -> torch.Tensor:
        """As of `Engine`: those of tier 2 alone, over its own KV."""
        config = replace(self.config, method="autoregressive", new_tokens=len(text) + 1)
        with prefilled(self.pair, prompt, config) as tiers:
            for length in range(len(prompt), len(prompt) + len(text) + 1):
                # step by step, as plain decoding packs its KV
                tiers.full.begin_pass()
                logits = tiers.prefilled[-1].read([*prompt, *text][:length], rows=1)[-1].cpu()
                tiers.prefilled[-1].settle(length)
        return logits

    def draft_logits(self, prompt: list[int], text: Sequence[int]) -> torch.Tensor | None:
        """As of `Engine`."""
        return None if self.pair.draft is None else _last_logits(self.pair.draft, prompt, text)


class Transformers(Engine):
    """transformers' own loop, or one that it is handed.

    Args:
        way: one of `WAYS`.
        draft: for ``assisted`` and ``ensemble``.
        tokenizer: for stop strings.

    Raises:
        ValueError: there is no such way, or it needs a draft.
    """

    def __init__(
        self, model: Any, way: str = "plain", draft: Any = None, tokenizer: Any = None
    ) -> None:
        self.model, self.draft, self.tokenizer = model, draft, tokenizer
        self.name = f"transformers {way} of {Path(model.name_or_path).name}"
        self.setting = "" if draft is None else str(draft.name_or_path)
        self.dtype = model.dtype
        kind, _, value = way.partition("=")
        # arguments of `generate`, and fields of its configuration
        self._more, self._fields = dict[str, Any](), dict[str, Any]()
        if kind in ("assisted", "ensemble"):
            if draft is None:
                raise refuse("draft", "none", f"transformers:{way} needs a draft model")
            self._more["assistant_model"] = draft
        if kind == "ensemble":
            weight = float(value) if value.replace(".", "", 1).isdigit() else value
            check_number("ensemble", weight, 0.0, 1.0, open_low=True)
            self._fields["assistant_ensemble_weight"] = weight
        elif kind == "lookup":
            self._fields["prompt_lookup_num_tokens"] = 4
        elif kind == "custom":
            self._more["custom_generate"] = named(value)
        elif way not in ("plain", "assisted"):
            raise refuse("engine", f"transformers:{way}", f"use one of {', '.join(WAYS)}")
        self._custom, self._guesses = kind == "custom", kind in ("assisted", "ensemble", "lookup")

    def say(self, prompt: list[int], sampling: Sampling, n: int, logprobs: bool = False) -> Said:
        """As of `Engine`."""
        (said,) = self._generate([prompt], sampling, n, logprobs)
        return said

    def rows(self, prompt: list[int], sampling: Sampling, n: int, count: int) -> list[Said]:
        """As of `Engine`."""
        if self._guesses:
            raise NotOffered
        return self._generate([prompt] * count, sampling, n)

    def logits(self, prompt: list[int], text: Sequence[int]) -> torch.Tensor:
        """As of `Engine`."""
        return _last_logits(self.model, prompt, text)

    def draft_logits(self, prompt: list[int], text: Sequence[int]) -> torch.Tensor | None:
        """As of `Engine`."""
        return None if self.draft is None else _last_logits(self.draft, prompt, text)

    def _generate(
        self, prompts: list[list[int]], sampling: Sampling, n: int, logprobs: bool = False
    ) -> list[Said]:
        if logprobs and self._custom:
            raise NotOffered
        ids = torch.tensor(prompts, device=self.model.device)
        ends, known = list(sampling.stop_tokens), self.model.generation_config.eos_token_id
        if sampling.stop_at_eos and known is not None:
            ends += known if isinstance(known, list) else [known]
        # one that is no token, so that the model's own end is not asked for
        ends = ends or [self.model.config.get_text_config().vocab_size]
        warp: dict[str, Any] = {}
        if not sampling.greedy:
            warp = {"temperature": float(sampling.temperature), "top_p": sampling.top_p,
                    "top_k": sampling.top_k, "min_p": sampling.min_p or None}  # fmt: skip
        config = GenerationConfig(
            max_new_tokens=n, do_sample=not sampling.greedy, pad_token_id=0, **warp,
            eos_token_id=ends, stop_strings=list(sampling.stop_strings) or None,
            repetition_penalty=sampling.repetition_penalty,
            output_logits=logprobs, return_dict_in_generate=True,
        )  # fmt: skip
        for field, value in self._fields.items():
            setattr(config, field, value)
        more, rounds = dict(self._more), _Rounds()
        if sampling.stop_strings:
            more["tokenizer"] = self.tokenizer
        if self._guesses:
            more["streamer"] = rounds
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(sampling.seed)
            more["attention_mask"] = torch.ones_like(ids)
            try:
                out = self.model.generate(ids, generation_config=config, **more)
            except ValueError:
                # the tokenizer is not handed on to the assistant (transformers 5.17 to 5.24)
                if self.draft is None or not sampling.stop_strings:
                    raise
                raise NotOffered from None
        found = []
        for row in out.sequences[:, ids.shape[1] :].tolist():
            held = _logprobs(torch.cat(out.logits), row) if logprobs else ()
            found.append(Said(tuple(row), tuple(rounds.counts), held))
        return found


class _Rounds:
    """A streamer that counts what comes at once: of speculation, a round's tokens."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self._prompt = True

    def put(self, value: torch.Tensor) -> None:
        """Take what transformers shows; the prompt is shown first."""
        if not self._prompt:
            self.counts.append(value.numel())
        self._prompt = False

    def end(self) -> None:
        """Nothing is to be done."""


def _logprobs(logits: torch.Tensor, tokens: Sequence[int]) -> tuple[float, ...]:
    return tuple(logits.float().log_softmax(-1)[range(len(tokens)), list(tokens)].tolist())


def _last_logits(model: Any, prompt: list[int], text: Sequence[int]) -> torch.Tensor:
    ids = torch.tensor([[*prompt, *text]], device=model.device)
    with torch.inference_mode():
        found: torch.Tensor = model(ids, logits_to_keep=1).logits[0, -1].cpu()
    return found


def named(place: str) -> Any:
    """What ``module:name`` stands for, found in the current folder too; or it is refused."""
    module, _, name = place.partition(":")
    if not module or not name:
        raise refuse("engine", place, "use module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # the module is the user's, and may raise anything
        raise refuse("engine", place, f"it cannot be imported ({error})") from error


def needs_pair(words: str) -> bool:
    """Whether an engine of this name is made of models that have to be loaded."""
    return words in METHODS or words == "transformers" or words.startswith("transformers:")


def engine_named(words: str, pair: Pair | None = None, config: RunConfig | None = None) -> Engine:
    """The engine that words on a command line stand for.

    Args:
        words: a method, ``transformers`` or ``transformers:WAY``, ``module:function``, or an
            address that begins with ``http``.
        pair: models of the first two.
        config: policy and lengths of a method.

    Raises:
        ValueError: there is no such engine.
    """
    if words.startswith(("http://", "https://")):
        try:
            urlsplit(words)
        except ValueError as error:
            raise refuse("engine", words, f"use an address ({error})") from error
        return Endpoint(words)
    if needs_pair(words):
        assert pair is not None
        if words in METHODS:
            return Own(pair, replace(config or RunConfig(), method=words))
        way = words.partition(":")[2] if ":" in words else "plain"
        return Transformers(pair.target, way, pair.draft, pair.tokenizer)
    if ":" not in words:
        known = f"{', '.join(METHODS)}, transformers:WAY, module:function or an address"
        raise refuse("engine", words, f"use {known}")
    found = named(words)
    if not isinstance(found, Engine) and not callable(found):
        raise refuse("engine", words, "use a function, or an Engine")
    return found if isinstance(found, Engine) else Function(found, words)
