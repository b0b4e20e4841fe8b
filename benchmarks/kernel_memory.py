"""Memory that one student's kernel takes, for planning a class server.

    python -m benchmarks.kernel_memory
    python -m benchmarks.kernel_memory --weights int4 --without triton,scipy

Starts real kernels, as JupyterLab does, and takes each through a lab: imports, the model pair, a
panel, runs at growing contexts, then twenty more runs. "Own" is memory that no other process shares
(unique set size), "resident" is what tools such as top show; of it, "code" is mapped from
libraries, "weights" from the model's file, and the rest is what Python and torch hold and have
freed. Kernels side by side tell what they share: code and weights mapped from one cache folder.

``--without`` hides packages that transformers imports where they are, and that only the extra
``test`` installs.
"""

from __future__ import annotations

import argparse
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
IMPORTS = (
    ("torch", "import torch; torch.ones(8) @ torch.ones(8)"),
    ("transformers' Llama", "from transformers import LlamaForCausalLM"),
    ("other imports", "from mspeckv import KVPolicy, documents, generate, load_pair" + RUN),
)
STEPS = (
    ("a live panel", "from mspeckv_widgets import LiveLab; lab = LiveLab(pair); lab"),
    ("a run, 512 tokens of context", "run(512)"),
    ("a run, 1024 tokens", "run(1024)"),
    ("a run, 2048 tokens", "run(2048)"),
)
LAST = ("20 more runs, 1024 tokens", "run(1024, 20)")


def main() -> None:
    """Print both tables, for each form of the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="float,int4")
    parser.add_argument("--without", default="", help="packages to hide, with commas")
    options = parser.parse_args()
    hidden = [name for name in options.without.split(",") if name]
    print(machine(torch.device("cpu")), end="\n\n")
    if hidden:
        print(f"Without {' and '.join(hidden)}\n")
    for weights in options.weights.split(","):
        print(one_and_more(weights, hidden), flush=True)


def one_and_more(weights: str, hidden: list[str]) -> str:
    """One kernel after each step, and some side by side."""
    hide = ("start", f"import sys; sys.modules.update(dict.fromkeys({hidden}))")
    load = ("the model pair", f"pair = load_pair(weights={weights!r})")
    steps = (hide, *IMPORTS, load, *STEPS)
    with kernel() as (process, client):
        rows = []
        for name, code in (*steps, LAST):
            execute(client, code)
            rows.append((name, *megabytes(process), *mapped(process)))
    with contextlib.ExitStack() as stack:
        kernels = [stack.enter_context(kernel()) for _ in range(SIDE_BY_SIDE)]
        for _, client in kernels:
            for _, code in steps:
                execute(client, code)
        beside = [(place, *megabytes(process)) for place, (process, _) in enumerate(kernels, 1)]
    headers = ("own MB", "resident MB", "peak MB")
    return (
        f"{weights}: one kernel, after each step (measured)\n"
        f"{table(('after', *headers, 'of it code MB', 'weights MB', 'rest MB'), rows)}\n\n"
        f"{weights}: {SIDE_BY_SIDE} kernels side by side, each after all steps but the last "
        f"(measured)\n{table(('kernel', *headers), beside)}\n"
    )


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


def mapped(process: psutil.Process) -> tuple[float, float, float]:
    """What is resident of libraries' files and of the model's, and the rest, in MB."""
    code = weights = rest = 0
    for part in process.memory_maps():
        if part.path.endswith(".safetensors"):
            weights += part.rss
        elif part.path.startswith("["):
            rest += part.rss
        else:
            code += part.rss
    return code / 1e6, weights / 1e6, rest / 1e6


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
