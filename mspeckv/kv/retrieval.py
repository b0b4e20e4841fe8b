"""Tier 1's cache: a few chunks of the prompt, chosen by what tier 2 attends to.

Chunks of keys are stood for by their mean, the landmark, and scored by tier 2's recent queries,
per layer and KV head (retrieval after TriForce, arXiv 2404.11912, section 4.1, with softmax scores
summed over each KV head's query group). Chunk 0 and the recent window are always kept.

The cache watches tier 2's attention instead of reading its store: the keys and values it gathers
are those the pass has just brought to the device anyway. So building it during prefill, and
refreshing it during a verification, moves no extra byte over the link.
"""

from __future__ import annotations

import torch
from transformers.cache_utils import Cache

from mspeckv.attention import fold_groups
from mspeckv.config import Speculation
from mspeckv.kv.layers import Buffer, FloatLayer
from mspeckv.kv.plan import ChunkPlan
from mspeckv.kv.shape import KVShape

QUERY_WINDOW = 16
"""Queries at the prompt's end that choose the first chunks."""


class RetrievalCache(Cache):  # type: ignore[misc]  # transformers is not typed here
    """Chosen prompt chunks, then every generated token.

    Slots ``[0, kept)`` of a layer hold the prompt's choice, which differs by head; later slots
    hold generated tokens: tier 1's own keys while it guesses, tier 2's once verified.

    Args:
        shape: the target's KV shape.
        speculation: budget, chunk, recent window, refresh schedule.
        prompt: prompt tokens that tier 2 will have read.
        grown: most generated tokens, guesses included.
        device: where compute runs.
    """

    def __init__(
        self,
        shape: KVShape,
        speculation: Speculation,
        prompt: int,
        grown: int,
        device: torch.device,
    ) -> None:
        self.plan = ChunkPlan.of(speculation, prompt)
        self.refresh = speculation.refresh
        size = (shape.heads, self.plan.kept + grown, shape.dim, shape.dtype, device)
        super().__init__(layers=[FloatLayer(Buffer(*size)) for _ in range(shape.layers)])
        self.landmarks = torch.empty(
            shape.layers, shape.heads, self.plan.chunks, shape.dim, dtype=shape.dtype, device=device
        )
        self.chosen: list[torch.Tensor] = [torch.empty(0)] * shape.layers
        self._token_bytes = shape.token_bytes
        self._verified = prompt
        self._built_at = prompt
        self._due = False
        for layer in self.layers:
            layer.length = self.plan.kept

    @property
    def length(self) -> int:
        """Tokens of the sequence that the cache stands for."""
        return int(self.layers[0].length) - self.plan.kept + self.plan.prompt

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on; tokens that tier 2 has read count as read."""
        length = min(length, max(self.length, self._verified))
        self._verified = min(self._verified, length)
        for layer in self.layers:
            layer.settle(length - self.plan.prompt + self.plan.kept)

    def read_bytes(self) -> int:
        """Bytes of KV that one pass reads."""
        return len(self.layers) * int(self.layers[0].length) * self._token_bytes

    @property
    def bytes(self) -> int:
        """Bytes allocated, landmarks included."""
        buffers = sum(int(layer.buffer.bytes) for layer in self.layers)
        return buffers + self.landmarks.numel() * self.landmarks.element_size()

    def watch(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        """See one layer of a tier-2 pass: build, adopt its new tokens, or refresh.

        Args:
            layer: layer index.
            query: ``[1, Hq, Q, D]`` of the pass's tokens.
            key: ``[1, H, S, D]`` of all tokens so far.
            value: same shape.
        """
        total, new = key.shape[2], query.shape[2]
        if total == new:
            self._set_landmarks(layer, key)
            self._choose(layer, query[:, :, -QUERY_WINDOW:], key, value)
            return
        if layer == 0:
            self._verified = total
            partial = self.plan.chosen < self.plan.chunks
            self._due = bool(self.refresh) and partial and total - self._built_at >= self.refresh
            if self._due:
                self._built_at = total
        slot = self.plan.kept + total - new - self.plan.prompt
        self.layers[layer].buffer.write(slot, key[:, :, total - new :], value[:, :, total - new :])
        if self._due:
            self._choose(layer, query, key, value)

    def _set_landmarks(self, layer: int, key: torch.Tensor) -> None:
        whole = key[0, :, : self.plan.chunks * self.plan.chunk]
        self.landmarks[layer] = whole.unflatten(1, (self.plan.chunks, self.plan.chunk)).mean(2)

    def _choose(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> None:
        """Score chunks, keep the best, and copy them, in order, to the front of the layer."""
        plan, heads = self.plan, key.shape[1]
        if plan.chosen:
            rows = fold_groups(query, heads)[0]
            scores = rows @ self.landmarks[layer].transpose(1, 2) * rows.shape[-1] ** -0.5
            mass = scores.softmax(-1, dtype=torch.float32).sum(1)
            mass[:, 0] = float("inf")
            best = mass.topk(plan.chosen, dim=-1).indices.sort(-1).values
            self.chosen[layer] = best
            tokens = best[..., None] * plan.chunk + torch.arange(plan.chunk, device=best.device)
            index = tokens.reshape(1, heads, -1, 1).expand(-1, -1, -1, key.shape[-1])
            self.layers[layer].buffer.write(0, key.gather(2, index), value.gather(2, index))
        rest = slice(plan.prompt - plan.rest, plan.prompt)
        self.layers[layer].buffer.write(
            plan.chosen * plan.chunk, key[:, :, rest], value[:, :, rest]
        )
