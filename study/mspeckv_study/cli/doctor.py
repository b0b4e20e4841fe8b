"""What this machine has, and whether the engine works on it."""

from __future__ import annotations

import os
import platform
import time
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch

from mspeckv.accelerate.packed_attention import kernel
from mspeckv.api import generate, load_pair, usual_weights
from mspeckv.models import checksums
from mspeckv.models.download import FORMS, ModelMissing, damaged_files, is_fetched, model_folder
from mspeckv.models.load import DEFAULT, parse_device, parse_dtype
from mspeckv.models.shared_draft import REINSTALL
from mspeckv.settings import KVPolicy, Sampling
from mspeckv_study.experiments.rows import installed
from mspeckv_study.measured import age, listing

PACKAGES = ("mspeckv", "torch", "transformers", "safetensors", "gguf", "numpy", "jupyterlab")
DATA = tuple(Path(str(files(name) / "data")) for name in ("mspeckv", "mspeckv_study"))
"""What is shipped: the draft, and the published tables; each folder has its list of hashes."""
SELF_TEST_TOKENS = 16
_COPY_BYTES = 128 << 20
_PROMPT = range(1000, 1128)
_METHODS = ("autoregressive", "mspeckv")
_TOO_LARGE = "; torch's CUDA build, and no GPU: its CPU build saves gigabytes (docs/installing.md)"


def examine(
    target: str = DEFAULT, draft: str = DEFAULT, device: str = "cpu", dtype: str = "float32"
) -> dict[str, Any]:
    """Everything `report` prints, as plain dictionaries.

    Returns:
        ``versions`` ``cores`` ``memory`` ``device`` ``link`` ``native`` ``measured`` ``model``
        ``package`` ``self_test``; a part with figures says under ``how`` whether they were measured
        or reported by the system; ``model`` and ``package`` name the files whose hash is wrong.

    Raises:
        ValueError: a device or model that is not allowed.
    """
    where = parse_device(device)
    parse_dtype(dtype)
    memory, reported = psutil.virtual_memory(), {"how": "reported"}
    forms = [form for form in FORMS if is_fetched(form)]
    model = {
        "present": bool(forms),
        "damaged": [name for form in forms for name in damaged_files(form)],
        "folder": ", ".join(str(model_folder(form)) for form in forms or FORMS),
    }
    package = {"damaged": damaged_package(), "folder": ", ".join(map(str, DATA))}
    wrong = bool(package["damaged"]) or (target == DEFAULT and bool(model["damaged"]))
    return {
        "versions": {"python": platform.python_version(), **{n: installed(n) for n in PACKAGES}},
        "cores": {
            "physical": psutil.cpu_count(logical=False),
            "logical": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            **reported,
        },
        "memory": {"total_bytes": memory.total, "available_bytes": memory.available, **reported},
        "device": _device(where),
        "link": measure_link(where),
        "native": {"packed_attention": kernel() is not None, "how": "tested"},
        "measured": {"kept": listing(), "how": "measured"},
        "model": model,
        "package": package,
        "self_test": {"passed": False, "reason": "a damaged file (see above)"}
        if wrong
        else _self_test(target, draft, device, dtype),
    }


def is_damaged(found: dict[str, Any]) -> bool:
    """Whether `examine` found a file whose hash is wrong."""
    return bool(found["model"]["damaged"] or found["package"]["damaged"])


def damaged_package() -> list[str]:
    """Files of this package's data (the shipped draft, the published tables) that are damaged."""
    return [name for folder in DATA for name in _damaged(folder)]


def _damaged(folder: Path) -> list[str]:
    listed = checksums.read_list(folder)
    return checksums.damaged(folder, listed) if listed else [checksums.LIST]


def measure_link(device: torch.device) -> dict[str, Any]:
    """Bandwidth of host-to-device copies: pinned memory on CUDA, RAM to RAM on CPU."""
    on_gpu = device.type == "cuda"
    source = torch.ones(_COPY_BYTES, dtype=torch.uint8, pin_memory=on_gpu)
    sink = torch.empty(_COPY_BYTES, dtype=torch.uint8, device=device)
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        sink.copy_(source, non_blocking=on_gpu)
        if on_gpu:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    # The first copies also pay for touching the memory.
    gbps = _COPY_BYTES / median(seconds[2:]) / 1e9
    return {"kind": "pcie" if on_gpu else "memory", "gbps": gbps, "how": "measured"}


