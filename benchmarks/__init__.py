"""Ours against the alternatives, measured side by side: `python -m benchmarks`, or `make bench`."""
