"""Start here: KV's size, its trips, and fewer of both."""

from __future__ import annotations

from typing import Any

from mspeckv_widgets.course.answers import is_run, near, same_function
from mspeckv_widgets.course.exercise import Exercise, Score, Verdict

LLAMA_2_7B = {"layers": 32, "kv_heads": 32, "head_dim": 128}
_CONTEXT = 32 * 1024
_FEW_BYTES = 0.8e6


def kv_bytes(layers: int, kv_heads: int, head_dim: int, itemsize: float) -> float:
    """Bytes of keys and values that one token leaves."""
    return 2 * layers * kv_heads * head_dim * itemsize


def check_bytes(found: Any) -> Verdict:
    """A function of the shape gives bytes per token."""
    cases = [(30, 3, 64, 4), (32, 32, 128, 2), (80, 8, 128, 2)]
    return same_function(found, kv_bytes, cases, "a key and a value for each layer, head, channel.")


def check_gigabytes(found: Any) -> Verdict:
    """Llama-2-7B's KV at 32 k tokens in int4, without scales, in GB."""
    right = _CONTEXT * kv_bytes(**LLAMA_2_7B, itemsize=0.5) / 1e9
    return near(found, right, 0.03, "four bits are half a byte, a quarter of float16's size.")


def time_per_token(megabytes: float, gbps: float, compute_ms: float, tokens: float) -> float:
    """Milliseconds per token of trips that nothing overlaps."""
    return (megabytes / gbps + compute_ms) / tokens


def check_time(found: Any) -> Verdict:
    """A function of trip, link, arithmetic and tokens per trip gives ms per token."""
    cases = [(12.0, 0.5, 60.0, 1), (12.0, 0.5, 300.0, 4), (47.0, 0.05, 60.0, 2.5)]
    return same_function(
        found,
        time_per_token,
        cases,
        "guessing divides both terms, if it adds little to the second.",
    )


def check_few_bytes(found: Any) -> Verdict:
    """A run that keeps no layer on the device and yet fetches little."""
    complaint = is_run(found)
    if complaint is not None:
        return complaint
    policy = found.config["policy"]
    if policy["on_chip"] or policy["resident"]:
        return Verdict(False, "layers are kept on the device: use on_chip=0 and resident=0")
    if len(found.tokens) < 16 or found.config["prompt_tokens"] < 512:
        return Verdict(False, "use the lab's prompt and 16 new tokens")
    fetched = found.link.to_device_bytes / len(found.tokens)
    told = f"{fetched / 1e6:.2f} MB per token crossed the link (counted)"
    if fetched > _FEW_BYTES:
        return Verdict(False, f"{told}; get below {_FEW_BYTES / 1e6:g} MB")
    score = Score(fetched / 1e6, "MB per token", "counted", less_is_better=True)
    return Verdict(True, f"{told}.", score)


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "bytes of KV per token from a model's shape",
        check_bytes,
        "Count the numbers that one token leaves in one layer; then layers, then bytes.",
        "Keys and values are two tensors, each of kv_heads * head_dim numbers.",
    ),
    "e2": Exercise(
        "Llama-2-7B at 32 k tokens in int4",
        check_gigabytes,
        "Use your function. How many bytes are 4 bits?",
        "32 layers, 32 KV heads, 128 channels, half a byte; 32 k is 32 * 1024 tokens, a GB is 1e9 "
        "bytes.",
    ),
    "e3": Exercise(
        "a formula for ms per token",
        check_time,
        "MB divided by GB/s are milliseconds. What is paid once a trip, and what for each token?",
        "One trip and the arithmetic after it take megabytes / gbps + compute_ms.",
    ),
    "e4": Exercise(
        "few bytes with nothing kept on the device",
        check_few_bytes,
        "What divides each trip, and what divides the number of trips?",
        'Narrower KV is bits=4 or less, guessing is method "mspeckv". Neither alone is enough.',
    ),
}
