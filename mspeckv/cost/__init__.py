"""Words around `mspeckv.whatif`: ``mspeckv whatif`` and ``mspeckv plan``."""
