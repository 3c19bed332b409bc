"""One file for each format a model can be stored in."""
