"""Models on disk: read from four formats, written in two."""
