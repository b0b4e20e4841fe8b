"""Does what `decoding` and `kv` do, only faster: each file may be deleted.

A file's ``plug`` takes the hooks as they are and returns them with its own in place
(`mspeckv.decoding.hooks.Hooks`); `mspeckv.api` chooses which are called on this machine.
"""
