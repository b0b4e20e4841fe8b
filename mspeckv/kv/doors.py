"""Five doors: what a codec, a placement, a chunk policy, a tier-1 cache or a guesser comes in by.

Each is a table from names to makers, and a setting that holds such a name:

    codecs        KVPolicy.codec          how a block of KV becomes bytes (`mspeckv.kv.codec.Codec`)
    placements    KVPolicy.elsewhere      where a layer's KV lies (`mspeckv.kv.layers.PlacedLayer`)
    policies      Speculation.retrieval   by what chunks are chosen (`mspeckv.retrieval`)
    tier1_caches  Speculation.tier1       what tier 1 reads (`mspeckv.kv.tier1.Tier1Cache`)
    guessers      Speculation.tier0       who guesses first (`mspeckv.decoding.speculate.Level`)

A new one is a file and a line, as in `mspeckv.extensions`:

    @mspeckv.doors.codecs.register("mine")
    class MyCodec(Codec): ...

    mspeckv.generate(pair, prompt, policy=KVPolicy(bits=4, codec="mine"))

The engine looks a name up when a run is checked, before anything is allocated. `mspeckv.testing`
holds the tests that such a thing must pass, docs/extending.md the recipe.
"""

from __future__ import annotations

from typing import Any

from mspeckv.kv import chunk_policies as policies
from mspeckv.kv.codec import codecs
from mspeckv.kv.door import Door
from mspeckv.kv.placement import placements
from mspeckv.kv.tier1 import tier1_caches

__all__ = ["codecs", "guessers", "placements", "policies", "tier1_caches"]

guessers: Door[Any] = Door("tier0")
"""Called with a `Speculation`, the vocabulary's size and the device; return a level."""
