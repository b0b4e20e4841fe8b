"""Distillation of drafts, step by step; `tools/train_draft.py` is the command."""
