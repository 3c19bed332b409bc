"""Interchangeable runtimes of the image tower."""
