"""What tier 2 attends to at a prompt's end, and how much of it a retrieval choice keeps.

The choice is the one that a run's `mspeckv.kv.retrieval.RetrievalCache` makes: the same landmarks,
policy and budget over the same queries. Attention is that of the prompt's last token, which no
prefill reads: the first that tier 1 has to read with what was chosen before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mspeckv.context import Shown
from mspeckv.kv.chunk_policies import policy, reads_keys
from mspeckv.kv.layers import fold_groups
from mspeckv.kv.retrieval import QUERY_WINDOW, best_chunks, chunks_of, landmarks_of, score_chunks
from mspeckv.kv.sizes import ChunkPlan
from mspeckv.models.pair import Pair
from mspeckv.models.text import Prompt
from mspeckv.settings import Speculation, check_kind, refuse
from mspeckv_study.probes.next_token import encode_text, read_text

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RetrievalReport:
    """A choice of chunks, by layer and KV head, beside the attention it was made for.

    N layers that grow, H KV heads, C chunks, K of them chosen. Masses are shares of all attention,
    averaged over the query heads of a KV head; a head's chunks and its rest add up to 1. Heads that
    share a latent are told one by one, and choose together.

    Attributes:
        speculation: what it was made by.
        plan: chunk c covers tokens ``[c * plan.chunk, (c + 1) * plan.chunk)``.
        chosen: ``[N, H, K]`` chunks, in order.
        scores: ``[N, H, C]`` the policy's scores, in units of its own.
        mass: ``[N, H, C]`` attention mass of each chunk.
        rest: ``[N, H]`` mass of the tokens after the last chunk, which are always kept.
    """

    speculation: Speculation
    plan: ChunkPlan
    chosen: NDArray[np.int64]
    scores: Floats
    mass: Floats
    rest: Floats

    @property
    def kept(self) -> NDArray[np.bool_]:
        """``[N, H, C]``: whether a head keeps a chunk."""
        out = np.zeros(self.mass.shape, dtype=bool)
        np.put_along_axis(out, self.chosen, True, axis=-1)
        return out

    @property
    def captured(self) -> Floats:
        """``[N, H]``: attention mass of what is kept; 1 would be all."""
        return np.asarray((self.mass * self.kept).sum(-1) + self.rest, dtype=np.float32)

    @property
    def best(self) -> Floats:
        """``[N, H]``: the most that chunk 0 and as many others as were chosen could capture."""
        others = -np.sort(-self.mass[..., 1:], axis=-1)[..., : self.plan.chosen - 1]
        return np.asarray(self.mass[..., 0] + others.sum(-1) + self.rest, dtype=np.float32)

    def seen(self, start: int, stop: int) -> Floats:
        """``[N, H]``: the share of prompt tokens ``[start, stop)`` that a head keeps.

        Raises:
            ValueError: no such tokens.
        """
        if not 0 <= start < stop <= self.plan.prompt:
            raise refuse("span", (start, stop), f"use 0 <= start < stop <= {self.plan.prompt}")
        tokens = np.arange(start, stop)
        chunks = tokens // self.plan.chunk
        in_rest = chunks >= self.plan.chunks
        kept = self.kept[..., np.minimum(chunks, self.plan.chunks - 1)] | in_rest
        return np.asarray(kept.mean(-1), dtype=np.float32)


class AttentionProbe:
    """A prompt read once by a pair's target, unquantized, for reports on any choice of its chunks.

    Attributes:
        tokens: the prompt's ids.
        keys: ``[N, H, T, D]`` of all tokens, positions rotated in.
        queries: ``[N, Hq, Q, D]`` of the tokens before the last, which choose.
        mass: ``[N, H, T]`` attention of the last token, averaged over the query heads of a head.

    Raises:
        ValueError: the prompt is too short or too long.
    """

    def __init__(self, pair: Pair, prompt: Prompt) -> None:
        self.tokens, self._together = encode_text(pair, prompt), pair.kv_shape.latent
        seen: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        scales = _scales(pair)

        def watch(layer: int, query: torch.Tensor, shown: Shown) -> None:
            key, _ = shown.whole()
            choosing = query[0, :, -1 - QUERY_WINDOW : -1].clone()
            asked = fold_groups(query[:, :, -1:], key.shape[1])[0]
            scale = scales.get(layer, key.shape[-1] ** -0.5)
            weights = (asked @ key[0].transpose(1, 2) * scale).softmax(-1, dtype=torch.float32)
            seen[layer] = key[0], choosing, weights.mean(1)

        read_text(pair.target, self.tokens, 1, watch, use_cache=False)
        growing = (seen[layer] for layer in pair.kv_shape.growing)
        self.keys, self.queries, self.mass = map(torch.stack, zip(*growing, strict=True))

    @torch.inference_mode()
    def report(self, speculation: Speculation | None = None) -> RetrievalReport:
        """What ``speculation`` chooses of this prompt.

        Raises:
            ValueError: the prompt has no whole chunk before the recent window.
        """
        check_kind("speculation", speculation, Speculation | None, "a Speculation")
        guess = speculation or Speculation()
        plan = ChunkPlan.of(guess, len(self.tokens) - 1)
        if not plan.chunks:
            allowed = f"use more than recent + chunk = {guess.recent + guess.chunk} tokens"
            raise refuse("prompt", f"{len(self.tokens)} tokens", allowed)
        score = policy(guess.retrieval)
        shown = chunks_of if reads_keys(guess.retrieval) else landmarks_of
        read = zip(self.queries, self.keys, strict=True)
        scores = torch.stack(
            [score_chunks(score, query[None], shown(key[None], plan)) for query, key in read]
        )
        if self._together:
            scores = scores.sum(1, keepdim=True).expand_as(scores)
        chosen = torch.stack([best_chunks(layer, plan.chosen) for layer in scores])
        whole = plan.chunks * plan.chunk
        mass = self.mass[..., :whole].unflatten(-1, (plan.chunks, plan.chunk)).sum(-1)
        return RetrievalReport(
            guess,
            plan,
            chosen.cpu().numpy(),
            scores.float().cpu().numpy(),
            mass.cpu().numpy(),
            self.mass[..., whole:].sum(-1).cpu().numpy(),
        )


def retrieval_report(
    pair: Pair, prompt: Prompt, speculation: Speculation | None = None
) -> RetrievalReport:
    """Which chunks of ``prompt`` tier 1 keeps, and how much attention they capture.

    For several settings over one prompt, make an `AttentionProbe` and ask it for each report. Of
    ``speculation`` count budget, chunk, recent window and policy.

    Raises:
        ValueError: the prompt is too short for a chunk, or too long for the target.
    """
    return AttentionProbe(pair, prompt).report(speculation)


def _scales(pair: Pair) -> dict[int, float]:
    """By what each layer multiplies query times key, where it says so."""
    return {
        module.layer_idx: float(module.scaling)
        for module in pair.target.modules()
        if isinstance(getattr(module, "layer_idx", None), int)
        and isinstance(getattr(module, "scaling", None), float)
    }
