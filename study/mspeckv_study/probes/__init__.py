"""Looking glasses: what a model's keys, attention and next tokens are, to see without a run."""
