"""Compiles the image tower for training: as a whole, or block by block if its weights are sharded."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from openxclip.models.vision import VisionTransformer
from openxclip.training.options import Compile, Sharding


def compile_tower(tower: VisionTransformer, compile: Compile, sharding: Sharding) -> bool:
    """Compile the tower on its first call, if requested -> whether it is compiled.

    The whole graph is compiled: code that cannot be compiled is an error.
    """
    is_wanted = compile == "on" or (compile == "auto" and tower.position_embedding.device.type == "cuda")
    if is_wanted:
        # Sharded weights are gathered between blocks, outside the model's code.
        for module in tower.blocks if sharding == "blocks" else (tower,):
            module.compile(fullgraph=True, dynamic=False)
    return is_wanted


@contextmanager
def without_compiling() -> Iterator[None]:
    """Context in which compiled modules run eagerly: validation batches would trigger recompilation."""
    with torch.compiler.set_stance("force_eager"):
        yield
