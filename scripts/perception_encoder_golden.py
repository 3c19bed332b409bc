"""Make `tests/goldens/perception_encoder`: a tiny random Perception Encoder, and what open_clip computes from it.

Needs open_clip_torch and timm, which the project does not (made with 3.3.0 and 1.0.31).
"""

import json
from pathlib import Path
from typing import Any

import timm.models.eva
import torch
from open_clip.model import CustomTextCLIP
from safetensors.torch import save_file

FOLDER = Path(__file__).parents[1] / "tests" / "goldens" / "perception_encoder"
NAME = "vit_pe_core_tiny_patch16_384"
TINY_NAME = "vit_pe_core_tiny_patch8_32"  # what timm would call it with our sizes
MODEL: dict[str, Any] = {
    "embed_dim": 48,
    "vision_cfg": {
        "image_size": 32,
        "timm_model_name": NAME,
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": None,
    },
    "text_cfg": {"context_length": 12, "vocab_size": 600, "width": 32, "heads": 2, "layers": 2},
}
PREPROCESSING = {
    "size": [32, 32],
    "mode": "RGB",
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "interpolation": "bilinear",
    "resize_mode": "squash",
}
# Everything that tells the kind apart stays as the name says; only the sizes are made tiny.
SIZES = {
    "embed_dim": 64,
    "depth": 2,
    "num_heads": 1,
    "patch_size": 8,
    "img_size": 32,
    "ref_feat_shape": (4, 4),
}


def main() -> None:
    torch.manual_seed(0)
    model = tiny_model()
    pixels = torch.randn(3, 3, 32, 32)
    tokens = torch.randint(1, 598, (5, 12))
    tokens[:, -3], tokens[:, -2:] = 599, 0
    with torch.no_grad():
        golden = {
            "pixels": pixels,
            "token_ids": tokens,
            "image_features": model.encode_image(pixels),
            "text_features": model.encode_text(tokens),
            "logits": model.get_logits(pixels, tokens)[0],
        }
    FOLDER.mkdir(parents=True, exist_ok=True)
    vision = MODEL["vision_cfg"] | {"timm_model_name": TINY_NAME}
    model_config = MODEL | {"vision_cfg": vision, "custom_text": True}
    config = {"model_cfg": model_config, "preprocess_cfg": PREPROCESSING}
    (FOLDER / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, FOLDER / "open_clip_model.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in golden.items()}, FOLDER / "golden.safetensors")


def tiny_model() -> CustomTextCLIP:
    """With noise on every parameter, rounded to what half precision holds, so that the file can be small."""
    build = timm.models.eva._create_eva

    def tiny(variant: str, pretrained: bool = False, **settings: Any) -> torch.nn.Module:
        return build(variant, pretrained=pretrained, **settings | SIZES)

    timm.models.eva._create_eva = tiny
    model = CustomTextCLIP(**MODEL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noisy = parameter + 0.1 * torch.randn_like(parameter)
            parameter.copy_(noisy.half().float())
    return model


if __name__ == "__main__":
    main()
