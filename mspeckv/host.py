"""Reading a few numbers from the device, and sending a few there, without stopping it.

``int(tensor)`` on a GPU waits for everything enqueued, and copying from ordinary memory does too.
Here a read copies into pinned memory and waits for that copy's own event; a send never waits.
On a CPU both are nothing.
"""

from __future__ import annotations

import torch

from mspeckv.ranges import span


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` in host memory; waits until it has been computed and copied."""
    return all_to_host(tensor)[0]


def all_to_host(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Tensors of one device in host memory, with one wait."""
    device = tensors[0].device
    if device.type != "cuda":
        return tensors
    out = tuple(torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in tensors)
    for copy, tensor in zip(out, tensors, strict=True):
        copy.copy_(tensor, non_blocking=True)
    with span("wait"):
        torch.cuda.current_stream(device).record_event().synchronize()
    return out


def to_device(values: list[int] | list[list[int]], device: torch.device) -> torch.Tensor:
    """int64 values on ``device``, in the order of its stream."""
    on_host = torch.tensor(values, dtype=torch.int64, pin_memory=device.type == "cuda")
    return on_host.to(device, non_blocking=True)
