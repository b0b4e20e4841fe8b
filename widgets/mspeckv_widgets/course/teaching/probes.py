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
        "46 KB per token, as much as the packed weights at 2,307 tokens; int8 is a *little more*"
        " than a quarter (8.5 bits of 32); 5.3 tokens a trip (16 tokens in 3 trips, counted)",
        '"Quantization and guessing save the same thing": one makes trips smaller, the other'
        ' fewer. "Faster, so better": ask for the control, all KV on the device',
    ),
    Probe(
        "01",
        "bytes per round equal with and without guesses, so the factor is kept guesses plus"
        " one; at resident 8, 7/15 of the bytes; kept guesses level off with gamma",
        '"The cache will hit most of the time": a cyclic scan defeats it. "Gamma 16 keeps twice'
        ' as many as 8"',
    ),
    Probe(
        "02",
        "K per channel, V per token (0.86 against 0.68 in int2, by the larger error); a KIVI"
        " codec of one's own: 4.5 bits, acceptance 0.972; turned codes win in int2 only",
        '"Smaller mean error is better": attention weighs tokens; judge by acceptance. "2^b'
        ' steps": the largest value needs a code too',
    ),
    Probe(
        "03",
        "residual of the example: A 3/4, C 1/4; rounds at gamma 1, 4, 12: manual 19, 13, 12,"
        " sums 16, 7, 3; blue draws one u for a whole round",
        '"A rejected token is redrawn from p": that counts p\'s mass twice. "The first token is'
        ' right, so the loop is right": count texts of two. "A better draft deserves longer'
        ' guesses": only at the same cost',
    ),
    Probe(
        "04",
        "tier 0 sees none of the needle; 7 of 90 heads keep all of it, and tier 1 writes its"
        " four digits in one round; hidden at depth 0.5, no head keeps the digits and tier 2"
        " writes two of them; half of the prompt captures 90 % of the mass",
        '"Tier 1 sees less, so it is a worse model": it is the target, on less context. "90 %'
        ' of the mass is 90 % of the acceptance"',
    ),
    Probe(
        "05",
        "streamed: `kv/fetch`; enough slots fill the link's hole; long guesses:"
        " `tier1/verify`, by packed weights near the ridge or right of it; packed residents:"
        " `kv/packed`, or `kv/dequantize` where there is no compiler",
        '"A busy link is the bottleneck": only what compute waits for counts. Adding up `total'
        ' ms` counts waits twice. "Operations per byte of KV": weights are read too, and are'
        " most of it",
    ),
    Probe(
        "06",
        "10.45 ms is the bound, 5.3 times as long with a quarter of the KV on the host; two"
        " numbers were fitted, and one choice of fit was made (8.5 % or 19.1 % off); KV"
        " overtakes this pair's weights at 2,134 tokens packed, at 11,677 as float32",
        '"The curve goes through the points, so the model is right": count what was fitted, and'
        " what was chosen",
    ),
    Probe(
        "07",
        "int4 lets nearly all of it stay, so guessing adds 1.2 of 63 times; at int8 KV streams,"
        " and three tiers win; the planner's mean over the four cards of exercise 2 is 24.2 ms",
        '"More memory is faster": only until nothing streams. "The method with most tiers'
        ' wins": only where KV does not fit',
    ),
    Probe(
        "08",
        "link time grows with the context, arithmetic does not, so the speed-up grows; over"
        " plain decoding with the same bytes on the device no gain of `mspeckv` is shown;"
        " guessing and keeping save the same waits, so their gains do not multiply",
        '"24 times faster": than a comparator that streams 15 layers while the method streams'
        ' none. "Not shown is refuted": more repeats may show it',
    ),
    Probe(
        "09",
        "packing gives more than keeping, the opposite of the published table, where floats"
        " have two bytes; eleven configurations hide in 36 cells",
        '"The range of three runs is a 95 % interval": it holds the median in 75 %. "46 %'
        ' between two cells is an effect": the cells were the same setting',
    ),
    Probe(
        "10",
        "a cliff under LRU where all packed layers fit, none under fixed places; under two"
        " budgets: no layer on-chip, ten resident, long rounds",
        '"The method needs 16 layers on-chip": the cache does',
    ),
    Probe(
        "11",
        "no change is shown; short outputs are few rounds, and the last is cut",
        '"The intervals overlap, so nothing changed": pair the repeats',
    ),
    Probe(
        "12",
        "guessing changes no word even with random weights; a policy with queries beats one"
        " without, on hidden documents too (60 % kept with exercise 3's, 30 % with the"
        " control); a pass of tier 1 reads alike with each policy, a token does not",
        '"Kept guesses per round is the acceptance": lengths are clipped. "The same budget, so'
        ' the same bytes": per pass, not per token',
    ),
    Probe(
        "13",
        "the draft over everything dies past its 512 trained tokens; a window lives; one token"
        " too far kills, many near ones do not",
        '"It drowns in too many tokens": a mask with 129 of them kills it. "More context,'
        ' better guesses". "The rate falls, so guessing pays less": the pass it saves grows'
        " dearer",
    ),
    Probe(
        "14",
        "no greedy test finds either liar; one is wrong after rejections alone, one repeats"
        " itself in every other long text; half the difference takes four times the samples",
        '"Greedy text is equal, so it is lossless": ask above temperature 0. "200 samples and'
        ' nothing seen": which fault would 200 have shown? "The p-value is small now, so stop":'
        " only a test that may be looked at",
    ),
)
