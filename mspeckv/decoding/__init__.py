"""Turns a prompt into exactly distributed tokens with plain torch.

Start with `speculate`: two classes, nested to any depth, are every method.
"""
