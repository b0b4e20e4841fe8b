"""Speculation inside plain transformers code: ``model.generate(..., custom_generate=...)``.

transformers prepares everything as for its own decoding (prompt, generation config, logits
processors, stopping criteria) and then calls ours instead of its loop. What cannot be done exactly
is refused by name before work starts.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

import torch
import transformers
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)
from transformers.generation import GenerateDecoderOnlyOutput

from mspeckv.api import engine_of
from mspeckv.decoding.fits import check_run
from mspeckv.decoding.run import Run
from mspeckv.events import RunSummary
from mspeckv.integrations.rows import Row, decode, handed_in
from mspeckv.models.checks import cache_argument
from mspeckv.models.pair import Pair
from mspeckv.models.shared_draft import default_draft
from mspeckv.settings import KVPolicy, Link, RunConfig, Sampling, Speculation, refuse

STATELESS = (
    "EpsilonLogitsWarper", "EtaLogitsWarper", "ExponentialDecayLengthPenalty",
    "ForcedBOSTokenLogitsProcessor", "ForcedEOSTokenLogitsProcessor",
    "InfNanRemoveLogitsProcessor", "LogitNormalization", "MinLengthLogitsProcessor",
    "MinNewTokensLengthLogitsProcessor", "MinPLogitsWarper", "NoBadWordsLogitsProcessor",
    "NoRepeatNGramLogitsProcessor", "RepetitionPenaltyLogitsProcessor",
    "SequenceBiasLogitsProcessor", "SuppressTokensAtBeginLogitsProcessor",
    "SuppressTokensLogitsProcessor", "TemperatureLogitsWarper", "TopKLogitsWarper",
    "TopPLogitsWarper", "TypicalLogitsWarper",
)  # fmt: skip
"""transformers' processors that depend on nothing but the tokens before and the logits."""

_DEFAULTS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("num_beams", "num_return_sequences"), (None, 1)),
    "penalty_alpha": (None, 0),
    **dict.fromkeys((
        "dola_layers", "prompt_lookup_num_tokens", "assistant_early_exit", "cache_implementation",
        "constraints", "force_words_ids",
    ), (None,)),
    **dict.fromkeys((
        "is_assistant", "use_mtp", "output_scores", "output_logits", "output_attentions",
        "output_hidden_states",
    ), (None, False)),
}  # fmt: skip
"""Fields of a generation config that ask for another way of decoding, and what leaves them off."""

_PREPARED = {
    "attention_mask", "position_ids", "past_key_values", "cache", "use_cache", "logits_to_keep",
    "cache_position",
}  # fmt: skip
"""What transformers hands to any decoding loop."""


