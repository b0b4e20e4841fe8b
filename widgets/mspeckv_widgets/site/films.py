"""Recorded rounds for a page: the lab's moving picture, with all that its script asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mspeckv import Round
from mspeckv_study.whatif import MODELS
from mspeckv_widgets.charts.story import split_text
from mspeckv_widgets.panels.moving.moving_round import MODULE, MovingRound
from mspeckv_widgets.panels.moving.page import caption_of
from mspeckv_widgets.recording import Recording

RUNS = Path(__file__).parent / "runs"
PROMPT = "prompt.txt"
"""In the same folder: how the prompt ends."""
TARGET = "smollm2-135m"
WAYS = {
    "mspeckv": "three tiers",
    "vanilla": "a draft and the target",
    "autoregressive": "the target alone",
}
"""Recorded methods, and what guesses in each; `tools.record_site_runs` records them."""


def page_data() -> list[dict[str, Any]]:
    """Every recorded run: what the picture's script is told, its text by tier, and its sums."""
    return [_film(method, words) for method, words in WAYS.items()]


def _film(method: str, words: str) -> dict[str, Any]:
    found = Recording.load(RUNS / f"{method}.json.gz")
    rounds = [event for event in found.events if isinstance(event, Round)]
    config = found.setting.config
    places = config.policy.placement(MODELS[TARGET].layers)
    picture = MovingRound(found.events, found.pieces, places).picture
    picture.caption = caption_of("emulated")
    tokens = [token for one in rounds for token in one.tokens]
    tiers = [tier for one in rounds for tier in one.settled_by]
    of_round = [at for at, one in enumerate(rounds) for _ in one.tokens]
    texts = dict(split_text(found.pieces, tokens))
    moved = sum(t.bytes for one in rounds for t in one.transfers if t.direction == "to_device")
    return {
        "method": method, "words": words,
        "state": {
            name: getattr(picture, name)
            for name in ("stages", "rounds", "count", "shown", "over", "caption", "drawn")
        },
        "before": (RUNS / PROMPT).read_text(encoding="utf-8"),
        "text": [[texts.get(at, ""), tiers[at], of_round[at]] for at in range(len(tokens))],
        "prompt": found.setting.prefill, "places": places, "bits": config.policy.bits,
        "link_bytes_per_token": moved / len(tokens),
        "rounds": len(rounds), "tokens": len(tokens),
    }  # fmt: skip


def player() -> str:
    """The moving picture's own script, as one that a page may load from a file."""
    text = "".join(path.read_text(encoding="utf-8") for path in MODULE)
    last = "export default hearing("
    assert text.count(last) == 1
    # a page of files loads no modules: what the module gives away, the page keeps by a name
    return f"const movingRound = (() => {{\n{text.replace(last, 'return (')}}})();\n"
