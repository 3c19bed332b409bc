"""Experiments: many runs of one recipe, and the table and picture that compare them."""