class CustomGenerate:
    """A decoding loop for ``generate``; build it with `as_custom_generate`.

    Attributes:
        summaries: one `RunSummary` per row of the last call.
    """

    def __init__(
        self, draft: PreTrainedModel | str | None, config: RunConfig, trusted: Sequence[type]
    ) -> None:
        self.draft, self.config = draft, config
        self.trusted = (*(getattr(transformers, name) for name in STATELESS), *trusted)
        self.summaries: list[RunSummary] = []
        self._pair: Pair | None = None

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **model_kwargs: Any,
    ) -> torch.Tensor | GenerateDecoderOnlyOutput:
        """Continue each row of ``input_ids`` ``[B, S]``; returns ``[B, S + new]``.

        Args:
            tokenizer: taken, so that transformers finds it where it looks for stop strings; all
                others as transformers has prepared them.

        Raises:
            ValueError: something was asked for that cannot be done exactly.
        """
        outer = _arguments_of_generate()
        argument, cache = handed_in(model_kwargs, len(input_ids))
        self._check(model, input_ids, logits_processor, generation_config, model_kwargs, outer)
        if int(getattr(model, "tp_size", None) or 1) > 1:
            name = str(model.name_or_path)
            raise refuse("model", name, "it is split over ranks: use mspeckv.generate")
        pair = self._pair_of(model)
        engine = engine_of(pair)
        configs = self._configs(len(input_ids), input_ids.shape[1], generation_config)
        check_run(engine, pair, configs[0], input_ids.shape[1])
        whole = not (pair.kv_shape.kinds or pair.kv_shape.latent)
        if cache is not None and not whole:
            raise refuse(argument, "one", "its layers do not keep the whole text: leave it out")
        wanted = generation_config.return_dict_in_generate and generation_config.use_cache
        if cache is None and wanted and whole and len(input_ids) == 1:
            cache = DynamicCache()
        runs = (
            Run(engine, pair, config, prompt, processors=logits_processor)
            for config, prompt in zip(configs, input_ids.tolist(), strict=True)
        )
        rows = [Row(run, cache) for run in runs]
        streamer, padding = outer.get("streamer"), _padding(generation_config)
        decode(rows, stopping_criteria, streamer, padding, input_ids.device)
        if streamer is not None:
            streamer.end()
        # a local name: another thread may be in a call of its own
        summaries = self.summaries = [row.summary for row in rows]
        new = [torch.tensor(one.tokens, dtype=input_ids.dtype) for one in summaries]
        filled = pad_sequence(new, batch_first=True, padding_value=padding)
        sequences = torch.cat([input_ids, filled.to(input_ids.device)], 1)
        if not generation_config.return_dict_in_generate:
            return sequences
        return GenerateDecoderOnlyOutput(sequences=sequences, **{cache_argument(model): cache})

    @property
    def __signature__(self) -> inspect.Signature:
        """What `__call__` takes.

        transformers (5.17 to 5.24) sets the tokenizer aside, asks which arguments a custom loop
        takes, and loses the tokenizer: it is put back where it came from while that is asked.
        """
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_name != "_extract_generation_mode_kwargs":
            frame = frame.f_back
        aside = frame.f_locals.get("generation_mode_kwargs", {}) if frame is not None else {}
        if frame is not None and "tokenizer" in aside:
            frame.f_locals["kwargs"]["tokenizer"] = aside["tokenizer"]
        return inspect.signature(self.__call__)

    def _configs(self, rows: int, prompt: int, config: GenerationConfig) -> list[RunConfig]:
        """Each row's settings: a seed of its own, of torch's generator as ``generate``'s draws."""
        samplings = [Sampling(temperature=0.0, stop_at_eos=False)] * rows
        if config.do_sample:
            seeds = torch.randint(2**62, (rows,)).tolist()
            samplings = [Sampling(1.0, 1.0, seed, stop_at_eos=False) for seed in seeds]
        new_tokens = int(config.max_length) - prompt
        return [replace(self.config, new_tokens=new_tokens, sampling=one) for one in samplings]

    def _pair_of(self, model: PreTrainedModel) -> Pair:
        """The pair with this target, kept for the next call."""
        pair = self._pair
        if pair is None or pair.target is not model:
            draft = default_draft(model) if isinstance(self.draft, str) else self.draft
            pair = self._pair = Pair.of(model, draft, freeze=False)
        return pair

    def _check(
        self,
        model: PreTrainedModel,
        input_ids: torch.Tensor,
        processors: LogitsProcessorList,
        config: GenerationConfig,
        model_kwargs: dict[str, Any],
        outer: dict[str, Any],
    ) -> None:
        """Refuse by name what cannot be honoured."""
        leave = "leave it out with this custom_generate"
        for field, usual in _DEFAULTS.items():
            value = getattr(config, field, None)
            if value not in usual:
                raise refuse(field, value, leave)
        if outer.get("assistant_model") is not None:
            raise refuse("assistant_model", "a model", "pass it as as_custom_generate(draft=...)")
        for processor in processors:
            if not isinstance(processor, self.trusted):
                allowed = "use a processor of transformers without state, or vouch for yours: "
                allowed += "as_custom_generate(stateless=(...,))"
                raise refuse("logits_processor", type(processor).__name__, allowed)
        if torch.is_autocast_enabled(input_ids.device.type):
            raise refuse("autocast", "on", "leave it: the model is run in its own dtype")
        for name, value in model_kwargs.items():
            if name not in _PREPARED and value is not None:
                raise refuse(name, type(value).__name__, leave)
        mask, positions = model_kwargs.get("attention_mask"), model_kwargs.get("position_ids")
        if mask is not None and not bool((mask == 1).all()):
            raise refuse("attention_mask", "a padded prompt", "use prompts of equal length")
        straight = torch.arange(input_ids.shape[1], device=input_ids.device)
        if positions is not None and not bool((positions == straight).all()):
            raise refuse("position_ids", "other positions", "leave them out")
        if model.training:
            raise refuse("model", "training mode", "call model.eval() first")


def as_custom_generate(
    draft: PreTrainedModel | str | None = None,
    *,
    policy: KVPolicy | None = None,
    speculation: Speculation | None = None,
    method: str = "mspeckv",
    link: Link | str | float | None = None,
    exact: str = "tokens",
    stateless: Sequence[type] = (),
) -> CustomGenerate:
    """A value for ``custom_generate`` of transformers' ``generate``.

    ``model.generate(**inputs, custom_generate=as_custom_generate(draft=small))`` then decodes with
    the generation config, streamer, stopping criteria and logits processors it was given, through
    our tiers. The distribution is that of ``method="autoregressive"`` under the same policy; at
    ``KVPolicy("full")`` that is ``generate``'s own.

    Args:
        draft: tier 0: a model with the target's vocabulary, ``"default"`` for the shipped draft
            where the target is the default one, or None.
        policy: width and placement of tier 2's KV.
        speculation: who guesses, and how far.
        method: as in `mspeckv.generate`.
        link: emulated link on CPU.
        exact: ``"bitwise"`` for the bits of plain decoding under it; see `RunConfig`.
        stateless: classes of your own logits processors that depend on nothing but their two
            arguments; others are refused, because a guess that is taken back would stay in them.

    Raises:
        ValueError: a draft that is neither a model nor ``"default"``, or an unknown method.
    """
    if isinstance(draft, str) and draft != "default":
        raise refuse("draft", draft, "use a model, 'default' or None")
    config = RunConfig.build(
        method=method, policy=policy, speculation=speculation, link=link, exact=exact
    )
    return CustomGenerate(draft, config, stateless)


def _padding(config: GenerationConfig) -> int:
    """The token that fills up shorter rows."""
    ends = config.eos_token_id
    pads = (config.pad_token_id, ends[0] if isinstance(ends, list) else ends, 0)
    return int(next(pad for pad in pads if pad is not None))


def _arguments_of_generate() -> dict[str, Any]:
    """The arguments of the ``generate`` that called us.

    It hands a custom loop neither its streamer nor its assistant model (transformers 5.17 and
    5.23), and dropping them in silence would be worse than looking.
    """
    frame = sys._getframe(2)
    return frame.f_locals if frame.f_code.co_name == "generate" else {}
