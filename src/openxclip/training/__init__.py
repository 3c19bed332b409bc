"""The optimizer, the loop, and the folder of a run."""
