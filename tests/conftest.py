"""Shared pytest set-up."""

import os

# Before torch is imported: threads that wait busily starve whatever shares the machine, the tests' own
# subprocesses and decoder threads included (a training step took 20 times as long beside a busy process).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
