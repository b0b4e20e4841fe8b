"""The tests that an extension must pass, for its author to call; the engine imports none of it.

    from mspeckv import KVPolicy
    from mspeckv.testing import check_bytes, check_codec, check_exactness, check_path_independence

    POLICY = KVPolicy(4, resident=1, block=16, group=16, tail=8, codec="mine")

    def test_mine() -> None:
        check_codec(POLICY)
        check_exactness(POLICY)
        check_path_independence(POLICY)
        check_bytes(POLICY)

Each raises an ``AssertionError`` that says what is wrong. All run on a CPU with a tiny random
model, in seconds. `decoded` gives the logits of any run.
"""

from mspeckv.testing.exactness import check_exactness
from mspeckv.testing.logits import decoded
from mspeckv.testing.stored import check_bytes, check_codec, check_path_independence
from mspeckv.testing.tiny import SMALL, tiny_pair, tiny_prompt

__all__ = [
    "SMALL",
    "check_bytes",
    "check_codec",
    "check_exactness",
    "check_path_independence",
    "decoded",
    "tiny_pair",
    "tiny_prompt",
]
