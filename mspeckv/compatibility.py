"""Which models can be a target or a draft, and which two go together."""

from __future__ import annotations

import inspect

from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from mspeckv.config import refuse

_ALLOWED = "use a decoder with standard attention in every layer"
_PLAIN_LAYERS = {"full_attention", "attention"}
_NEEDED = ("num_hidden_layers", "num_attention_heads", "max_position_embeddings", "vocab_size")


def cache_argument(model: PreTrainedModel) -> str:
    """The name by which ``model.forward`` takes its cache.

    ``past_key_values`` up to transformers 5.23, ``cache`` from 5.24 on, where the old name warns.
    """
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def check_decoder(config: PretrainedConfig, field: str, name: str) -> None:
    """Refuse architectures whose cache is not plain keys and values of every token.

    Args:
        field: ``"target"`` or ``"draft"``, for the complaint.
        name: id or path of the model, for the complaint.

    Raises:
        ValueError: an encoder-decoder; sliding-window, chunked, linear or hybrid layers;
            compressed keys and values.
    """
    text = config.get_text_config()
    if config.is_encoder_decoder or text.is_encoder_decoder:
        raise refuse(field, name, f"it is an encoder-decoder; {_ALLOWED}")
    kinds = getattr(text, "layer_types", None)
    other = sorted(set(kinds or ()) - _PLAIN_LAYERS)
    if not kinds:
        # Without a list of layers, a window or a chunk size speaks for all of them.
        if getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True):
            other.append("sliding_attention")
        if getattr(text, "attention_chunk_size", None):
            other.append("chunked_attention")
    if other:
        raise refuse(field, name, f"it has {', '.join(other)} layers; {_ALLOWED}")
    if getattr(text, "kv_lora_rank", None):
        raise refuse(field, name, f"it compresses keys and values (kv_lora_rank); {_ALLOWED}")
    for setting in _NEEDED:
        if getattr(text, setting, None) is None:
            raise refuse(field, name, f"its configuration has no {setting}; {_ALLOWED}")


def check_stateless(model: PreTrainedModel, field: str) -> None:
    """Refuse models that carry recurrent state, which cannot be rolled back.

    Raises:
        ValueError: a state-space, linear-attention or hybrid model.
    """
    if getattr(model, "_is_stateful", False):
        name = type(model).__name__
        raise refuse(field, name, f"it keeps a recurrent state; {_ALLOWED}")


def check_causal(model: PreTrainedModel, field: str) -> None:
    """Refuse models whose tokens also look ahead, such as encoders with a language head.

    Raises:
        ValueError: an attention layer is not causal.
    """
    looks_ahead = any(getattr(module, "is_causal", None) is False for module in model.modules())
    if looks_ahead:
        name = type(model).__name__
        raise refuse(field, name, f"its attention looks ahead; {_ALLOWED}")


def check_match(
    target: PreTrainedModel, draft: PreTrainedModel, target_id: str, draft_id: str
) -> None:
    """Refuse a draft whose distribution cannot be compared with the target's.

    Raises:
        ValueError: another vocabulary size, device or dtype.
    """
    rows = (
        (
            "vocabulary size",
            target.config.get_text_config().vocab_size,
            draft.config.get_text_config().vocab_size,
        ),
        ("device", target.device, draft.device),
        ("dtype", target.dtype, draft.dtype),
    )
    for what, of_target, of_draft in rows:
        if of_target != of_draft:
            raise refuse(
                "draft",
                draft_id,
                f"its {what} is {of_draft}, that of {target_id} is {of_target}: they must match",
            )


def check_tokenizers(
    target: PreTrainedTokenizerBase,
    draft: PreTrainedTokenizerBase,
    target_id: str,
    draft_id: str,
) -> None:
    """Refuse a draft that means other tokens by the same numbers.

    Raises:
        ValueError: the two vocabularies differ.
    """
    of_target, of_draft = target.get_vocab(), draft.get_vocab()
    if of_target != of_draft:
        differing = sum(of_target.get(t) != of_draft.get(t) for t in of_target.keys() | of_draft)
        raise refuse(
            "draft",
            draft_id,
            f"its tokenizer differs from that of {target_id} in {differing} tokens: "
            "use a draft with the target's vocabulary, or 'none'",
        )
