"""A model split by heads over ranks, by transformers' own tensor-parallel plan.

Each rank holds the rows of ``q_proj``, ``k_proj`` and ``v_proj`` that make its heads, so it caches,
quantizes, streams and retrieves the KV of those heads alone. After ``o_proj`` and ``down_proj``
partial sums are added up over ranks, and logits are gathered, so all ranks see the same ones
(Shoeybi et al., "Megatron-LM", arXiv 1909.08053, section 3).
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from mspeckv.kv.shape import KVShape
from mspeckv.parallel.ranks import Ranks, together
from mspeckv.settings import refuse

_BY_HEADS = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class Split:
    """Shares a model out over ``ranks``; see `mspeckv.models.load.Splitting`."""

    ranks: Ranks

    def own_device(self, device: torch.device) -> torch.device:
        """Where this rank computes: its own GPU, or the CPU that all share.

        Raises:
            ValueError: the CPU where transformers would put a split model on GPUs; one GPU for
                all; more ranks than GPUs.
        """
        gpus, here = torch.cuda.device_count(), self.ranks.here
        if device.type == "cpu":
            if gpus:
                raise refuse("device", "cpu", "ranks compute on GPUs where there are any: use cuda")
            return device
        if device.index is not None:
            raise refuse("device", str(device), "each rank takes a GPU of its own: use cuda")
        if here > gpus:
            raise refuse("ranks", here, f"this machine has {gpus} GPUs: use no more ranks")
        own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(own)
        return own

    def check(self, config: PretrainedConfig) -> None:
        """Refuse a model that cannot be shared out by whole heads, the same number to each rank.

        Raises:
            ValueError: KV heads that the ranks do not divide; no plan that splits by heads.
        """
        text, ranks = config.get_text_config(), self.ranks.size
        kv_heads = KVShape.of(config, torch.float32).heads
        if kv_heads % ranks:
            fitting = ", ".join(str(n) for n in range(1, kv_heads + 1) if kv_heads % n == 0)
            allowed = f"the target has {kv_heads} KV heads, which they must divide: use one of "
            raise refuse("ranks", ranks, allowed + fitting)
        plan = getattr(text, "base_model_tp_plan", None) or {}
        styles = {rule.rsplit(".", 1)[-1]: style for rule, style in plan.items()}
        if any(styles.get(name) != "colwise" for name in _BY_HEADS):
            allowed = f"transformers has no plan that splits {text.model_type} by heads: use 1"
            raise refuse("ranks", ranks, allowed)

    def load(self, source: str, dtype: torch.dtype) -> PreTrainedModel:
        """This rank's share of a model, on its own device.

        Raises:
            ImportError: transformers loads split models with the help of ``accelerate``.
        """
        from transformers.distributed import DistributedConfig

        shares = DistributedConfig(tp_size=self.ranks.size, tp_plan="auto")
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, distributed_config=shares
        )
        return model

    def together(self) -> AbstractContextManager[None]:
        """What is refused on one rank inside is refused on all."""
        return together(self.ranks)


def ranks_of(model: PreTrainedModel) -> Ranks | None:
    """The ranks that ``model`` is split over; None for a whole model.

    Raises:
        ValueError: these are only some of the processes, or see `Split.check`.
    """
    split = int(getattr(model, "tp_size", None) or 1)
    if split == 1:
        return None
    ranks = Ranks.all()
    if split != ranks.size:
        raise refuse("ranks", ranks.size, f"the target is split over {split}: use as many")
    Split(ranks).check(model.config)
    return ranks
