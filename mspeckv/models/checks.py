"""Which models can be a target or a draft, and which two go together."""

from __future__ import annotations

import inspect
import sys

from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from mspeckv.kv.kinds import kinds_of, unknown_kinds
from mspeckv.kv.latent import latent_widths
from mspeckv.settings import refuse

ALLOWED = "use a decoder with standard attention in every layer"
"""What every refusal ends with."""

_NEEDED = ("num_hidden_layers", "num_attention_heads", "max_position_embeddings", "vocab_size")
_ARGUMENTS = {"position_ids", "logits_to_keep"}
_LONGROPE = "original_max_position_embeddings"


def cache_argument(model: PreTrainedModel) -> str:
    """The name by which ``model.forward`` takes its cache.

    ``past_key_values`` up to transformers 5.23, ``cache`` from 5.24 on, where the old name warns.
    """
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def check_decoder(config: PretrainedConfig, field: str, name: str) -> None:
    """Refuse architectures whose cache is not plain keys and values of tokens.

    Raises:
        ValueError: an encoder-decoder; layers of a kind that the engine does not know, or none
            that attends; keys and values that are shared, or of several sizes.
    """
    try:
        text = config.get_text_config()
    except ValueError as error:
        raise refuse(field, name, f"it joins several text models; {ALLOWED}") from error
    if config.is_encoder_decoder or text.is_encoder_decoder:
        raise refuse(field, name, f"it is an encoder-decoder; {ALLOWED}")
    if other := unknown_kinds(text):
        raise refuse(field, name, f"it has {', '.join(other)} layers; {ALLOWED}")
    if kinds_of(text) and all(kind.sight is None for kind in kinds_of(text)):
        raise refuse(field, name, f"no layer of it attends; {ALLOWED}")
    widths = latent_widths(text)
    if widths is not None and (sum(widths) % 2 or widths[0] == widths[1]):
        raise refuse(field, name, f"its latents have the widths {widths}; {ALLOWED}")
    if getattr(text, "num_kv_shared_layers", None):
        raise refuse(field, name, f"some of its layers share keys and values; {ALLOWED}")
    for setting in ("head_dim", "num_key_value_heads", *_NEEDED):
        try:
            found = getattr(text, setting, None)
        except Exception as error:
            reason = f"{setting} differs between its layers; {ALLOWED}"
            raise refuse(field, name, reason) from error
        if found is None and setting in _NEEDED:
            raise refuse(field, name, f"its configuration has no {setting}; {ALLOWED}")


def check_model(model: PreTrainedModel, field: str) -> None:
    """Refuse models whose passes cannot be steered, taken back, or replaced by causal attention.

    Raises:
        ValueError: a recurrent state outside of its layers' kinds, attention that looks ahead (an
            encoder with a language head) or that transformers does not look up, or a ``forward``
            that lacks an argument.
    """
    # a model that also sees or hears has encoders beside its decoder, which text does not pass
    decoder = model.get_decoder()
    parts = decoder.modules()
    looks_ahead = any(getattr(module, "is_causal", None) is False for module in parts)
    known = any(kind.states for kind in kinds_of(model.config.get_text_config()))
    # some have the interface and do not say so, but their code names it: the trial pass finds out
    code = sys.modules[type(decoder).__module__]
    interface = getattr(model, "_supports_attention_backend", False) or hasattr(
        code, "ALL_ATTENTION_FUNCTIONS"
    )
    missing = sorted(_ARGUMENTS - inspect.signature(model.forward).parameters.keys())
    stateful = getattr(model, "_is_stateful", False) and not known
    faults = (
        (stateful, f"it keeps a recurrent state; {ALLOWED}"),
        (looks_ahead, f"its attention looks ahead; {ALLOWED}"),
        (not interface, "use a decoder that supports transformers' attention interface"),
        (missing, f"its forward takes no {' and no '.join(missing)}; {ALLOWED}"),
    )
    for found, complaint in faults:
        if found:
            raise refuse(field, type(model).__name__, complaint)


def check_lengths(config: PretrainedConfig, field: str, prompt: int, new_tokens: int) -> None:
    """Refuse a run whose text crosses a length beyond which positions mean something else.

    longrope and dynamic rotary factors depend on how long the text is: beyond the border others
    hold, while keys read before keep the old ones. Which keys those are depends on how tokens came
    in passes, so methods would differ. A table of positions simply ends.

    Raises:
        ValueError: the text crosses such a border; a prompt beyond longrope's meets one set only.
    """
    text = config.get_text_config()
    own = getattr(text, "rope_parameters", None) or {}
    # one set, or one by kind of layer
    rotary = [own] if "rope_type" in own else [one for one in own.values() if isinstance(one, dict)]
    borders = {}
    if not rotary or any(one.get("rope_type") == "dynamic" for one in rotary):
        borders["max_position_embeddings"] = int(text.max_position_embeddings)
    for one in rotary:
        # Prefill reads the prompt but for its last token.
        if one.get("rope_type") == "longrope" and prompt - 1 <= one[_LONGROPE]:
            borders[_LONGROPE] = int(one[_LONGROPE])
    for name, border in borders.items():
        if prompt + new_tokens > border:
            beyond = f", or at least {border + 2}" if name == _LONGROPE else ""
            raise refuse(
                "prompt + new_tokens",
                f"{prompt} + {new_tokens}",
                f"beyond {name} = {border} the {field} has other positions, or none: "
                f"use at most {max(0, border - new_tokens)} prompt tokens{beyond}",
            )


def check_match(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    target_id: str,
    draft_id: str,
    tokens: int | None = None,
) -> int | None:
    """Refuse a draft whose distribution cannot be compared with the target's.

    Args:
        tokens: of the tokenizer of both, if that is known.

    Returns:
        Tokens to compare, where the two are padded to different sizes; None for all.

    Raises:
        ValueError: another device or dtype; another vocabulary size, unless it is padding.
    """
    sizes = [model.config.get_text_config().vocab_size for model in (target, draft)]
    padded = sizes[0] != sizes[1] and tokens is not None and tokens <= min(sizes)
    both = {
        "vocabulary size": [tokens, tokens] if padded else sizes,
        "device": [target.device, draft.device],
        "dtype": [target.dtype, draft.dtype],
    }
    for what, (of_target, of_draft) in both.items():
        if of_draft != of_target:
            allowed = f"its {what} is {of_draft}, that of {target_id} is {of_target}"
            raise refuse("draft", draft_id, f"{allowed}: they must match")
    return tokens if padded else None


def common_tokens(
    target: PreTrainedTokenizerBase | None,
    draft: PreTrainedTokenizerBase | None,
    target_id: str,
    draft_id: str,
) -> int | None:
    """How many tokens two tokenizers mean by the same numbers; None unless both are given.

    Raises:
        ValueError: the two vocabularies differ: the draft means other tokens.
    """
    if target is None or draft is None:
        return None
    of_target, of_draft = target.get_vocab(), draft.get_vocab()
    if of_target != of_draft:
        differing = sum(of_target.get(t) != of_draft.get(t) for t in of_target.keys() | of_draft)
        allowed = f"its tokenizer differs from that of {target_id} in {differing} tokens: "
        allowed += "use a draft with the target's vocabulary, or 'none'"
        raise refuse("draft", draft_id, allowed)
    return int(1 + max(of_target.values()))
