"""Moving shapes: a small, seeded, synthetic dataset of videos with text labels, rendered on demand."""
