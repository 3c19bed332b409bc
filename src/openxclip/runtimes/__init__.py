"""The image tower as an interchangeable part."""
