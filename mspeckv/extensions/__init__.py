"""Methods of later papers, each one file, each through a door of `mspeckv.kv.door`.

The engine knows none of them by name: it decodes without this folder. `mspeckv.api` imports what is
in it, so that settings can name it. See docs/extending.md for how one is written.
"""

from mspeckv.extensions import attended_tokens, hot_chunks, rotated_codec

__all__ = ["attended_tokens", "hot_chunks", "rotated_codec"]
