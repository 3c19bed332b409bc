"""The models that can be loaded by name: their sizes against published counts, and `openxclip models`."""

import contextlib
import io
import json
from pathlib import Path

import cost_page
import pytest
import torch

from openxclip.checkpoints import shipped
from openxclip.checkpoints.catalogue import known_families
from openxclip.cli.main import run
from openxclip.models import XCLIP

PAGE = Path(__file__).parents[1] / "docs" / "models.md"

CONFIGS = {source: config for family in known_families() for source, config in family.models.items()}

# Millions of parameters, and GFLOPs of an image (a multiply-add counts two): open_clip's docs/model_profile.csv.
PUBLISHED_SIZES = {
    "openai/clip-vit-base-patch32": (151.28, 8.82),
    "openai/clip-vit-base-patch16": (149.62, 35.13),
    "openai/clip-vit-large-patch14": (427.62, 162.03),
    "openai/clip-vit-large-patch14-336": (427.94, 381.92),
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": (151.28, 8.82),
    "laion/CLIP-ViT-B-16-laion2B-s34B-b88K": (149.62, 35.13),
    "laion/CLIP-ViT-L-14-laion2B-s32B-b82K": (427.62, 162.03),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": (986.11, 334.59),
    "laion/CLIP-ViT-g-14-laion2B-s34B-b88K": (1366.68, 534.06),
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": (2539.57, 967.5),
    "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K": (151.28, 8.82),
    "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K": (149.62, 35.13),
    "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K": (427.62, 162.03),
    "facebook/metaclip-b32-400m": (151.28, 8.82),
    "facebook/metaclip-b16-400m": (149.62, 35.13),
    "facebook/metaclip-l14-400m": (427.62, 162.03),
    "facebook/metaclip-h14-fullcc2.5b": (986.11, 334.59),
    "apple/DFN2B-CLIP-ViT-B-16": (149.62, 35.13),
    "apple/DFN2B-CLIP-ViT-L-14": (427.62, 162.03),
    "apple/DFN5B-CLIP-ViT-H-14": (986.11, 334.59),
    "google/siglip-base-patch16-224": (203.16, 35.42),
    "google/siglip-base-patch16-256": (203.2, 46.82),
    "google/siglip-large-patch16-256": (652.15, 162.56),
    "google/siglip-large-patch16-384": (652.48, 383.85),
    "google/siglip-so400m-patch14-384": (877.96, 670.35),
    # That file has no SigLIP 2. Its image towers are SigLIP's; parameters as in the models of open_clip 3.3.0.
    "google/siglip2-base-patch16-224": (375.19, 35.42),
    "google/siglip2-large-patch16-256": (881.53, 162.56),
    "google/siglip2-so400m-patch14-224": (1135.46, 220.35),
    "google/siglip2-so400m-patch14-384": (1136.01, 670.35),
    "google/siglip2-so400m-patch16-384": (1136.04, None),
}

# Billions of parameters of the image tower: the model cards of facebook/PE-Core-B16-224 and -L14-336. Millions of the
# whole: the models of open_clip 3.3.0.
PERCEPTION_ENCODERS = {"timm/PE-Core-B-16": (0.09, 447.66), "timm/PE-Core-L-14-336": (0.32, 671.14)}


@pytest.fixture(scope="module")
def rows() -> dict[str, dict]:
    """Facts by hub id."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert run(["models", "--json"]) == 0
    found = json.loads(out.getvalue())
    rows = {row["source"]: row for row in found}
    assert len(rows) == len(found) == len(CONFIGS), "every model is listed once"
    return rows


def test_the_sizes_of_all_image_models_are_checked() -> None:
    image_models = {source for source, config in CONFIGS.items() if config.is_image_model}
    assert image_models == PUBLISHED_SIZES.keys() | PERCEPTION_ENCODERS.keys()


@pytest.mark.parametrize("source", PUBLISHED_SIZES)
def test_an_image_model_is_as_large_and_costs_as_much_as_published(source: str, rows) -> None:
    million_parameters, gflops_per_image = PUBLISHED_SIZES[source]
    assert round(rows[source]["num_parameters"] / 1e6, 2) == million_parameters
    if gflops_per_image is not None:
        gmacs_per_image = rows[source]["gmacs_per_view"] / rows[source]["num_frames"]
        assert gmacs_per_image == pytest.approx(gflops_per_image / 2, rel=0.005)  # ours holds the labels, too


@pytest.mark.parametrize("source", PERCEPTION_ENCODERS)
def test_a_perception_encoder_is_as_large_as_published(source: str, rows) -> None:
    with torch.device("meta"):
        visual = XCLIP(CONFIGS[source]).visual
    billion_image_parameters, million_parameters = PERCEPTION_ENCODERS[source]
    assert round(sum(p.numel() for p in visual.parameters()) / 1e9, 2) == billion_image_parameters
    assert round(rows[source]["num_parameters"] / 1e6, 2) == million_parameters


def test_x_clip_is_as_large_as_published(rows) -> None:
    # "197M params" on the hub page of microsoft/xclip-base-patch32
    assert round(rows["microsoft/xclip-base-patch32"]["num_parameters"] / 1e6) == 197
    assert not any(CONFIGS[source].is_image_model for source in rows if source.startswith("microsoft/"))


def test_the_page_in_docs_is_current(rows, monkeypatch) -> None:
    monkeypatch.setattr(cost_page, "model_rows", lambda: list(rows.values()))
    assert PAGE.read_text(encoding="utf-8") == cost_page.models_page(), "run: python scripts/cost_page.py"
    for row in rows.values():
        assert f"| {row['source']} | {row['family']} |" in cost_page.models_page()
    assert (PAGE.parent / "results" / "flops.png").is_file()  # which the page shows


def test_listing_reads_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in shipped.shipped_folder("openxclip-tiny").iterdir():
        content = file.read_bytes() if file.name == "config.json" else b""
        (tmp_path / "openxclip-tiny").mkdir(exist_ok=True)
        (tmp_path / "openxclip-tiny" / file.name).write_bytes(content)
    monkeypatch.setattr(shipped, "ROOT", tmp_path)
    assert known_families()[0].models["openxclip-tiny"] == CONFIGS["openxclip-tiny"]
