"""A calibration as a file: channel factors as tensors, everything else as JSON metadata."""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from openxclip.configuration import from_dict
from openxclip.errors import InputError
from openxclip.files import atomic_write
from openxclip.models import XCLIP
from openxclip.runtimes.calibration import BOUND, Calibration, LayerReport, calibrate
from openxclip.runtimes.calibration_clips import calibration_clips
from openxclip.runtimes.graphs import kept, video_key
from openxclip.runtimes.quantisation import LayerRange, largest_weight
from openxclip.video.transforms import Preprocessor

NAME = "calibration.safetensors"


def kept_calibration(
    model: XCLIP, preprocess: Preprocessor, clips: Path | None, bound: float = BOUND
) -> Calibration:
    """The ranges of a model from these clips (see `calibration_clips`), measured once and cached.

    Raises:
        InputError: as in `calibrate` and `calibration_clips`.
    """

    def write(folder: Path) -> None:
        found = calibration_clips(clips, preprocess, model.config.num_frames)
        save_calibration(calibrate(model, preprocess, found, bound), folder / NAME)

    key = video_key(model, preprocess, identity(clips), bound, largest_weight())
    found = kept("calibrations", key, write)  # holds the folder until it is read
    return load_calibration(found.folder / NAME)


def identity(clips: Path | None) -> tuple[str, ...]:
    """A key that distinguishes calibration lists, and versions of one list.

    For a folder, the sizes and times of its files count; for a list, its own, not those of its videos.
    """
    if clips is None:
        return ()
    files = [clips] if clips.is_file() else sorted(path for path in clips.rglob("*") if path.is_file())
    stats = [(path, path.stat()) for path in files]
    return str(clips.resolve()), *(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats)


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration atomically."""
    ranges = {layer: (one.low, one.high) for layer, one in calibration.ranges.items()}
    head = {
        "noise": calibration.noise,
        "ranges": ranges,
        "layers": [asdict(one) for one in calibration.layers],
    }
    factors = {layer: one.smoothing for layer, one in calibration.ranges.items() if one.smoothing is not None}
    with atomic_write(path) as temporary:
        save_file(factors, temporary, metadata={"calibration": json.dumps(head)})


def load_calibration(path: Path) -> Calibration:
    """The inverse of `save_calibration`.

    Raises:
        InputError: the file is not a calibration, or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            head = json.loads(file.metadata()["calibration"])
            factors = {layer: file.get_tensor(layer) for layer in list(file.keys())}
        ranges = {
            layer: LayerRange(low=low, high=high, smoothing=factors.get(layer))
            for layer, (low, high) in head["ranges"].items()
        }
        layers = tuple(from_dict(LayerReport, one) for one in head["layers"])
        return Calibration(ranges=ranges, layers=layers, noise=head["noise"])
    except Exception as error:  # safetensors, JSON and missing keys raise different errors
        raise InputError(f"{path} is not a readable calibration ({error}); remove it") from error
