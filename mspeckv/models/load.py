"""Loading a target and its draft."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from mspeckv.models.checks import check_decoder, common_tokens
from mspeckv.models.download import FORMS, model_folder, ready
from mspeckv.models.gguf_file import GGUFFile
from mspeckv.models.packed import AUTO, BITS, OUTER_BITS, pack_model
from mspeckv.models.packed_folder import load_packed
from mspeckv.models.pair import Pair, Rank
from mspeckv.models.shared_draft import DEFAULT_DRAFT, default_draft, load_shared_draft
from mspeckv.settings import check_choice, check_kind, refuse

DEFAULT = "default"
DEFAULT_TARGET = "SmolLM2-135M-Instruct"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Splitting(Protocol):
    """Shares a model out over processes (`mspeckv.parallel.tensor_parallel.Split`)."""

    @property
    def ranks(self) -> Rank:
        """This process among the others."""

    def own_device(self, device: torch.device) -> torch.device:
        """Where this process computes."""

    def check(self, config: PretrainedConfig) -> None:
        """Refuse a model that cannot be shared out."""

    def load(self, source: str, dtype: torch.dtype) -> PreTrainedModel:
        """This process's share, on its own device."""

    def together(self) -> AbstractContextManager[None]:
        """What is refused on one process inside is refused on all."""


def load_pair(
    target: str = DEFAULT,
    draft: str = DEFAULT,
    *,
    device: str = "cpu",
    dtype: str | torch.dtype = "float32",
    splitting: Splitting | None = None,
    weights: str = "float",
    read: Callable[[PreTrainedModel], object] = lambda model: None,
) -> Pair:
    """Load a target and a draft; see `mspeckv.load_pair` for what they may be, and for errors.

    Args:
        splitting: shares the target out over processes, each of which calls this.
        read: told of each packed model before its trial pass, so that this is fast too.
    """
    check_kind("target", target, str, "a name, or a folder's path as text")
    check_kind("draft", draft, str, "a name, a path as text, or 'none'")
    where, kind = parse_device(device), parse_dtype(dtype)
    bits = parse_weights(weights, where, kind, splitting is not None)
    where = where if splitting is None else splitting.own_device(where)
    ranks = None if splitting is None else splitting.ranks
    form = weights if target == DEFAULT and weights in FORMS else "float"
    source = str(ready(form=form)) if target == DEFAULT else _folder("target", target, kind)
    if form == "float":
        model = _load("target", source, where, kind, splitting)
    else:
        with _one_line_errors("target", source):
            model = load_packed(Path(source))
    if bits is not None:
        pack_model(model, bits)
        read(model)
    tokenizer = _load_tokenizer("target", source)
    target_id = DEFAULT_TARGET if target == DEFAULT else target
    draft_id, own, also = draft, None, None
    if draft == DEFAULT:
        draft_id, own = DEFAULT_DRAFT, default_draft(model)
    elif draft.endswith(".safetensors"):
        own = load_shared_draft(model, Path(draft).expanduser())
    elif draft != "none":
        # The tokenizer first: it is small, and a mismatch is the likely mistake.
        source = _folder("draft", draft, kind)
        also = _load_tokenizer("draft", source)
        common_tokens(tokenizer, also, target_id, draft)
        own = _load("draft", source, where, kind)
    if bits is not None and own is not None:
        pack_model(own, OUTER_BITS)
        read(own)
    pair = Pair.of(
        model, own, tokenizer, draft_tokenizer=also, target_id=target_id, draft_id=draft_id,
        ranks=ranks,
    )  # fmt: skip
    _return_freed()
    return pair


def _return_freed() -> None:
    """Give the system back what loading used and freed, some 50 MB; glibc would keep it."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def parse_device(device: str) -> torch.device:
    """A torch device that this machine has.

    Raises:
        ValueError: unknown, or CUDA where there is none.
    """
    allowed = "use cpu" + (" or cuda" if torch.cuda.is_available() else " (no CUDA here)")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise refuse("device", device, allowed) from error
    absent = found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count()
    if found.type not in ("cpu", "cuda") or absent:
        raise refuse("device", device, allowed)
    return found


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """A compute dtype from its name.

    Raises:
        ValueError: not float32, bfloat16 or float16.
    """
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in DTYPES.values():
        raise refuse("dtype", dtype, f"use one of {', '.join(DTYPES)}")
    return found


def parse_weights(
    weights: str, device: torch.device, dtype: torch.dtype, split: bool = False
) -> int | None:
    """Bits of a model's layers; None for floats, and where that is still to be chosen.

    Raises:
        ValueError: no such form, or packed weights anywhere but in float32 on one CPU.
    """
    check_choice("weights", weights, (AUTO, *BITS))
    bits = BITS.get(weights)
    if bits is not None and (device.type != "cpu" or dtype != torch.float32 or split):
        raise refuse("weights", weights, "use float, but for float32 on one process's CPU")
    return bits


def _load(
    field: str,
    source: str,
    device: torch.device,
    dtype: torch.dtype,
    splitting: Splitting | None = None,
) -> PreTrainedModel:
    agreed = nullcontext if splitting is None else splitting.together
    with agreed():
        with _one_line_errors(field, source):
            config = AutoConfig.from_pretrained(source)
        # Before the weights, which may be many gigabytes.
        check_decoder(config, field, source)
        if splitting is not None:
            splitting.check(config)
    with agreed(), _one_line_errors(field, source), _no_progress_bar():
        if splitting is not None:
            return splitting.load(source, dtype)
        model: PreTrainedModel
        model, told = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, output_loading_info=True
        )
        if told["missing_keys"]:
            # transformers would draw them at random.
            raise ValueError(f"no weights for {min(told['missing_keys'])}")
        model.to(device)
    return model


def _folder(field: str, source: str, dtype: torch.dtype) -> str:
    """What transformers loads: of a GGUF file, the folder that it is converted into."""
    if not source.endswith(".gguf"):
        return source
    file = GGUFFile(Path(source).expanduser())
    with _one_line_errors(field, source):
        folder = file.folder(dtype)
        config = None if folder.is_dir() else file.config
    if config is not None:
        # Before the weights, which take minutes.
        check_decoder(config, field, source)
        with _one_line_errors(field, source), _no_progress_bar():
            file.convert(dtype)
    return str(folder)


def _load_tokenizer(field: str, source: str) -> PreTrainedTokenizerBase:
    with _one_line_errors(field, source):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
    return tokenizer


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Loading is short, and a notebook would keep the bar."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _one_line_errors(field: str, source: str) -> Iterator[None]:
    """Turn a loader's many kinds of complaint into the one that settings have.

    Damaged files end in any kind of exception: tokenizers raises ``Exception`` itself.
    """
    try:
        yield
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        allowed = "use a Hugging Face id or a folder that transformers can load"
        if source.endswith(".gguf"):
            allowed = "use a whole GGUF file of a decoder that transformers reads"
        if source in map(str, map(model_folder, FORMS)):
            allowed = "run: mspeckv fetch, which mends a damaged file"
        raise refuse(field, source, f"{allowed} ({reason.strip()})") from error
