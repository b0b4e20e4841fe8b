"""GGUF files of the architectures that transformers reads: converted once, then loaded as a folder.

Transformers' reader brings the weights; what it leaves out of a file's metadata is read here, since
without it a model loads and speaks otherwise: scaled rotary positions (Llama 3.1's frequencies,
YaRN, Phi-3's factors), head dims, windows, Gemma 3's scale of queries, the tokens that end a text.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from gguf import GGUFReader, GGUFWriter
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig

from mspeckv.models.convert import special_tokens
from mspeckv.models.download import cache_folder
from mspeckv.models.kept import keep, recall

_FORMAT = 1
"""Raise it when conversion writes something else."""
_KIND, _UNUSED = "gguf", 5
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_FULL_HEADS_27B = 62
"""Layers of the one Gemma 3 whose queries are scaled by hidden / heads, as llama.cpp tells it."""


@dataclass(frozen=True)
class GGUFFile:
    """A model's file, or one of the files that it is split into.

    Raises:
        ValueError: not a GGUF, damaged, cut off, or an unknown architecture.
        OSError: it cannot be read, or its folder not be written.
    """

    path: Path

    @cached_property
    def parts(self) -> list[Path]:
        """Every file of the model, in order."""
        found, files = _PART.search(self.path.name), [self.path]
        if found:
            stem, count = self.path.name[: found.start()], int(found[2])
            names = [f"{stem}-{place:05}-of-{count:05}.gguf" for place in range(1, count + 1)]
            files = [self.path.with_name(name) for name in names]
        for file in files:
            with file.open("rb") as opened:
                if opened.read(4) != b"GGUF":
                    raise ValueError(f"{file.name} is not a GGUF file")
        return files

    @cached_property
    def readers(self) -> list[GGUFReader]:
        """Of every part, its fields and tensors."""
        try:
            return [GGUFReader(part) for part in self.parts]
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise ValueError(f"it is damaged or cut off: {error}") from error

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The model's metadata, without its long lists of tokens."""
        return {
            name: field.contents()
            for name, field in self.readers[0].fields.items()
            if not name.startswith("tokenizer.ggml.") or len(field.data) < 2
        }

    @cached_property
    def tensors(self) -> dict[str, Any]:
        """Every part's, by name."""
        return {one.name: one for reader in self.readers for one in reader.tensors}

    def said(self, name: str) -> Any:
        """What the metadata says of this architecture; None if nothing."""
        return self.fields.get(f"{self.fields.get('general.architecture')}.{name}")

    def folder(self, dtype: torch.dtype) -> Path:
        """Where the conversion is kept, by the content's hash; it appears whole or not at all."""
        found = [(one.resolve(), one.stat()) for one in self.parts]
        stamps = [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in found]
        known = recall(_KIND, {"files": stamps})
        if known is None:
            digest = hashlib.sha256()
            for part in self.parts:
                with part.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            known = {"sha256": digest.hexdigest()}, time.time()
            keep(_KIND, {"files": stamps}, *known)
        name = str(dtype).removeprefix("torch.")
        return cache_folder() / f"gguf{_FORMAT}-{known[0]['sha256'][:16]}-{name}"

    @cached_property
    def config(self) -> PretrainedConfig:
        """Transformers' own, with what its reader leaves out."""
        first, tied = self.parts[0], "output.weight" not in self.tensors
        config = AutoConfig.from_pretrained(first.parent, gguf_file=first.name)
        config.tie_word_embeddings = tied
        config.sliding_window = self.said("attention.sliding_window")
        if self.said("attention.key_length"):
            config.head_dim = self.said("attention.key_length")
        if config.model_type == "gemma3_text":
            own = config.num_hidden_layers != _FULL_HEADS_27B
            each = config.hidden_size // config.num_attention_heads
            config.query_pre_attn_scalar = config.head_dim if own else each
        for name, key in (("bos", "bos"), ("pad", "padding")):
            setattr(config, f"{name}_token_id", self.fields.get(f"tokenizer.ggml.{key}_token_id"))
        ends = [self.fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")]
        config.eos_token_id = sorted({end for end in ends if end is not None}) or None
        rotary = config.rope_parameters or {}
        rotary.get("full_attention", rotary).update(self.rotary)
        return config

    @property
    def rotary(self) -> dict[str, Any]:
        """How positions are scaled, as transformers' configurations say it."""
        kind = self.said("rope.scaling.type") or "none"
        most, factor = self.said("context_length"), self.said("rope.scaling.factor")
        first = self.said("rope.scaling.original_context_length") or most
        alike = self.tensors.get("rope_freqs.weight")
        short = alike or self.tensors.get("rope_factors_short.weight")
        if short is not None:
            # factors of Llama 3.1's kind hold at every length
            long = alike or self.tensors["rope_factors_long.weight"]
            return {
                "rope_type": "longrope",
                "short_factor": list(map(float, short.data)),
                "long_factor": list(map(float, long.data)),
                "original_max_position_embeddings": most if alike else first,
                "attention_factor": self.said("rope.scaling.attn_factor") or 1.0,
            }
        if kind == "none":
            return {}
        if kind not in ("linear", "yarn") or factor is None:
            raise ValueError(f"positions scaled by {kind!r}: linear and yarn are known")
        own = {"original_max_position_embeddings": first} if kind == "yarn" else {}
        return {"rope_type": kind, "factor": factor, **own}

    def convert(self, dtype: torch.dtype) -> None:
        """Write `folder`, unless another process did meanwhile."""
        cache, folder = cache_folder(), self.folder(dtype)
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"), tempfile.TemporaryDirectory(dir=cache) as scratch:
            if folder.is_dir():
                return
            needed = dtype.itemsize * sum(one.n_elements for one in self.tensors.values())
            if len(self.parts) > 1:
                needed += sum(part.stat().st_size for part in self.parts)
            if shutil.disk_usage(cache).free < needed:
                raise OSError(f"its conversion needs {needed / 1e9:.3g} GB in {cache}")
            made = Path(scratch) / "made"
            whole = self.parts[0] if len(self.parts) == 1 else self._joined(Path(scratch))
            self._write_model(whole, made, dtype)
            self._write_tokenizer(whole, made)
            made.rename(folder)

    def _joined(self, scratch: Path) -> Path:
        """The parts as one file, for transformers reads no other."""
        path = scratch / "whole.gguf"
        writer = GGUFWriter(path, self.fields["general.architecture"])
        for name, field in self.readers[0].fields.items():
            if not name.startswith(("GGUF.", "split.", "general.architecture")):
                inner = field.types[-1] if len(field.types) > 1 else None
                writer.add_key_value(name, field.contents(), field.types[0], inner)
        for name, one in self.tensors.items():
            writer.add_tensor(name, one.data, raw_dtype=one.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def _write_model(self, whole: Path, made: Path, dtype: torch.dtype) -> None:
        """Weights and configuration, once every weight is known to have found its place."""
        model, told = AutoModelForCausalLM.from_pretrained(
            whole.parent, gguf_file=whole.name, config=self.config, dtype=dtype,
            output_loading_info=True,
        )  # fmt: skip
        if told["missing_keys"]:
            raise ValueError(f"no weights for {min(told['missing_keys'])}")
        given = sum(
            one.n_elements
            for name, one in self.tensors.items()
            if not name.startswith("rope_") and _layer(name) < self.config.num_hidden_layers
        )
        held = sum(weight.numel() for weight in model.parameters())
        if given != held:
            raise ValueError(f"it holds {given:,} weights, of which transformers reads {held:,}")
        model.hf_quantizer = None
        vars(model.config).pop("quantization_config", None)
        model.save_pretrained(made)

    def _write_tokenizer(self, whole: Path, made: Path) -> None:
        """Without tokens that only pad the vocabulary, or that the file does not have."""
        fields = self.readers[0].fields
        if "tokenizer.ggml.tokens" not in fields:
            raise ValueError("it has no tokenizer")
        tokenizer = AutoTokenizer.from_pretrained(whole.parent, gguf_file=whole.name)
        tokenizer.save_pretrained(made)
        tokens: list[str] = fields["tokenizer.ggml.tokens"].contents()
        types = fields.get("tokenizer.ggml.token_type")
        kinds: list[int] = types.contents() if types else [0] * len(tokens)
        padding = {
            token
            for place, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind == _UNUSED and token == f"[PAD{place}]"
        }
        path = made / "tokenizer.json"
        inner = json.loads(path.read_text(encoding="utf-8"))
        added = [one for one in inner["added_tokens"] if one["id"] < len(tokens)]
        inner["added_tokens"] = [one for one in added if one["content"] not in padding]
        vocab = inner["model"]["vocab"]
        if isinstance(vocab, dict):
            inner["model"]["vocab"] = {t: i for t, i in vocab.items() if t not in padding}
        while isinstance(vocab, list) and vocab[-1][0] in padding:
            vocab.pop()
        path.write_text(json.dumps(inner, ensure_ascii=False), encoding="utf-8")
        path = made / "tokenizer_config.json"
        outer = json.loads(path.read_text(encoding="utf-8"))
        kept = {name: value for name, value in outer.items() if not name.endswith("_token")}
        kept["tokenizer_class"] = "PreTrainedTokenizerFast"
        given = {**kept, **special_tokens(self.fields, tokens)}
        path.write_text(json.dumps(given), encoding="utf-8")


def _layer(name: str) -> int:
    """The layer of a tensor; -1 outside of them."""
    found = re.match(r"blk\.(\d+)\.", name)
    return int(found[1]) if found else -1
