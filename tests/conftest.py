"""Shared pytest set-up."""

import os
import tempfile

# Before torch is imported: threads that wait busily starve whatever shares the machine, the tests' own
# subprocesses and decoder threads included (a training step took 20 times as long beside a busy process).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Before the command is imported: what it keeps for the next time must not land in the home of whoever runs the tests.
os.environ["OPENXCLIP_CACHE"] = tempfile.mkdtemp(prefix="openxclip-tests-")

# What device="auto" means in the tests: the CPU, whatever the machine has, unless the caller says otherwise.
os.environ.setdefault("OPENXCLIP_DEVICE", "cpu")
if os.environ["OPENXCLIP_DEVICE"] == "fenced":
    import fenced_device

    fenced_device.install()
