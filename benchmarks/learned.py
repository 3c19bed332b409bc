"""Learned models and clips with known labels, for suites that ask what a shortcut costs.

Shapes: B clips, V views, T frames, S input side.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.options import Options
from openxclip import load
from openxclip.checkpoints.load import Loaded
from openxclip.data.manifest import read_manifest
from openxclip.data.media import Manifest
from openxclip.data.moving_shapes import shapes_manifest
from openxclip.inference.views import Views, read_views
from openxclip.progress import progress_bar

SHIPPED, SHIPPED_LIST = "openxclip-tiny", "test-novel"
LEARNED_LIST = "test.txt"
LEARNED_VIEWS = Views(4, 3)


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A model and its test clips."""

    name: str
    loaded: Loaded
    labels: Sequence[str]
    pixels: Tensor
    """uint8 (B, V, T, 3, S, S)."""
    truth: Tensor
    """(B,)."""


def learned_models(options: Options) -> Iterator[Learned]:
    """The shipped model on rendered clips of new classes and, if given, a small one on real clips, with 4x3 views."""
    yield shipped_model()
    if options.learned is not None:
        real = read_manifest(options.data / "ucf8", list_name=LEARNED_LIST)
        yield _learned("ucf8_fewshot, real clips", str(options.learned), real, LEARNED_VIEWS)


def shipped_model() -> Learned:
    """openxclip-tiny on rendered clips of classes it never saw."""
    return _learned(SHIPPED, SHIPPED, shapes_manifest(SHIPPED_LIST), Views())


def _learned(name: str, source: str, test: Manifest, views: Views) -> Learned:
    loaded = load(source, device="cpu", dtype="float32")  # agreement must not depend on the processor
    num_frames = loaded.model.config.num_frames
    clips = []
    with progress_bar() as bar:
        task = bar.add_task(name, total=len(test.items), note="")
        for item in test.items:
            clips.append(read_views(item.media.read, loaded.preprocess, num_frames, views))
            bar.advance(task)
    truth = torch.tensor([item.label for item in test.items])
    return Learned(name=name, loaded=loaded, labels=test.labels, pixels=torch.stack(clips), truth=truth)
