"""What a draft learns from: text sampled from its target, and documentation."""

from __future__ import annotations

import random
import site
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedTokenizerBase

from mspeckv.models.pair import Pair
from mspeckv_study.documents import load_document
from tools.distil.settings import Distillation

TEMPERATURES = (0.6, 0.7, 0.8, 0.9, 1.0)
_SUFFIXES = (".rst", ".md", ".txt", ".py")
_BARE_SHARE = 1 / 3
"""Share of the rows that are sampled from the beginning-of-sequence token alone."""
_PROMPT = 32
"""Document tokens that the other rows begin with."""
_FILES_AT_ONCE = 32


def held_out_tokens(tokenizer: PreTrainedTokenizerBase, settings: Distillation) -> torch.Tensor:
    """Windows ``[n, window]`` of the language reference, which training never reads."""
    wanted = settings.measure_windows * settings.window
    tokens = torch.tensor(load_document("python-reference", tokenizer, wanted))
    return tokens.view(-1, settings.window)


def document_tokens(tokenizer: PreTrainedTokenizerBase, settings: Distillation) -> torch.Tensor:
    """Token ids ``[n]`` of the documentation and code that this Python's folders hold.

    Files come in an order that the seed shuffles, until there are enough tokens.
    """
    out: list[int] = []
    files = iter(_files(settings.seed))
    while len(out) < settings.document_tokens and (some := list(islice(files, _FILES_AT_ONCE))):
        texts = [path.read_text("utf-8", errors="ignore") for path in some]
        for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]:
            out += ids
    return torch.tensor(out[: settings.document_tokens])


def _files(seed: int) -> list[Path]:
    """Text files of the standard library and the installed packages, shuffled."""
    folders = {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")}
    found = {
        path
        for folder in folders.union(site.getsitepackages())
        for path in Path(folder).rglob("*")
        # the language reference is what drafts are measured on
        if path.suffix in _SUFFIXES and "pydoc_data" not in path.parts and _is_middling(path)
    }
    files = sorted(found, key=str)
    random.Random(seed).shuffle(files)
    return files


def _is_middling(path: Path) -> bool:
    """Neither a stub nor a table of data."""
    try:
        return path.is_file() and 2_000 < path.stat().st_size < 400_000
    except OSError:
        return False


def sampled_tokens(
    pair: Pair, documents: torch.Tensor, settings: Distillation, file: Path
) -> torch.Tensor:
    """Token ids ``[n]`` drawn from the target, in windows one after the other.

    ``file`` keeps every finished batch, so that an interrupted run goes on from there.
    """
    tokens = torch.empty(0, dtype=torch.int32)
    if file.exists():
        tokens = load_file(file)["tokens"]
    wanted, size = settings.sample_tokens, settings.sample_batch * settings.window
    bar = tqdm(total=wanted, initial=len(tokens), unit="token", desc="sampling", mininterval=5)
    for turn, prompt in enumerate(_prompts(pair, documents, settings)):
        if len(tokens) >= wanted:
            break
        if turn < len(tokens) // size:
            continue
        torch.manual_seed(settings.seed + turn)
        temperature = TEMPERATURES[turn % len(TEMPERATURES)]
        new = sample_rows(pair, prompt, settings.window, temperature)
        tokens = torch.cat([tokens, new.cpu().flatten().to(torch.int32)])
        save_file({"tokens": tokens}, file)
        bar.update(new.numel())
    bar.close()
    return tokens[:wanted].long()


def sample_rows(pair: Pair, prompt: torch.Tensor, length: int, temperature: float) -> torch.Tensor:
    """Rows ``[B, length]``: the prompts, continued by the target, past any end of sequence."""
    target = pair.target
    # Every token may be drawn; a text that ends is followed by another.
    config = GenerationConfig(
        do_sample=True, temperature=temperature, top_k=0, top_p=1.0, max_length=length,
        min_length=length, pad_token_id=0, eos_token_id=None, bos_token_id=None,
        cache_implementation="static", disable_compile=True,
    )  # fmt: skip
    own = target.generation_config
    target.generation_config = config
    try:
        with torch.inference_mode():
            out: torch.Tensor = target.generate(prompt, attention_mask=torch.ones_like(prompt))
    finally:
        target.generation_config = own
    return out


def _prompts(pair: Pair, documents: torch.Tensor, settings: Distillation) -> Iterator[torch.Tensor]:
    """Prompts ``[B, P]`` without end: the bare first token, or pieces of the documents."""
    assert pair.tokenizer is not None
    first = pair.tokenizer.bos_token_id
    random_ = random.Random(settings.seed)
    length = min(_PROMPT, settings.window // 2)
    while True:
        if first is not None and random_.random() < _BARE_SHARE:
            yield torch.full((settings.sample_batch, 1), first, device=pair.device)
        else:
            most = len(documents) - length
            starts = [random_.randrange(most) for _ in range(settings.sample_batch)]
            rows = torch.stack([documents[at : at + length] for at in starts])
            yield rows.to(pair.device)
