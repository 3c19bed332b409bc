"""The model is plain torch: hooks and wrapped layers work in training, compilers and exporters see all of it."""

import dataclasses
import os

import pytest
import torch
from tiny import TINY, tiny_model, tiny_pixels, tiny_tokens
from torch import Tensor, nn
from torch.testing import assert_close

from openxclip.models import XCLIP, preset

# torch's own, while it compiles or exports
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")
]

LAYERS = ("intra_norm", "intra_attn.qkv", "cross_attn.qkv", "mlp_norm", "mlp.fc1", "mlp.fc2")


class LoRA(nn.Module):
    """A frozen linear layer and a low-rank update beside it (Hu et al. 2021), as adapter libraries wrap layers."""

    def __init__(self, linear: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) * 0.1)
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + x @ self.down.T @ self.up.T


def with_lora(model: XCLIP) -> list[LoRA]:
    """Wrap every `qkv` and `fc1` of the image tower in place."""
    adapters = []
    for block in model.visual.blocks:
        for parent, name in ((block.intra_attn, "qkv"), (block.mlp, "fc1")):
            adapters.append(LoRA(getattr(parent, name)))
            setattr(parent, name, adapters[-1])
    return adapters


def loss_of(model: XCLIP) -> Tensor:
    logits = model(tiny_pixels(), tiny_tokens())
    return torch.nn.functional.cross_entropy(logits, torch.tensor([0, 3]))


@pytest.mark.parametrize("training", [True, False])
def test_forward_hooks_fire(training: bool) -> None:
    model = tiny_model().train(training)
    fired: list[str] = []
    for name, module in model.visual.named_modules():
        if name.endswith(LAYERS):
            module.register_forward_hook(lambda *_, name=name: fired.append(name))
    with torch.set_grad_enabled(training):
        loss_of(model)
    assert sorted(fired) == sorted(f"blocks.{i}.{name}" for i in range(2) for name in LAYERS)


def test_a_lora_wrapper_learns_and_is_used_in_training_and_in_eval() -> None:
    model = tiny_model().requires_grad_(False)
    adapters = with_lora(model)
    before = loss_of(model.train()).item()
    optimizer = torch.optim.SGD([p for adapter in adapters for p in (adapter.down, adapter.up)], lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
    assert all(adapter.up.grad.abs().max() > 0 for adapter in adapters)
    after = loss_of(model).item()
    assert after < before - 0.01
    with torch.no_grad():
        assert loss_of(model.eval()).item() == pytest.approx(after, abs=1e-5)


@pytest.mark.skipif(
    os.environ["OPENXCLIP_DEVICE"] == "fenced", reason="dynamo does not trace under the fence's dispatch mode"
)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_the_image_tower_compiles_without_a_graph_break(training: bool, checkpointing: bool) -> None:
    """Counted by dynamo; drop path draws in training."""
    torch._dynamo.reset()
    vision = dataclasses.replace(TINY.vision, drop_path=0.2)
    model = tiny_model(dataclasses.replace(TINY, vision=vision)).train(training)
    model.visual.gradient_checkpointing = checkpointing and training
    with torch.set_grad_enabled(training):
        explained = torch._dynamo.explain(model.encode_video)(tiny_pixels())
    assert explained.graph_break_count == 0, explained.break_reasons
    assert explained.graph_count == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compiled_image_tower_trains_with_the_gradients_of_the_plain_one(dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    model = tiny_model().train()
    gradients = []
    for encode in (model.encode_video, torch.compile(model.encode_video, backend="aot_eager")):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            features = encode(tiny_pixels())
            sum(feature.float().square().mean() for feature in features).backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    plain, compiled = gradients
    assert plain.keys() == compiled.keys()
    for name, expected in plain.items():
        tolerance = 1e-5 if dtype == torch.float32 else 0.05
        assert_close(compiled[name], expected, rtol=0, atol=tolerance * (1 + expected.abs().max().item()))


def test_the_video_encoder_of_b32_8_is_exported_for_any_number_of_videos() -> None:
    torch.manual_seed(0)
    model = XCLIP(preset("B/32-8")).eval()
    encoder = VideoEncoder(model)
    batch = torch.export.Dim("num_videos", min=1, max=64)
    pixels = torch.randn(3, 8, 3, 224, 224)
    exported = torch.export.export(encoder, (pixels[:2],), dynamic_shapes={"pixels": {0: batch}})
    with torch.no_grad():
        for videos in (pixels, pixels[:1]):
            for found, expected in zip(exported.module()(videos), encoder(videos), strict=True):
                assert_close(found, expected, rtol=0, atol=1e-4)


class VideoEncoder(nn.Module):
    """`encode_video` as a module's forward, which is what torch.export takes."""

    def __init__(self, model: XCLIP) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.encode_video(pixels)
        return features.video, features.patches
