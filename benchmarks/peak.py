"""One run's peak resident memory, in a process of its own (Linux): measured, then predicted.

python -m benchmarks.peak PREFILL METHOD WIDTH ON_CHIP RESIDENT
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from mspeckv import KVPolicy, RunConfig, Sampling, documents, generate, load_pair
from mspeckv.api import engine_of
from mspeckv.decoding.fits import predict

NEW_TOKENS = 16


def resident_bytes(field: str) -> int:
    """``VmRSS`` now or ``VmHWM`` at the peak."""
    with Path("/proc/self/status").open() as status:
        line = next(line for line in status if line.startswith(field))
    return int(line.split()[1]) * 1024


def main(prefill: int, method: str, width: str, on_chip: int, resident: int) -> None:
    """Run, and print both figures: bytes beyond what the imports take."""
    # what every program with this stack pays: the model class and one small operation
    LlamaForCausalLM.__name__.encode()
    torch.ones(8) @ torch.ones(8)
    before = resident_bytes("VmRSS")
    pair = load_pair(weights="float")
    tokens = documents.load_document("python-reference", pair.tokenizer, prefill)
    policy = KVPolicy(int(width) if width.isdigit() else "full", on_chip, resident)
    config = RunConfig(method, NEW_TOKENS, policy)
    generate(
        pair,
        tokens,
        method=method,
        new_tokens=NEW_TOKENS,
        policy=policy,
        sampling=Sampling(temperature=0),
    )
    need = predict(engine_of(pair), pair, config, prefill)
    print(resident_bytes("VmHWM") - before, need.device + need.offloaded)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
