"""Models on disk: four formats can be read, two can be written."""
