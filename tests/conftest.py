"""Shared pytest set-up: `pythonpath` of the helpers and two threads for every test process."""

import torch

torch.set_num_threads(min(2, torch.get_num_threads()))
