"""What was measured on this machine, kept from process to process: JSON files in the cache folder.

A file says what it is of and when it was measured. One of something else, of another format, or
that cannot be read is as good as none. It is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from mspeckv.models.download import cache_folder, write_whole
from mspeckv.models.pair import Pair, own_part

FORMAT = 1
"""Raised when files of the old one would be misread."""
STEP, MACHINE = "origin-step", "machine"
"""Kinds of files: a target's step, by which an ``origin`` link is scaled; pass times of a pair."""
_WIDTHS = (
    "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "vocab_size"
)  # fmt: skip


def subject(
    pair: Pair, models: Sequence[PreTrainedModel], accelerations: Sequence[str]
) -> dict[str, Any]:
    """What times of a pair's models depend on: processor, threads, dtype, torch, shapes."""
    on_gpu = pair.device.type == "cuda"
    return {
        "processor": torch.cuda.get_device_name(pair.device) if on_gpu else processor(),
        "threads": torch.get_num_threads(),
        "dtype": str(pair.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "accelerations": list(accelerations),
        "ranks": pair.rank_count,
        "models": [_shape(model) for model in models],
    }


def _shape(model: PreTrainedModel) -> dict[str, Any]:
    """What there is to compute."""
    config = model.config.get_text_config()
    return {
        "model_type": config.model_type,
        "parameters": int(model.num_parameters()),
        "weight_bytes": sum(own_part(weight).nbytes for weight in model.parameters()),
        **{name: getattr(config, name, None) for name in _WIDTHS},
    }


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    listing = Path("/proc/cpuinfo")
    text = listing.read_text(encoding="utf-8", errors="replace") if listing.is_file() else ""
    found = re.search(r"^model name\s*:(.*)", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def file_of(kind: str, of: Mapping[str, Any]) -> Path:
    """Where a measurement of ``of`` is kept."""
    digest = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:12]
    return cache_folder() / f"{kind}-{digest}.json"


def recall(kind: str, of: Mapping[str, Any]) -> tuple[dict[str, Any], float] | None:
    """What was found of ``of``, and when, in seconds since the epoch; None if it is not kept."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        given = json.loads(file_of(kind, of).read_text(encoding="utf-8"))
        found, when = given["found"], float(given["measured_at"])
        if given["format"] == FORMAT and given["of"] == of and isinstance(found, dict):
            return found, when
    return None


def keep(kind: str, of: Mapping[str, Any], found: Mapping[str, Any], measured_at: float) -> None:
    """Keep what was found; a folder that cannot be written to keeps nothing."""
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(measured_at))
    whole = {"format": FORMAT, "date": date, "measured_at": measured_at, "of": of, "found": found}
    with suppress(OSError):
        write_whole(file_of(kind, of), json.dumps(whole, indent=2, allow_nan=False) + "\n")


def kept_step(accelerations: Sequence[str], pair: Pair, measure: Callable[[], float]) -> float:
    """Seconds of a step of the target, as `Hooks.step`: from its file, else by ``measure``."""
    of = subject(pair, [pair.target], accelerations)
    known = recall(STEP, of)
    seconds = known[0].get("seconds") if known is not None else None
    if not isinstance(seconds, float) or not 0 < seconds < inf:
        seconds = measure()
        keep(STEP, of, {"seconds": seconds}, time.time())
    return seconds


def files() -> list[Path]:
    """Every file kept."""
    return sorted(
        path for kind in (STEP, MACHINE) for path in cache_folder().glob(f"{kind}-*.json")
    )
