"""What to expect of each lab, and which misconception to probe for: for instructors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Probe:
    """A lab in class.

    Attributes:
        lab: its two digits.
        expect: what students should find.
        probe: what they tend to believe instead, and how to ask.
    """

    lab: str
    expect: str
    probe: str


PROBES: tuple[Probe, ...] = (
    Probe(
        "00",
        "46 KB per token; int8 is a *little more* than a quarter; about 2 to 4 tokens a trip",
        '"Quantization and guessing save the same thing": one makes trips smaller, the other '
        'fewer. "Faster, so better": ask for the control, all KV on the device',
    ),
    Probe(
        "01",
        "bytes per round equal with and without guesses; at resident 8, 7/15 of the bytes; "
        "kept tokens level off with gamma",
        '"The cache will hit most of the time": a cyclic scan defeats it. "Gamma 16 keeps '
        'twice as many as 8"',
    ),
    Probe(
        "02",
        "K per channel, V per token; int8 is nearly free, int2 is not; step = range / (2^b - 1)",
        '"Smaller mean error is better": attention weighs tokens; judge by acceptance. "2^b '
        'steps": the largest value needs a code too',
    ),
    Probe(
        "03",
        "residual of the example: A 3/4, C 1/4; expected tokens 1 + a + ... + a^gamma",
        '"A rejected token is redrawn from p": that counts p\'s mass twice. "A better draft '
        'deserves longer guesses": only at the same cost',
    ),
    Probe(
        "04",
        "tier 0 cannot know the needle; few heads keep all of it; half of the prompt captures"
        " 90 % of the mass",
        '"Tier 1 sees less, so it is a worse model": it is the target, on less context. "90 %'
        ' of the mass is 90 % of the acceptance"',
    ),
    Probe(
        "05",
        "streamed: `kv/fetch`; long guesses: `tier1/draft`; packed residents: `kv/packed`, or"
        " `kv/dequantize` where there is no compiler",
        '"A busy link is the bottleneck": only what compute waits for counts. Adding up '
        "`total ms` counts waits twice",
    ),
    Probe(
        "06",
        "KV bytes over bandwidth is a lower bound; overheads and overlap make the rest",
        '"The curve goes through the points, so the model is right": count what was fitted',
    ),
    Probe(
        "07",
        "int4 lets nearly all of it stay, so guessing adds 1.2 of 63 times; at int8 KV "
        "streams, and three tiers win",
        '"More memory is faster": only until nothing streams. "The method with most tiers '
        'wins": only where KV does not fit',
    ),
    Probe(
        "08",
        "link time grows with the context, arithmetic does not, so the speed-up grows; the "
        "control takes most of it back",
        '"14 times faster": than a comparator that streams 15 layers while the method streams none',
    ),
    Probe(
        "09",
        "15 resident: nothing streams; quantization alone gains far less than its bytes",
        '"int8 is four times as fast". "46 % between two cells is an effect": the cells were '
        "the same setting",
    ),
    Probe(
        "10",
        "a cliff under LRU where all packed layers fit, none under static places",
        '"The method needs 16 layers on-chip": the cache does',
    ),
    Probe(
        "11",
        "no trend that stands out of three seeds; short outputs are few rounds",
        '"More tokens, better average" without asking for the spread',
    ),
    Probe(
        "12",
        "guessing changes no word even with random weights; a policy with queries beats one "
        "without",
        '"Kept guesses per round is the acceptance": lengths are clipped',
    ),
)
