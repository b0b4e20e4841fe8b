"""Distil a draft that shares the target's embedding: sample, train, measure, write.

    python tools/train_draft.py --out runs/draft                        # CPU: small, minutes
    python tools/train_draft.py --out runs/draft --device cuda --init shipped --lr 6e-4
        --sample-tokens 20000000 --sample-batch 2048 --document-tokens 8000000
        --batch 64 --window 512 --steps 8000                            # one large GPU: minutes

Interrupted runs go on from where they were: samples and checkpoints stay in ``--out``. It ends
with ``draft.safetensors`` (for ``load_pair(draft="runs/draft/draft.safetensors")``), a model card
with the acceptance measured on text that training never saw, and ``log.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mspeckv.models.load import load_pair
from mspeckv.models.shared_draft import default_draft, load_shared_draft, own_weights, shared_draft
from tools.distil.card import model_card
from tools.distil.corpus import document_tokens, held_out_tokens, sampled_tokens
from tools.distil.measure import acceptance
from tools.distil.settings import Distillation
from tools.distil.training import train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 for bad input, as everywhere in this project."""
    try:
        return distil(*parse(arguments))
    except ValueError as error:
        print(f"train_draft: {error}", file=sys.stderr)
        return 2


def parse(arguments: Sequence[str] | None) -> tuple[Distillation, Path]:
    """Settings and the output folder from the command line."""
    parser = argparse.ArgumentParser(
        description="Distil a draft.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of everything written")
    for field in fields(Distillation):
        kind = type(field.default)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    given = vars(parser.parse_args(arguments))
    out = given.pop("out")
    return Distillation(**given), out


def distil(settings: Distillation, out: Path) -> int:
    """Every step, each skipped where its result is there already."""
    out.mkdir(parents=True, exist_ok=True)
    dtype = "bfloat16" if settings.device.startswith("cuda") else "float32"
    pair = load_pair(settings.target, draft="none", device=settings.device, dtype=dtype)
    assert pair.tokenizer is not None
    start = time.perf_counter()
    held_out = held_out_tokens(pair.tokenizer, settings)
    documents = document_tokens(pair.tokenizer, settings)
    samples = sampled_tokens(pair, documents, settings, out / "samples.safetensors")
    print(
        f"{len(samples):,} sampled and {len(documents):,} document tokens "
        f"after {time.perf_counter() - start:.0f} s",
        flush=True,
    )
    draft = initial_draft(pair.target, settings)
    before = measured(pair.target, draft, held_out, settings)
    print(f"before: {json.dumps(before)}", flush=True)
    steps, seconds = train(pair.target, draft, samples, documents, settings, out)
    after = measured(pair.target, draft, held_out, settings)
    print(f"after: {json.dumps(after)}", flush=True)
    weights = {name: w.detach().to(torch.bfloat16).cpu() for name, w in own_weights(draft).items()}
    save_file(
        weights, out / "draft.safetensors", metadata={"settings": json.dumps(asdict(settings))}
    )
    facts = {
        "samples": len(samples),
        "documents": len(documents),
        "steps": steps,
        "seconds": round(seconds),
    }
    (out / "draft.md").write_text(model_card(settings, weights, before, after, facts), "utf-8")
    print(f"wrote {out / 'draft.safetensors'}", flush=True)
    return 0


def initial_draft(target: PreTrainedModel, settings: Distillation) -> PreTrainedModel:
    """The draft that training begins with."""
    if settings.init == "target":
        return shared_draft(target, settings.layers)
    if settings.init == "shipped":
        return default_draft(target)
    return load_shared_draft(target, Path(settings.init))


def measured(
    target: PreTrainedModel, draft: PreTrainedModel, held_out: torch.Tensor, settings: Distillation
) -> dict[str, float]:
    """Acceptance on held-out documentation at the temperatures that the card reports."""
    windows = held_out[: settings.measure_windows]
    return {
        name: round(acceptance(target, draft, windows, temperature), 4)
        for name, temperature in (("T=1", 1.0), ("T=0.6", 0.6), ("greedy", 0.0))
    }


if __name__ == "__main__":
    sys.exit(main())
