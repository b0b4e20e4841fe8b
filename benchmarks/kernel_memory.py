"""Memory that one student's kernel takes, for planning a class server.

    python -m benchmarks.kernel_memory

Starts real kernels, as JupyterLab does, and takes each through a lab: imports, the model pair, a
panel, runs at growing contexts, then twenty more runs. "Own" is memory that no other process shares
(unique set size), "resident" is what tools such as top show. Kernels side by side tell what they
share: code and weights mapped from one cache folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

from benchmarks.report import machine, table

SIDE_BY_SIDE = 3
SECONDS = 600
RUN = """
def run(context, times=1):
    prompt = documents.load_document("python-reference", pair.tokenizer, context)
    for _ in range(times):
        generate(pair, prompt, new_tokens=16, policy=KVPolicy(8, on_chip=10, resident=10))
"""
STEPS = (
    ("imports", "from mspeckv import KVPolicy, documents, generate, load_pair" + RUN),
    ("the model pair", "pair = load_pair()"),
    ("a live panel", "from mspeckv_widgets import LiveLab; lab = LiveLab(pair); lab"),
    ("a run, 512 tokens of context", "run(512)"),
    ("a run, 1024 tokens", "run(1024)"),
    ("a run, 2048 tokens", "run(2048)"),
    ("20 more runs, 1024 tokens", "run(1024, 20)"),
)


def main() -> None:
    """Print both tables."""
    print(machine(torch.device("cpu")), end="\n\n")
    print("One kernel, after each step (measured)")
    with kernel() as (process, client):
        rows = []
        for name, code in STEPS:
            execute(client, code)
            rows.append((name, *megabytes(process)))
    print(table(("after", "own MB", "resident MB", "peak MB"), rows), end="\n\n")
    print(f"{SIDE_BY_SIDE} kernels side by side, each after all steps but the last (measured)")
    with contextlib.ExitStack() as stack:
        kernels = [stack.enter_context(kernel()) for _ in range(SIDE_BY_SIDE)]
        for _, client in kernels:
            for _, code in STEPS[:-1]:
                execute(client, code)
        beside = [(place, *megabytes(process)) for place, (process, _) in enumerate(kernels, 1)]
    print(table(("kernel", "own MB", "resident MB", "peak MB"), beside))


@contextlib.contextmanager
def kernel() -> Iterator[tuple[psutil.Process, BlockingKernelClient]]:
    """A kernel's process and a client of it; it ends with the block."""
    manager: KernelManager
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        yield psutil.Process(execute_pid(client)), client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def execute(client: BlockingKernelClient, code: str) -> str:
    """Run code to its end; returns what it printed.

    Raises:
        RuntimeError: the code raised.
    """
    printed: list[str] = []

    def hear(message: dict[str, dict[str, str]]) -> None:
        if message["header"]["msg_type"] == "stream":
            printed.append(message["content"]["text"])

    reply = client.execute_interactive(code, timeout=SECONDS, output_hook=hear)
    if reply["content"]["status"] != "ok":
        raise RuntimeError(f"{reply['content']['ename']}: {reply['content']['evalue']}")
    return "".join(printed)


def execute_pid(client: BlockingKernelClient) -> int:
    """The kernel's process id, as it says itself: a launcher may stand between."""
    return int(execute(client, "import os; print(os.getpid())"))


def megabytes(process: psutil.Process) -> tuple[float, float, float]:
    """Memory of its own, resident, and the most it was resident; in MB of 1e6 bytes."""
    full = process.memory_full_info()
    peak = getattr(full, "peak_wset", 0) or peak_bytes(process.pid)
    return full.uss / 1e6, full.rss / 1e6, peak / 1e6


def peak_bytes(pid: int) -> int:
    """The most a process was resident, as Linux notes it; 0 where that is not kept."""
    try:
        with Path(f"/proc/{pid}/status").open(encoding="ascii") as status:
            found = [line.split()[1] for line in status if line.startswith("VmHWM:")]
    except OSError:
        return 0
    return int(found[0]) * 1024 if found else 0


if __name__ == "__main__":
    main()
