"""The fused kernel gives the eager path's bits; Triton's interpreter runs it without a GPU."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator

import pytest
import torch

from mspeckv import KVPolicy
from mspeckv.accelerate import triton_unpack
from mspeckv.accelerate.nibble import NibblePlanes
from mspeckv.decoding.hooks import Hooks
from mspeckv.kv.codec import Restore
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.shape import KVShape
from tests.random_models import block_codec

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Restore]:
    """The kernel, built anew, so that its interpreter may take the GPU's place."""
    if DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    sys.modules.pop("mspeckv.accelerate.triton_kernel", None)
    importlib.import_module("mspeckv.accelerate.triton_kernel")
    yield triton_unpack.restore
    sys.modules.pop("mspeckv.accelerate.triton_kernel", None)


def buffers(shape: KVShape, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Views into a longer buffer, as the scratch buffer's are."""
    whole = torch.zeros(2, 1, shape.heads, tokens + 24, shape.dim, dtype=shape.dtype, device=DEVICE)
    key, value = whole.unbind(0)
    return key[:, :, :tokens], value[:, :, :tokens]


def assert_same(eager: torch.Tensor, fast: torch.Tensor) -> None:
    assert float(eager.float().abs().sum()) > 0
    if eager.dtype == torch.bfloat16 and DEVICE == "cpu":
        # The interpreter truncates where the GPU, and torch, round to nearest: a few last places.
        torch.testing.assert_close(eager, fast, rtol=0.02, atol=0.3)
    else:
        assert torch.equal(eager, fast)


def random_kv(shape: KVShape, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(tokens)
    size = (2, 1, shape.heads, tokens, shape.dim)
    both = torch.randn(size, generator=generator) * 3 + 1
    key, value = both.to(DEVICE, shape.dtype).unbind(0)
    return key, value


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize(("dim", "block", "group"), [(64, 64, 64), (80, 24, 16), (128, 32, 32)])
def test_decoding_gives_the_eager_paths_bits(
    kernel: Restore, dtype: torch.dtype, bits: int, dim: int, block: int, group: int
) -> None:
    shape = KVShape(1, 3, dim, dtype)
    codec = BlockCodec(shape, KVPolicy(bits, block=block, group=group))
    records = codec.encode(*random_kv(shape, 3 * block))
    eager, fast = buffers(shape, 3 * block), buffers(shape, 3 * block)
    codec.decode(records, *eager)
    codec.restore = kernel
    codec.decode(records, *fast)
    for one, other in zip(eager, fast, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("way", ["join", "coarse", "coarse whole"])
def test_planes_give_the_eager_paths_bits(kernel: Restore, dtype: torch.dtype, way: str) -> None:
    shape, policy = KVShape(1, 2, 64, dtype), KVPolicy(8, block=32, nibble=True)
    planes = NibblePlanes(BlockCodec(shape, policy))
    records = planes.whole.encode(*random_kv(shape, 64))
    upper, lower = planes.split(records)
    given = {"join": (upper, lower), "coarse": (upper,), "coarse whole": (records,)}[way]
    eager, fast = buffers(shape, 64), buffers(shape, 64)
    name = way.removesuffix(" whole")
    getattr(planes, name)(*given).decode(eager)
    fused = NibblePlanes(BlockCodec(shape, policy, kernel))
    getattr(fused, name)(*given).decode(fast)
    for one, other in zip(eager, fast, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("codes", lambda x: x.int()),
        ("codes", lambda x: x[:, :, :-1]),
        ("codes", lambda x: x.transpose(2, 3).contiguous().transpose(2, 3)),
        ("codes", lambda x: x.to("meta")),
        ("step", lambda x: x.float()),
        ("step", lambda x: x[:, :1]),
        ("step", lambda x: x[..., :3]),
        ("low", lambda x: x.contiguous()),
        ("low", lambda x: x.bfloat16()),
        ("out", lambda x: x.int()),
        ("out", lambda x: x.repeat_interleave(2, -1)[..., ::2]),
        ("lower", lambda x: x[:1]),
        ("lower", lambda x: x.half()),
    ],
)
def test_a_part_that_the_kernel_would_misread_is_refused(
    kernel: Restore, name: str, spoil: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    codec = block_codec(2, 16, 8, 4, 8, torch.float32)
    records = codec.encode(*random_kv(KVShape(1, 2, 16, torch.float32), 24))
    codes, step, low = (codec.part(f"k{part}", records) for part in ("", "_step", "_low"))
    parts = {"codes": codes, "step": step, "low": low, "lower": codes}
    parts["out"] = torch.zeros(3, 2, 8, 16, device=DEVICE)

    def restore(of: dict[str, torch.Tensor]) -> None:
        triton_unpack.restore(of["codes"], 4, of["step"], of["low"], of["out"], lower=of["lower"])

    restore(parts)
    with pytest.raises(ValueError, match=f"^{name}: "):
        restore({**parts, name: spoil(parts[name])})


def test_the_kernel_is_plugged_in_on_a_gpu_alone() -> None:
    plain = Hooks()
    assert triton_unpack.plug(plain, torch.device("cpu")) is plain
    assert triton_unpack.plug(plain, torch.device("cuda")).restore is triton_unpack.restore
