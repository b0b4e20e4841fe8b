"""Has several processes that share one model, started by ``torchrun``, decide alike."""

from mspeckv.parallel.ranks import AgreedError, Ranks, before_leaving, end, join, leave, together

__all__ = ["AgreedError", "Ranks", "before_leaving", "end", "join", "leave", "together"]
