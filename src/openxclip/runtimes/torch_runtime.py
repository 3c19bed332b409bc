"""The image tower in torch: eager, compiled, or with int8 products."""

import copy

import torch
from torch import Tensor, nn

from openxclip.models import XCLIP, VideoFeatures
from openxclip.models.merging import check_merging
from openxclip.runtimes.int8 import use_int8
from openxclip.runtimes.options import RuntimeOptions
from openxclip.video.transforms import Preprocessor


class TorchRuntime:
    """Runs a copy of the model that reads raw pixels; the model itself is not changed."""

    def __init__(self, model: XCLIP, preprocess: Preprocessor, options: RuntimeOptions) -> None:
        """
        Raises:
            InputError: `options.int8` and the model is not on a CPU, or more tokens are to be merged than there are.
        """
        self.device = model.logit_scale.device
        self.dtype = model.logit_scale.dtype
        check_merging(options.merge_tokens, model.config.vision)
        tower = fold_normalisation(model, preprocess)
        tower.visual.num_merged = options.merge_tokens
        if options.num_threads is not None:
            torch.set_num_threads(options.num_threads)  # for the whole process: torch has no finer setting
        if options.int8:
            use_int8(tower)
        self._encode_video = tower.encode_video
        if options.compile:
            # CUDA graphs reuse their output memory in the next call. The logits made of it are copies.
            mode = "reduce-overhead" if self.device.type == "cuda" else "default"
            self._encode_video = torch.compile(tower.encode_video, mode=mode)

    @torch.inference_mode()
    def encode_video(self, pixels: Tensor) -> VideoFeatures:
        """Cropped frames uint8 (B, T, 3, S, S) on the CPU -> features on `device`."""
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()  # only a copy from pinned memory is asynchronous
        # Every value of 0..255 is exact in all dtypes of a model.
        return self._encode_video(pixels.to(self.device, non_blocking=True).to(self.dtype))


@torch.no_grad()
def fold_normalisation(model: XCLIP, preprocess: Preprocessor) -> XCLIP:
    """A model that takes pixels of 0..255, cast to its dtype, instead of `model`'s normalised ones.

    (pixels / 255 - mean) / std is linear, and so is the projection W x + b of the patches: W / (255 std) and
    b - W mean / std do the same. All other parameters are shared with `model`, not copied.
    """
    folded = copy.deepcopy(model, memo={id(parameter): parameter for parameter in model.parameters()})
    patches = model.visual.patch_embedding
    weight = patches.weight.float()  # (D, 3, P, P)
    mean, std = (
        torch.tensor(values).view(3, 1, 1).to(weight.device) for values in (preprocess.mean, preprocess.std)
    )
    bias = -(weight * (mean / std)).sum(dim=(1, 2, 3))
    if patches.bias is not None:
        bias += patches.bias.float()
    side = weight.shape[-1]
    projection = nn.Conv2d(3, len(weight), side, side, device=weight.device, dtype=patches.weight.dtype)
    projection.load_state_dict({"weight": weight / (255 * std), "bias": bias})
    folded.visual.patch_embedding = projection.requires_grad_(False)
    return folded
