"""Yields a checked target, draft and tokenizer, and knows nothing of decoding.

Names are loaded when they are first asked for: to look for the model's files takes no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mspeckv.models.load import DEFAULT, load_pair, parse_device, parse_dtype, parse_weights
    from mspeckv.models.pair import Pair

__all__ = ["DEFAULT", "Pair", "load_pair", "parse_device", "parse_dtype", "parse_weights"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{'pair' if name == 'Pair' else 'load'}")
    value: object = getattr(home, name)
    globals()[name] = value
    return value
