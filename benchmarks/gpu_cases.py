"""The runs that `benchmarks.gpu` measures, and what is read off them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch

from benchmarks.report import table
from mspeckv import KVPolicy, Pair, RunConfig, RunSummary, Sampling, Speculation, stream
from mspeckv.events import Round
from mspeckv_study.documents import load_document

GREEDY = Sampling(temperature=0, stop_at_eos=False)
DRAWN = Sampling(temperature=0.6, top_p=0.9, seed=1, stop_at_eos=False)
GUESS = Speculation(gamma=8, draft_gamma=3, budget=4096, refresh=0)
"""The published settings."""
FAR = Speculation(gamma=16, draft_gamma=3, budget=4096, refresh=0)
"""Longer rounds, where the link is what a round waits for."""
COARSE = Speculation(gamma=24, draft_gamma=3, tier1="nibble")
AUTO = Speculation(gamma="auto", draft_gamma="auto", budget=4096, refresh=0)
NAIVE_TOKENS = 32
"""Tokens of a way that needs no guesses: every one takes the same time."""

EXACT_POLICIES = {
    "full, 15 on-chip": KVPolicy("full", on_chip=15),
    "int8, 10 + 10": KVPolicy(8, on_chip=10, resident=10),
    "int4, 0 + 0": KVPolicy(4),
    "nibble, 0 + 0": KVPolicy(8, nibble=True),
}


@dataclass(frozen=True)
class Case:
    """A run.

    Attributes:
        name: what tables call it.
        method: as in `mspeckv.generate`.
        policy: tier 2's KV.
        speculation: the tiers below.
        new_tokens: tokens decoded.
        graphs: whether passes are replayed.
        sampling: how tokens are drawn.
        skip: rounds at the beginning that do not count; 0 runs everything again until no pass is
            captured in a run, `MOST_RUNS` times at most, and counts the last run.
    """

    name: str
    method: str
    policy: KVPolicy
    speculation: Speculation = GUESS
    new_tokens: int = 256
    graphs: bool = True
    sampling: Sampling = GREEDY
    skip: int = 0

    @property
    def config(self) -> RunConfig:
        """Its run's settings."""
        return RunConfig.build(
            method=self.method, new_tokens=self.new_tokens, policy=self.policy,
            speculation=self.speculation, sampling=self.sampling, graphs=self.graphs,
        )  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What a run gave.

    Attributes:
        ms: milliseconds per token.
        per_round: tokens per tier-2 pass.
        tier_ms: milliseconds per token by tier.
        link_ms: milliseconds per token that the link was busy.
        wait_ms: milliseconds per token that compute waited for it.
        gbps: bytes over the link per second that it was busy, in 1e9.
        use: bytes over the link per second of decoding, in 1e9.
        prefill_s: seconds.
        device_gb: most device memory allocated.
        tokens: token ids.
        passes: per token, by tier.
        read_gb: bytes of weights and of KV that the tier's passes read for a token, in 1e9.
    """

    ms: float
    per_round: float
    tier_ms: dict[int, float]
    link_ms: float
    wait_ms: float
    gbps: float
    use: float
    prefill_s: float
    device_gb: float
    tokens: tuple[int, ...]
    passes: dict[int, float]
    read_gb: dict[int, float]

    def line(self, name: str, base: float, rate: float) -> str:
        """One line of a table, with the speed-up over ``base`` ms per token.

        Beside each tier's time its share of the limit: how long copying what it reads would take on
        the device at ``rate`` bytes per second, as a part of that time.
        """
        tiers = " ".join(
            f"t{tier} {ms:.2f} ({self.read_gb[tier] * 1e12 / rate / ms:.0%})"
            for tier, ms in self.tier_ms.items()
        )
        link = f"link {self.link_ms:.1f} wait {self.wait_ms:.1f} at {self.gbps:.1f} GB/s"
        return (
            f"  {name:<44} {self.ms:8.2f} ms/token {base / self.ms:6.2f}x "
            f"{self.per_round:5.2f} tokens/round  {tiers}  {link}  {self.device_gb:.0f} GB"
        )

    def to_json(self) -> dict[str, Any]:
        """Everything but the tokens."""
        out = asdict(self)
        del out["tokens"]
        return out

    @classmethod
    def of(cls, row: dict[str, Any]) -> Found:
        """What `to_json` gave, after it was written and read."""
        given = {one.name: row[one.name] for one in fields(cls) if one.name != "tokens"}
        by_tier = {
            name: {int(tier): value for tier, value in given[name].items()}
            for name in ("tier_ms", "passes", "read_gb")
        }
        return cls(**{**given, **by_tier}, tokens=())


def first_difference(one: Found, other: Found) -> int:
    """Place of the first token that differs."""
    pairs = zip(one.tokens, other.tokens, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), len(one.tokens))


MOST_RUNS = 5
"""Of a case whose passes go on being captured."""


def run(pair: Pair, prompt: list[int], case: Case) -> Found:
    """Measure a case: without ``skip``, a further run in which no pass was captured."""
    found, builds = _once(pair, prompt, case)
    runs = 1
    while not case.skip and (runs == 1 or builds) and runs < MOST_RUNS:
        found, builds = _once(pair, prompt, case)
        runs += 1
    return found


def weight_bytes(pair: Pair, tier: int) -> int:
    """Bytes of weights that a pass of a tier reads here: all but the rows of its embedding."""
    model = pair.draft if tier == 0 else pair.target
    if model is None:
        return 0
    rows = model.get_input_embeddings().weight
    tied = rows is model.get_output_embeddings().weight
    return sum(_held(one) for one in model.parameters()) - (0 if tied else _held(rows))


def _held(weight: Any) -> int:
    """Bytes of a weight on this rank: of one that is split, its part."""
    return int((weight.to_local() if hasattr(weight, "to_local") else weight).nbytes)


def _once(pair: Pair, prompt: list[int], case: Case) -> tuple[Found, bool]:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    events = list(stream(pair, prompt, case.config))
    summary = events[-1]
    assert isinstance(summary, RunSummary)
    rounds = [event for event in events if isinstance(event, Round)][case.skip :]
    tokens = sum(len(one.tokens) for one in rounds)
    ms = sum(one.ms for one in rounds)
    tier_ms: dict[int, float] = {}
    for one in rounds:
        for count in one.tiers:
            tier_ms[count.tier] = tier_ms.get(count.tier, 0.0) + count.ms / tokens
    passes: dict[int, float] = {}
    read_gb: dict[int, float] = {}
    for step in (step for one in rounds for step in one.passes):
        size = step.kv_bytes + weight_bytes(pair, step.tier)
        passes[step.tier] = passes.get(step.tier, 0.0) + 1 / tokens
        read_gb[step.tier] = read_gb.get(step.tier, 0.0) + size / tokens / 1e9
    moved = [t for one in rounds for t in one.transfers if t.direction == "to_device"]
    busy = sum(t.ms for t in moved)
    size = sum(t.bytes for t in moved)
    found = Found(
        ms=ms / tokens,
        per_round=tokens / len(rounds),
        tier_ms=tier_ms,
        link_ms=busy / tokens,
        wait_ms=sum(t.wait_ms for t in moved) / tokens,
        gbps=size / busy / 1e6 if busy else 0.0,
        use=size / ms / 1e6,
        prefill_s=summary.prefill_seconds,
        device_gb=torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0,
        tokens=summary.tokens,
        passes=passes,
        read_gb=read_gb,
    )
    return found, any(step.builds for one in rounds for step in one.passes)


def naive(name: str, on_chip: int) -> Case:
    """One token a pass over unquantized KV."""
    policy = KVPolicy("full", on_chip=on_chip)
    return Case(name, "autoregressive", policy, new_tokens=NAIVE_TOKENS, skip=4)


def a1() -> list[Case]:
    """The published comparison, then the same with nothing on the device, and the controls."""
    packed = KVPolicy(8, on_chip=16, resident=16)
    return [
        naive("autoregressive, 16 on-chip", 16),
        Case("vanilla, full, 16 on-chip", "vanilla", KVPolicy("full", on_chip=16), new_tokens=64),
        Case("triforce, 16 on-chip", "triforce", KVPolicy("full", on_chip=16), new_tokens=128),
        Case("mspeckv, int8, 16 + 16", "mspeckv", packed),
        Case("mspeckv, auto, 16 + 16", "mspeckv", packed, AUTO),
        Case("mspeckv, int8, 16 + 16, T 0.6 top-p 0.9", "mspeckv", packed, sampling=DRAWN),
        naive("autoregressive, all 32 on-chip (control)", 32),
        Case("mspeckv, full, all 32 on-chip", "mspeckv", KVPolicy("full", on_chip=32)),
        naive("autoregressive, 0 on-chip", 0),
        Case("triforce, 0 on-chip", "triforce", KVPolicy("full"), new_tokens=64),
        Case("mspeckv, int8, 0 + 0", "mspeckv", KVPolicy(8), FAR),
        Case("mspeckv, int8, 0 + 0, 8 ahead", "mspeckv", KVPolicy(8, ahead=8), FAR),
        Case("mspeckv, int4, 0 + 0", "mspeckv", KVPolicy(4), FAR),
        Case("mspeckv, int4, 0 + 0, 8 ahead", "mspeckv", KVPolicy(4, ahead=8), FAR),
        Case("mspeckv, nibble, 0 + 0", "mspeckv", KVPolicy(8, nibble=True), COARSE),
    ]


def a2() -> list[Case]:
    """Resident layers."""
    out = [naive("autoregressive, 16 on-chip", 16)]
    out += [Case("triforce, 16 on-chip", "triforce", KVPolicy("full", on_chip=16), new_tokens=128)]
    return out + [
        Case(f"mspeckv, int8, 16 + {n}", "mspeckv", KVPolicy(8, on_chip=16, resident=n))
        for n in (0, 8, 16)
    ]


def b1() -> list[Case]:
    """On-chip layers."""
    out = []
    for n in (4, 8, 12, 16, 18):
        full, policy = KVPolicy("full", on_chip=n), KVPolicy(8, on_chip=n, resident=min(16, 32 - n))
        out.append(Case(f"triforce, {n} on-chip", "triforce", full, new_tokens=64))
        out.append(Case(f"mspeckv, int8, {n} + {policy.resident}", "mspeckv", policy))
    return out


def b2() -> list[Case]:
    """Output length."""
    out = []
    for tokens in (256, 512, 768, 1024, 1536, 2048):
        if tokens == 256:
            full = KVPolicy("full", on_chip=16)
            out.append(Case("triforce, 256 tokens", "triforce", full, new_tokens=256))
        policy = KVPolicy(8, on_chip=16, resident=16)
        out.append(Case(f"mspeckv, {tokens} tokens", "mspeckv", policy, new_tokens=tokens, skip=8))
    return out


AGREEMENT = (
    ("int8, 16 + 16", KVPolicy(8, on_chip=16, resident=16)),
    ("full, 32 on-chip", KVPolicy("full", on_chip=32)),
)


def agreement(pair: Pair, context: int, new_tokens: int = 128) -> str:
    """How often mspeckv's greedy tokens are autoregressive's in half precision, same policy.

    Passes of one and of nine tokens round differently, so ties fall either way; and after the
    first one the texts go on apart.
    """
    assert pair.tokenizer is not None
    prompt = load_document("python-reference", pair.tokenizer, context)
    rows = []
    for name, policy in AGREEMENT:
        found = {}
        for method in ("autoregressive", "mspeckv"):
            case = Case("", method, policy, new_tokens=new_tokens, skip=1)
            found[method] = run(pair, prompt, case)
        one, other = found["autoregressive"], found["mspeckv"]
        same = sum(a == b for a, b in zip(one.tokens, other.tokens, strict=True))
        rows.append((name, same / new_tokens, first_difference(one, other)))
    headers = ("KV", "tokens that agree", "first difference")
    return f"Agreement in float16, {context} + {new_tokens} (measured)\n{table(headers, rows)}"


def of_parts(
    parts: Sequence[str], contexts: Sequence[int]
) -> Iterator[tuple[str, int, list[Case]]]:
    """The tables asked for: part, context, cases."""
    if "a1" in parts:
        for context in contexts:
            yield "a1", context, a1()
    for part, context, chosen in (("a2", 16384, a2()), ("b1", 16384, b1()), ("b2", 8192, b2())):
        if part in parts:
            yield part, context, chosen
