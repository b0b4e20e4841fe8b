"""Tier 1's cache: a few chunks of the prompt, chosen by what tier 2 attends to.

Chunks of keys are stood for by their mean, the landmark, and scored with tier 2's recent queries,
per layer and KV head, by a policy of `mspeckv.retrieval` (retrieval after TriForce, arXiv
2404.11912, section 4.1). Chunk 0 and the recent window are always kept.

The cache watches tier 2's attention instead of reading its store: the keys and values it gathers
are those the pass has just brought to the device anyway. So building it during prefill, and
refreshing it during a verification, moves no extra byte over the link.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from mspeckv.context import KV, Shown
from mspeckv.kv.chunk_policies import Policy, policy, reads_keys
from mspeckv.kv.floats import Buffer, FloatLayer
from mspeckv.kv.full import FullCache
from mspeckv.kv.kinds import ALL, Sight
from mspeckv.kv.latent import Latents
from mspeckv.kv.layers import fold_groups
from mspeckv.kv.recurrent import layers_of, reach_of
from mspeckv.kv.sizes import ChunkPlan, window_bytes, window_slack
from mspeckv.kv.tier1 import Tier1Cache, Tier1Room, tier1_caches
from mspeckv.kv.windows import WindowLayer
from mspeckv.record import span

QUERY_WINDOW = 16
"""Queries at the prompt's end that choose the first chunks."""


def chunks_of(key: torch.Tensor, plan: ChunkPlan) -> torch.Tensor:
    """The chunks ``[H, chunks, C, D]`` of keys ``[1, H, S, D]``, a view."""
    whole = key[0, :, : plan.chunks * plan.chunk]
    chunks: torch.Tensor = whole.unflatten(1, (plan.chunks, plan.chunk))
    return chunks


def landmarks_of(key: torch.Tensor, plan: ChunkPlan) -> torch.Tensor:
    """Mean keys ``[H, chunks, D]`` of the chunks of keys ``[1, H, S, D]``."""
    return chunks_of(key, plan).mean(2)


