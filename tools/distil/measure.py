"""How often a target keeps a draft's tokens: one measure for every draft."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel


@torch.inference_mode()
def acceptance(
    target: PreTrainedModel, draft: PreTrainedModel, windows: torch.Tensor, temperature: float
) -> float:
    """Mean over positions of ``sum_v min(p(v), q(v))``; of equal argmaxes at temperature 0.

    That sum is the probability that a token drawn from q is kept (Leviathan et al.,
    arXiv 2211.17192, theorem 3.5).

    Args:
        target: gives p.
        draft: gives q.
        windows: token ids ``[n, S]``; every position of a window counts.
        temperature: of both distributions.
    """
    total = 0.0
    for window in windows.to(target.device):
        p, q = (model(input_ids=window[None]).logits[0].float() for model in (target, draft))
        if temperature == 0:
            kept = (p.argmax(-1) == q.argmax(-1)).float()
        else:
            kept = torch.minimum((p / temperature).softmax(-1), (q / temperature).softmax(-1)).sum(
                -1
            )
        total += float(kept.mean())
    return total / len(windows)
