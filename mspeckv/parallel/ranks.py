"""Processes that share one model, started by ``torchrun``: how they meet, agree and part.

Rank 0 decides for all (`mspeckv.parallel.agreement`), and what is refused on one rank is refused on
all: a rank that stopped alone would leave the others waiting for it.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import torch
import torch.distributed as dist

from mspeckv.models.pair import Rank
from mspeckv.parallel.lifeline import Lifeline
from mspeckv.settings import refuse

_lines: list[Lifeline] = []
before_leaving: list[Callable[[], None]] = []
"""What must be let go of before the processes part, such as graphs that hold a collective."""


class AgreedError(ValueError):
    """Bad input that every rank has heard of, and raises."""


class Ranks(Rank):
    """This process among those that share a model, and what they tell each other."""

    @classmethod
    def all(cls) -> Ranks:
        """Every process of the default group.

        Raises:
            ValueError: they cannot exchange numbers in host memory.
        """
        backends = dist.get_backend_config()
        if "cpu" not in backends:
            raise refuse("backend", backends, "use 'cpu:gloo,cuda:nccl'")
        size = dist.get_world_size()
        return cls(dist.get_rank(), size, int(os.environ.get("LOCAL_WORLD_SIZE", size)))

    def add(self, values: Sequence[float]) -> list[float]:
        """The ranks' ``values`` added up, place by place; waits for all of them."""
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return [float(value) for value in total]

    def check_same(self, field: str, value: object) -> None:
        """Refuse to go on where ``value`` prints differently on another rank.

        Raises:
            AgreedError: it does.
        """
        digests = [""] * self.size
        dist.all_gather_object(digests, hashlib.sha256(repr(value).encode()).hexdigest())
        if len(set(digests)) > 1:
            raise AgreedError(
                f"{field}: not the same on every rank is not allowed; use one for all"
            )


def join() -> Ranks | None:
    """Meet the other processes that ``torchrun`` started; None where it did not, or only one.

    What is in host memory travels by gloo, what is on GPUs by NCCL. From now on a rank that ends
    before all `leave` ends the others (`mspeckv.parallel.lifeline`).
    """
    launched = dist.is_available() and dist.is_torchelastic_launched()
    if not launched or int(os.environ["WORLD_SIZE"]) == 1:
        return None
    if not dist.is_initialized():
        on_gpus = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo")
    if not _lines:
        _lines.append(Lifeline())
    return Ranks.all()


def leave(ranks: Ranks | None) -> None:
    """Part, once every rank is done.

    What must be is let go first (`before_leaving`): models and their runs are of no use after it.
    """
    if ranks is None:
        return
    ranks.add([0.0])
    for let_go in before_leaving:
        let_go()
    while _lines:
        _lines.pop().let_go()
    dist.destroy_process_group()


def end(ranks: Ranks, code: int) -> NoReturn:
    """`leave`, and end this process with ``code`` without winding its interpreter down.

    On a busy machine torch's background threads were seen to abort ranks that wind down ("terminate
    called without an active exception"; torch 2.13, gloo), after all of their work was done.
    """
    leave(ranks)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextmanager
def together(ranks: Ranks | None) -> Iterator[None]:
    """What is refused on one rank inside is refused on all.

    Raises:
        AgreedError: the complaint; of the lowest rank, where there are several.
    """
    if ranks is None:
        yield
        return
    own: ValueError | None = None
    try:
        yield
    except AgreedError:
        raise
    except ValueError as error:
        own = error
    complaints: list[str | None] = [None] * ranks.size
    dist.all_gather_object(complaints, None if own is None else str(own))
    heard = next((line for line in complaints if line is not None), None)
    if heard is not None:
        raise AgreedError(heard) from own
