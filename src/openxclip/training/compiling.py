"""The image tower compiled for training, whole, or block by block where its weights lie in parts."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from openxclip.models.vision import VisionTransformer
from openxclip.training.options import Compile, Sharding


def compile_tower(tower: VisionTransformer, compile: Compile, sharding: Sharding) -> bool:
    """Compile when it is called first, if that is wanted -> whether it is.

    Nothing of it stays outside of the compiled code: what could not be compiled would be an error.
    """
    is_wanted = compile == "on" or (compile == "auto" and tower.position_embedding.device.type == "cuda")
    if is_wanted:
        # In parts, weights are brought together between blocks, which is no code of the model's.
        for module in tower.blocks if sharding == "blocks" else (tower,):
            module.compile(fullgraph=True, dynamic=False)
    return is_wanted


@contextmanager
def without_compiling() -> Iterator[None]:
    """Within, compiled modules run as they are written: a validation's batches would be compiled anew."""
    with torch.compiler.set_stance("force_eager"):
        yield
