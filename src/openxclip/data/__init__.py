"""Manifests, label sets, prompt templates and training clips."""
