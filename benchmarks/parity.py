"""How far the image tower in other runtimes is from torch, at base size, for each family.

Shapes: B videos, K labels.
"""

from collections.abc import Mapping

import torch

from benchmarks.harness import command
from benchmarks.options import Options
from benchmarks.report import Section
from benchmarks.runtimes import clips_of
from benchmarks.weights import SCALE
from openxclip.checkpoints.catalogue import known_families
from openxclip.models import XCLIP
from openxclip.reports.table import Table
from openxclip.runtimes.options import RuntimeOptions
from openxclip.runtimes.runtime import build_runtime
from openxclip.video.transforms import Preprocessor

SUITE = "parity"
FAMILIES = {
    "X-CLIP B/32-8": "microsoft/xclip-base-patch32",
    "CLIP B/32": "openai/clip-vit-base-patch32",
    "SigLIP B/16": "google/siglip-base-patch16-224",
    "Perception Encoder B/16": "timm/PE-Core-B-16",
}


def run(options: Options) -> Section:
    """One table."""
    return Section(suite=SUITE, tables=(parity_table(base_models()),))


def base_models() -> dict[str, XCLIP]:
    """One of each family, with random weights and the logit scale of trained models."""
    configs = {name: config for family in known_families() for name, config in family.models.items()}
    found = {}
    for name, source in FAMILIES.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found[name] = XCLIP(configs[source]).eval()
        found[name].logit_scale.data.fill_(SCALE).log_()
    return found


@torch.inference_mode()
def parity_table(models: Mapping[str, XCLIP]) -> Table:
    """Logits by each runtime in float32 against torch."""
    rows = []
    for name, model in models.items():
        size = model.config.vision.image_size_px
        preprocess = Preprocessor.hugging_face(size)
        pixels = clips_of(model.config, 0, 2)
        generator = torch.Generator().manual_seed(0)
        text = torch.randn(101, model.config.embed_dim, generator=generator)
        logits = [
            model.logits(
                build_runtime(model, preprocess, RuntimeOptions(runtime=runtime)).encode_video(pixels), text
            )
            for runtime in ("torch", "onnx", "openvino")
        ]
        rows.append((name, *(f"{(found - logits[0]).abs().max().item():.1e}" for found in logits[1:])))
    return Table(
        title="Largest difference of logits from torch, float32",
        command=command(SUITE),
        columns=("model", "ONNX Runtime", "OpenVINO"),
        rows=tuple(rows),
        notes=(f"Two random scenes, 101 random texts, logit scale {SCALE:g}, random weights.",),
    )
