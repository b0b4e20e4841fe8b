"""Settings of a distillation."""

from __future__ import annotations

from dataclasses import dataclass

from mspeckv.settings import check_choice, check_count, check_number


@dataclass(frozen=True)
class Distillation:
    """How a draft is made; the defaults suit a CPU and show that it works, no more.

    Attributes:
        target: as in `mspeckv.load_pair`.
        device: where everything computes; on CUDA in bfloat16.
        layers: the draft's own layers, when ``init`` is ``target``.
        init: ``target`` (the target's first layers), ``shipped`` (the default draft) or a file of
            an earlier run.
        sample_tokens: tokens to sample from the target.
        sample_batch: rows sampled together.
        document_tokens: tokens of documentation to train on beside them.
        batch: windows per step.
        window: tokens per window.
        steps: optimizer steps at most.
        minutes: minutes of training at most; 0 leaves it to ``steps``.
        lr: peak learning rate of AdamW; cosine to a twentieth after a warm-up.
        switch: share of the training on the Kullback-Leibler divergence, before total variation.
        document_share: share of a batch's windows that are documentation.
        measure_windows: windows of held-out documentation that acceptance is measured on.
        checkpoint: steps between two checkpoints.
        seed: of sampling and shuffling.

    Raises:
        ValueError: a field is out of range.
    """

    target: str = "default"
    device: str = "cpu"
    layers: int = 2
    init: str = "target"
    sample_tokens: int = 60_000
    sample_batch: int = 64
    document_tokens: int = 60_000
    batch: int = 4
    window: int = 256
    steps: int = 200
    minutes: float = 0.0
    lr: float = 1.5e-3
    switch: float = 0.3
    document_share: float = 0.5
    measure_windows: int = 16
    checkpoint: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("layers", self.layers, 1, 64)
        for field in ("sample_batch", "batch", "steps", "measure_windows", "checkpoint"):
            check_count(field, getattr(self, field), 1)
        check_count("window", self.window, 16, 8192)
        least = self.window + 1
        check_count("sample_tokens", self.sample_tokens, least)
        check_count("document_tokens", self.document_tokens, least)
        check_number("minutes", self.minutes, 0.0, 1e5)
        check_number("lr", self.lr, 0.0, 1.0, open_low=True)
        check_number("switch", self.switch, 0.0, 1.0)
        check_number("document_share", self.document_share, 0.0, 1.0)
        check_count("seed", self.seed, 0)
        if not self.init.endswith(".safetensors"):
            check_choice("init", self.init, ("target", "shipped", "FILE.safetensors"))
