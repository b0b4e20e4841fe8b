"""The model card that goes with a draft."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from tools.distil.settings import Distillation


def model_card(
    settings: Distillation,
    weights: Mapping[str, torch.Tensor],
    before: Mapping[str, float],
    after: Mapping[str, float],
    facts: Mapping[str, int],
) -> str:
    """Markdown: what it is, how it was made, what was measured."""
    count = sum(weight.numel() for weight in weights.values())
    seen = facts["steps"] * settings.batch * settings.window
    rows = "\n".join(f"| {name} | {before[name]:.3f} | {after[name]:.3f} |" for name in after)
    return f"""# A draft for {settings.target}

{len(weights)} tensors, {count / 1e6:.2f} M weights of its own; embedding and head are the target's.

Distilled on {settings.device} in {facts["seconds"]} s of training: {facts["samples"]:,} tokens
sampled from the target and {facts["documents"]:,} tokens of documentation and code,
{seen:,} tokens seen in {facts["steps"]:,} steps of {settings.batch} x {settings.window},
AdamW at {settings.lr:g}, begun from `{settings.init}`. The loss is the Kullback-Leibler
divergence, and total variation after {settings.switch:.0%} of the steps.

Acceptance on {settings.measure_windows} windows of {settings.window} tokens of Python's language
reference, which training never read: the mean of sum min(p, q), or of equal argmaxes when greedy.

| | before | after |
| --- | --- | --- |
{rows}

A draft only proposes: it changes the speed of a run, never the distribution of its text.
"""