def score_chunks(
    score: Policy, query: torch.Tensor, read: torch.Tensor, real: torch.Tensor | None = None
) -> torch.Tensor:
    """A policy's scores ``[H, chunks]``.

    Args:
        query: ``[1, Hq, Q, D]``.
        read: landmarks ``[H, chunks, D]``, or keys ``[H, chunks, C, D]``.
        real: ``[Q]``, 0 for queries that do not count; None counts all.
    """
    rows = fold_groups(query, read.shape[0])[0]
    if real is None:
        weights = torch.ones(rows.shape[1], dtype=torch.float32, device=rows.device)
    else:
        weights = real.repeat(rows.shape[1] // len(real)).float()
    return score(rows, read, weights)


def best_chunks(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Chunks ``[H, count]``, in order, with the highest scores; chunk 0 is always among them."""
    ranked = scores.to(torch.float32, copy=True)
    ranked.select(1, 0).fill_(float("inf"))
    return ranked.topk(count, dim=-1).indices.sort(-1).values


@tier1_caches.register("retrieval")
class RetrievalCache(Tier1Cache):
    """Chosen prompt chunks, then every generated token.

    Slots ``[0, kept)`` of a layer hold the prompt's choice, which differs by head; later slots
    hold generated tokens: tier 1's own keys while it guesses, tier 2's once verified.

    Args:
        full: tier 2's cache; None where passes past the engine are watched.
    """

    looks_on = True
    query_window = QUERY_WINDOW

    def __init__(self, room: Tier1Room, full: FullCache | None, device: torch.device) -> None:
        shape, speculation = room.shape, room.speculation
        self.plan = ChunkPlan.of(speculation, room.prompt)
        self.refresh = speculation.refresh
        self.policy = policy(speculation.retrieval)
        self.reads_keys = reads_keys(speculation.retrieval)
        slack = window_slack(speculation)

        def attending(index: int, sight: Sight) -> FloatLayer | WindowLayer:
            if sight == ALL:
                return FloatLayer(Buffer(shape, self.plan.kept + room.grown, device))
            return WindowLayer.of(shape, sight, slack, room.prompt + room.grown, device)

        super().__init__(layers=layers_of(shape, attending, reach_of(slack)))
        self.source, self.settled_slots = full, self.plan.kept
        chunks = 0 if self.reads_keys or shape.latent else self.plan.chunks
        size = shape.layers, shape.heads, chunks, shape.dim
        many = torch.empty(size, dtype=shape.dtype, device=device)
        self.landmarks = dict(zip(shape.growing, many, strict=True))
        self.chosen = {index: torch.empty(0, dtype=torch.int64) for index in self.landmarks}
        self._verified = self._built_at = room.prompt
        RetrievalCache.restart(self)

    @classmethod
    def sizes(cls, room: Tier1Room) -> tuple[int, int]:
        """Chosen and generated tokens, and landmarks; nothing on the host."""
        shape, speculation = room.shape, room.speculation
        plan = ChunkPlan.of(speculation, room.prompt)
        if reads_keys(speculation.retrieval) or shape.latent:
            plan = replace(plan, chunks=0)
        windows = window_bytes(shape, room.prompt + room.grown, window_slack(speculation))
        return plan.bytes(shape, room.grown) + windows, 0

    @property
    def length(self) -> int:
        """Tokens of the sequence that the cache stands for."""
        layer = self.attending[0]
        return int(layer.length) + (self.plan.gap if isinstance(layer, FloatLayer) else 0)

    def settle(self, length: int) -> None:
        """Forget tokens from ``length`` on; tokens that tier 2 has read count as read."""
        length = min(length, max(self.length, self._verified))
        self._verified = min(self._verified, length)
        for part in self.parts:
            part.settle(length - (self.plan.gap if isinstance(part, FloatLayer) else 0))

    @property
    def bytes(self) -> int:
        """Bytes allocated, landmarks included."""
        buffers = sum(int(layer.buffer.bytes) for layer in self.attending)
        return buffers + sum(int(mean.nbytes) for mean in self.landmarks.values())

    def watch(self, layer: int, query: torch.Tensor, shown: Shown) -> None:
        """See one layer of a tier-2 pass: build, adopt its new tokens, or refresh."""
        new, total = query.shape[2], shown.tokens
        own = self.layers[layer]
        asked = shown.keys if isinstance(shown, Latents) else None
        if total == self.plan.prompt:
            key, value = shown.whole()
            if isinstance(own, WindowLayer):
                own.restart()
                own.append(key, value)
                return
            if not self.reads_keys and asked is None:
                # in place: a recorded pass that chooses anew reads them there
                self.landmarks[layer].copy_(landmarks_of(key, self.plan))
            self.choose(layer, query[:, :, -self.query_window :], key, value, asked=asked)
            return
        if own is self.attending[0]:
            self._due = self.begin(total)
        if isinstance(own, WindowLayer):
            own.put(total - new, *shown.newest(new))
            return
        own.buffer.write(self.slot_of(total - new), *shown.newest(new))
        if self._due:
            self.choose(layer, query, *shown.whole(), asked=asked)

    def begin(self, total: int) -> bool:
        """Tier 2 reads up to ``total`` tokens; returns whether this pass is to choose anew."""
        self._verified = total
        partial = self.plan.chosen < self.plan.chunks
        due = bool(self.refresh) and partial and total - self._built_at >= self.refresh
        if due:
            self._built_at = total
        return due

    def slot_of(self, position: int) -> int:
        """Where a generated token goes."""
        return self.plan.kept + position - self.plan.prompt

    def restart(self) -> None:
        """As before the first pass, for another prompt of the same length."""
        self._verified = self._built_at = self.plan.prompt
        self._due, self.repeats = False, 0
        for state in self.states:
            state.restart()
        for layer in self.attending:
            layer.length = self.plan.kept if isinstance(layer, FloatLayer) else self.plan.prompt

    def choose(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        real: torch.Tensor | None = None,
        asked: torch.Tensor | None = None,
    ) -> None:
        """Score chunks, keep the best, and copy them, in order, to the front of the layer.

        ``real`` ``[Q]`` is 0 for queries that do not count. ``asked``: the keys of all heads, where
        ``key`` and ``value`` are of latents; the heads choose together then.
        """
        plan, buffer = self.plan, self.layers[layer].buffer
        front = plan.chosen * plan.chunk
        if plan.chosen:
            with span("retrieval/score"):
                if self.reads_keys:
                    read = chunks_of(key if asked is None else asked, plan)
                else:
                    read = self.landmarks[layer] if asked is None else landmarks_of(asked, plan)
                scores = score_chunks(self.policy, query, read, real)
                scores = scores if asked is None else scores.sum(0, keepdim=True)
                self.chosen[layer] = best_chunks(scores, plan.chosen)
            with span("retrieval/gather"):
                self.gather(layer, (key, value), buffer.read(front))
        rest = slice(plan.prompt - plan.rest, plan.prompt)
        buffer.write(front, key[:, :, rest], value[:, :, rest])

    def gather(self, layer: int, source: KV, out: KV) -> None:
        """Copy the chosen chunks of ``source`` ``[1, H, S, D]`` to ``out``, in order."""
        best, chunk = self.chosen[layer], self.plan.chunk
        heads, length, dim = source[0].shape[1:]
        for part, into in zip(source, out, strict=True):
            if part.is_cuda:
                tokens = best[..., None] * chunk + torch.arange(chunk, device=best.device)
                index = tokens.reshape(1, heads, -1, 1).expand(-1, -1, -1, dim)
                into.copy_(part.gather(2, index))
                continue
            # a CPU copies whole chunks at a time, and half as long
            whole = part[0, :, : length // chunk * chunk].unflatten(1, (-1, chunk)).flatten(2)
            rows = into[0].view(heads, -1, chunk * dim)
            for head in range(heads):
                torch.index_select(whole[head], 0, best[head], out=rows[head])