def _self_test(target: str, draft: str, device: str, dtype: str) -> dict[str, Any]:
    """Decode 16 tokens greedily by two methods with the same KV policy, and compare them."""
    weights = usual_weights(target, device, dtype)
    if target == DEFAULT and not is_fetched(weights):
        # Looking a machine over should not download 93 MB.
        return {"passed": False, "reason": "the default model is absent; run: mspeckv fetch"}
    try:
        pair = load_pair(target, draft, device=device, dtype=dtype, weights=weights)
    except ModelMissing as error:
        return {"passed": False, "reason": str(error)}
    found: dict[str, Any] = {"tokens": SELF_TEST_TOKENS, "how": "measured"}
    runs = {
        method: generate(
            pair,
            [token % pair.vocab_size for token in _PROMPT],
            method=method,
            new_tokens=SELF_TEST_TOKENS,
            policy=KVPolicy(bits=8, on_chip=pair.layers // 2, resident=pair.layers // 4),
            sampling=Sampling(temperature=0.0, stop_at_eos=False),
        )
        for method in _METHODS
    }
    for method, run in runs.items():
        found[method] = {name: getattr(run, name) for name in ("tokens_per_second", "ms_per_token")}
    found["passed"] = len({run.tokens for run in runs.values()}) == 1
    found["reason"] = "both methods gave the same tokens" if found["passed"] else "tokens differ"
    return found


def report(found: dict[str, Any]) -> str:
    """`examine`'s findings for people."""
    cores, memory, link, test = (found[name] for name in ("cores", "memory", "link", "self_test"))
    model = _files(found["model"], "run: mspeckv fetch")
    if not found["model"]["present"]:
        model = f"absent: {found['model']['folder']}"
    native = "compiled" if found["native"]["packed_attention"] else "no C++ compiler, unpacking"
    lines = [
        "versions   " + ", ".join(f"{name} {text}" for name, text in found["versions"].items()),
        f"cores      {cores['physical']} physical, {cores['logical']} logical, "
        f"{cores['torch_threads']} torch threads ({cores['how']})",
        f"memory     {memory['total_bytes'] / 1e9:.1f} GB, "
        f"{memory['available_bytes'] / 1e9:.1f} GB free ({memory['how']})",
        f"device     {found['device']['name']}{_TOO_LARGE * found['device']['cuda_in_vain']}",
        f"link       {link['kind']}: {link['gbps']:.1f} GB/s ({link['how']})",
        f"native     attention over packed blocks: {native}",
        *(
            f"measured   {one['file']}: {', '.join(one['models'])}, {one['threads']} threads, "
            f"{age(one['age_seconds'])} ago (anew: mspeckv doctor --again)"
            for one in found["measured"]["kept"]
        ),
        f"model      {model}",
        f"package    {_files(found['package'], REINSTALL)}",
        f"self-test  {'passed' if test['passed'] else 'FAILED'}: {test['reason']}",
    ]
    lines += [
        f"           {method}: {test[method]['tokens_per_second']:.1f} tokens/s, "
        f"{test[method]['ms_per_token']:.1f} ms/token over {test['tokens']} tokens ({test['how']})"
        for method in _METHODS
        if method in test
    ]
    return "\n".join(lines)


def _files(folder: dict[str, Any], mend: str) -> str:
    """What is known of a folder's files, and what mends them."""
    if folder["damaged"]:
        return f"DAMAGED: {', '.join(folder['damaged'])} in {folder['folder']}; {mend}"
    return f"checked by sha256: {folder['folder']}"


def _device(device: torch.device) -> dict[str, Any]:
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        memory = {"memory_bytes": found.total_memory, "how": "reported"}
        return {"name": found.name, "cuda_in_vain": False, **memory}
    in_vain = torch.version.cuda is not None and not torch.cuda.is_available()
    name = platform.processor() or platform.machine()
    return {"name": name, "cuda_in_vain": in_vain, "how": "reported"}
