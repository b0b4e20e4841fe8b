"""Explorers: one idea of the engine, looked at step by step, without a run.

Each is two modules: the explorer, which holds controls and state, and its charts, which draw.
"""
