"""A packed model on disk: a folder with its configuration, tokenizer and `packed.safetensors`.

Loading maps the file: processes share its pages, and what a run never reads takes no memory.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from mspeckv.models.packed import OUTER_BITS, Packed, pack
from mspeckv.models.shared_draft import SHARED

FILE = "packed.safetensors"


def pack_folder(source: Path, folder: Path, bits: int) -> None:
    """Write to ``folder`` what `load_packed` loads, from what `mspeckv.models.convert` wrote.

    Raises:
        OSError: a file cannot be read or written.
    """
    weights = {
        name: pack(weight, OUTER_BITS if name in SHARED else bits).codes
        if weight.dim() == 2
        else weight
        for name, weight in load_file(source / "model.safetensors").items()
    }
    save_file(weights, folder / FILE)
    for path in (source / "config.json", *source.glob("tokenizer*.json")):
        shutil.copyfile(path, folder / path.name)


def load_packed(folder: Path) -> PreTrainedModel:
    """A model that `pack_folder` wrote: a Llama, whose rotary frequencies follow from its shape.

    Raises:
        Exception: of any kind, where a file is not what was written.
    """
    config = AutoConfig.from_pretrained(folder)
    stored = load_file(folder / FILE)
    # built without memory: every weight is put in its place afterwards
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, empty in model.named_parameters():
        if stored[name].dtype == torch.uint8:
            stored[name] = Packed(stored[name], len(empty))
    model.requires_grad_(False).load_state_dict(stored, strict=False, assign=True)
    if config.tie_word_embeddings:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    inner = model.model
    inner.rotary_emb = type(inner.rotary_emb)(config=config)
    return model.eval()
