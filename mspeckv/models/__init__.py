"""Yields a checked target, draft and tokenizer, and knows nothing of decoding."""

from mspeckv.models.download import fetch
from mspeckv.models.load import DEFAULT, load_pair, parse_device, parse_dtype, parse_weights
from mspeckv.models.pair import Pair

__all__ = [
    "DEFAULT", "Pair", "fetch", "load_pair", "parse_device", "parse_dtype", "parse_weights"
]  # fmt: skip
