"""Moving shapes: a small, seeded world of videos with language labels, rendered on demand."""
