"""Ours against what one would take otherwise, measured side by side: `python -m benchmarks`, or `make bench`."""
