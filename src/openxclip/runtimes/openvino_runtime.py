"""The image tower in OpenVINO: the fastest on most of Intel's processors."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openxclip.errors import InputError, MissingExtraError
from openxclip.models import XCLIP, VideoFeatures
from openxclip.runtimes.exporting import as_features, exported_video_encoder
from openxclip.video.transforms import Preprocessor


class OpenVinoRuntime:
    """Runs a graph of the model; the model itself is not changed."""

    def __init__(self, model: XCLIP, preprocess: Preprocessor, cache: Path | None = None) -> None:
        """
        Args:
            model: on the CPU; in bfloat16 OpenVINO computes in that, else in float32.
            preprocess: of the model.
            cache: folder that keeps compiled graphs for the next run.

        Raises:
            MissingExtraError: OpenVINO is not installed.
            InputError: the model is on another device.
        """
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError("openvino", "openvino") from error
        check_cpu(model, "OpenVINO")
        self.device = torch.device("cpu")
        precision = "bf16" if model.logit_scale.dtype == torch.bfloat16 else "f32"
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        if cache is not None:
            settings["CACHE_DIR"] = str(cache)
        graph = openvino.convert_model(exported_video_encoder(model, preprocess))
        self._compiled = openvino.compile_model(graph, "CPU", settings)

    def encode_video(self, pixels: Tensor) -> VideoFeatures:
        """Cropped frames uint8 (B, T, 3, S, S) -> features in float32."""
        outputs = self._compiled(pixels.numpy(), share_inputs=True)
        return as_features(tuple(torch.from_numpy(outputs[i]) for i in range(len(self._compiled.outputs))))


def check_cpu(model: XCLIP, name: str) -> None:
    """Refuse a model that is elsewhere.

    Raises:
        InputError: it is.
    """
    if model.logit_scale.device.type != "cpu":
        raise InputError(
            f"{name} runs on the CPU here, and the model is on {model.logit_scale.device}: give --device cpu"
        )
