"""Lets code that is not ours decode through our tiers."""
