"""The training loop: the target's distributions are the labels, computed on the fly."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from mspeckv.models.shared_draft import own_weights
from tools.distil.settings import Distillation

_ROWS = 8192
"""Positions whose whole distributions, [rows, vocab], are in memory at once."""
_LOG_EVERY = 200
_WARM = 0.02


def train(
    target: PreTrainedModel,
    draft: PreTrainedModel,
    samples: torch.Tensor,
    documents: torch.Tensor,
    settings: Distillation,
    out: Path,
) -> tuple[int, float]:
    """Train ``draft`` in place, from the last checkpoint where there is one.

    Args:
        samples: token ids ``[n]`` drawn from the target.
        documents: token ids ``[m]`` of documentation.
        out: where ``checkpoint.pt`` and ``log.jsonl`` go.

    Returns:
        Steps, and seconds of training, earlier parts of the run included.
    """
    weights = own_weights(draft)
    # Small updates would be lost in half precision: the master copy is float32.
    masters = {
        name: weight.detach().float().clone().requires_grad_() for name, weight in weights.items()
    }
    for weight in weights.values():
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(masters.values(), lr=settings.lr, betas=(0.9, 0.95))
    step, before = _resume(out / "checkpoint.pt", masters, optimizer)
    start = time.perf_counter()

    def seconds() -> float:
        return before + time.perf_counter() - start

    def done() -> float:
        """How much of the training is behind us, by steps or by the clock."""
        by_clock = seconds() / (60 * settings.minutes) if settings.minutes else 0.0
        return max(step / settings.steps, by_clock)

    generator = torch.Generator().manual_seed(settings.seed + step)
    draft.train()
    totals = {"loss": 0.0, "acceptance": 0.0, "steps": 0}
    while (part := done()) < 1:
        _load(weights, masters)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * schedule(part)
        batch = _batch(samples, documents, settings, generator).to(target.device)
        divergence = part < settings.switch
        loss, kept = backward(target, draft, batch, divergence)
        for name, master in masters.items():
            gradient = weights[name].grad
            master.grad = None if gradient is None else gradient.float()
            weights[name].grad = None
        torch.nn.utils.clip_grad_norm_(masters.values(), 1.0)
        optimizer.step()
        step += 1
        totals["loss"] += loss
        totals["acceptance"] += kept
        totals["steps"] += 1
        over = done() >= 1
        if step % min(_LOG_EVERY, max(1, settings.steps // 40)) == 0 or over:
            _log(out / "log.jsonl", step, divergence, seconds(), totals)
            totals = dict.fromkeys(totals, 0.0)
        if step % settings.checkpoint == 0 or over:
            state = {"step": step, "seconds": seconds(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "weights": masters}, out / "checkpoint.tmp")
            (out / "checkpoint.tmp").replace(out / "checkpoint.pt")
    _load(weights, masters)
    for weight in weights.values():
        weight.requires_grad_(False)
    draft.eval()
    return step, seconds()


def schedule(done: float) -> float:
    """Learning rate over its peak: linear for the first 2%, then a cosine to 1/20."""
    if done < _WARM:
        return (done + 1e-3) / (_WARM + 1e-3)
    return 0.05 + 0.95 * (1 + math.cos(math.pi * (done - _WARM) / (1 - _WARM))) / 2


def backward(
    target: PreTrainedModel, draft: PreTrainedModel, batch: torch.Tensor, divergence: bool
) -> tuple[float, float]:
    """Gradients of one batch, a few rows of logits at a time; loss and acceptance.

    With the head frozen, only the gradient of the hidden states is needed from the logits, so
    no more than ``_ROWS`` distributions exist at once.

    Args:
        batch: token ids ``[B, S]``.
        divergence: train on KL(p, q), else on the total variation, 1 - sum min(p, q), whose
            minimum is the largest acceptance (DistillSpec, arXiv 2310.08461, section 4).
    """
    with torch.no_grad():
        wanted = target.model(input_ids=batch).last_hidden_state.flatten(0, 1)
    hidden = draft.model(input_ids=batch, use_cache=False).last_hidden_state.flatten(0, 1)
    leaf = hidden.detach().requires_grad_()
    head = target.get_output_embeddings()
    rows = len(leaf)
    loss_sum = kept_sum = 0.0
    losses, kepts = [], []
    for at in range(0, rows, _ROWS):
        with torch.no_grad():
            log_p = head(wanted[at : at + _ROWS]).float().log_softmax(-1)
            p = log_p.exp()
        log_q = head(leaf[at : at + _ROWS]).float().log_softmax(-1)
        kept = torch.minimum(p, log_q.exp()).sum(-1)
        loss = (p * (log_p - log_q)).sum(-1) if divergence else 1 - kept
        (loss.sum() / rows).backward()
        losses.append(loss.detach().sum())
        kepts.append(kept.detach().sum())
    assert leaf.grad is not None
    hidden.backward(leaf.grad)
    loss_sum, kept_sum = float(sum(losses)), float(sum(kepts))
    return loss_sum / rows, kept_sum / rows


def _batch(
    samples: torch.Tensor,
    documents: torch.Tensor,
    settings: Distillation,
    generator: torch.Generator,
) -> torch.Tensor:
    """Windows ``[B, S]``: whole samples, and documents cut anywhere."""
    size = settings.window
    from_documents = round(settings.batch * settings.document_share)
    rows = []
    for place in range(settings.batch):
        source = documents if place < from_documents else samples
        most = len(source) - size + 1
        at = int(torch.randint(most, (), generator=generator))
        # sampled rows lie one after the other
        at -= at % size if source is samples else 0
        rows.append(source[at : at + size])
    return torch.stack(rows)


def _load(weights: dict[str, Any], masters: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(masters[name])


def _resume(
    file: Path, masters: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    """Load a checkpoint; its step and the seconds behind it."""
    if not file.exists():
        return 0, 0.0
    device = next(iter(masters.values())).device
    state = torch.load(file, map_location=device, weights_only=True)
    with torch.no_grad():
        for name, master in masters.items():
            master.copy_(state["weights"][name])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), float(state["seconds"])


def _log(file: Path, step: int, divergence: bool, seconds: float, totals: dict[str, Any]) -> None:
    line = {
        "step": step,
        "loss": "kl" if divergence else "tv",
        "value": round(totals["loss"] / totals["steps"], 4),
        "acceptance": round(totals["acceptance"] / totals["steps"], 4),
        "seconds": round(seconds, 1),
    }
    with file.open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)
