"""Predictions from a model and labels."""
