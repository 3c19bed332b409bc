"""One call for a whole run: read and check the lists, start or resume, train, keep the best."""

from functools import partial
from pathlib import Path

from openxclip.checkpoints.device import resolve_device
from openxclip.checkpoints.formats.native import write_folder
from openxclip.checkpoints.load import Loaded, load, read_model
from openxclip.checkpoints.source import ModelSource
from openxclip.data.checks import check_training_clips
from openxclip.data.dataset import CachedFrames, DecodedFrames, FrameSource, TrainClips
from openxclip.data.descriptions import parse_descriptions
from openxclip.data.manifest import read_manifest
from openxclip.data.media import Manifest
from openxclip.data.moving_shapes import is_world
from openxclip.data.subsets import without_missing
from openxclip.errors import InputError
from openxclip.evaluation.evaluate import evaluate
from openxclip.inference.engine import Engine
from openxclip.inference.recognizer import Recognizer
from openxclip.inference.views import Views
from openxclip.models import XCLIP
from openxclip.models.expand import clip_only, expand
from openxclip.processes import Processes, check_has_gpu
from openxclip.shapes.splits import WORLD
from openxclip.text.descriptions import Descriptions, fingerprint
from openxclip.text.label_texts import LabelTexts
from openxclip.training.config import DataConfig, TrainConfig
from openxclip.training.determinism import determinism
from openxclip.training.fine_tuning import FineTuning
from openxclip.training.options import RunOptions
from openxclip.training.run_folder import RunFolder, TrainingState
from openxclip.training.start import starting_point
from openxclip.video.source import VideoLimits
from openxclip.video.transforms import TrainTransform


def train(
    config: TrainConfig,
    data: Path,
    output: Path,
    *,
    labels: str | None = None,
    media_root: Path | None = None,
    device: str = "auto",
    options: RunOptions | None = None,
) -> TrainingState:
    """Run a recipe on a data folder or list; the same call on an unfinished run resumes it.

    Args:
        config: the recipe.
        data: a list file or a folder (see `openxclip.data.manifest`).
        output: the folder of the run.
        labels: label set (see `openxclip.text.labels.parse_labels`), if not next to the list.
        media_root: where the videos are, if not next to the list.
        device: as `openxclip.load` takes it.
        options: settings that do not change the result.

    Raises:
        InputError: a list cannot be used, or `output` holds another run.
        TrainingError: the run cannot continue.
    """
    descriptions = parse_descriptions(config.descriptions)
    clips = read_manifest(data, list_name=config.data.train_list, labels=labels, media_root=media_root)
    val = None
    if config.data.val_list is not None:
        val = read_manifest(data, list_name=config.data.val_list, labels=labels, media_root=media_root)
    return train_on(
        config,
        clips,
        val,
        output,
        descriptions=descriptions,
        device=device,
        data=data_name(data),
        options=options,
    )


def data_name(data: Path) -> str:
    """The name of the data in a run's config.json: its absolute path, or the name of moving shapes."""
    return WORLD if is_world(data) else str(data.resolve())


def train_on(
    config: TrainConfig,
    clips: Manifest,
    val: Manifest | None,
    output: Path,
    *,
    descriptions: Descriptions | None,
    device: str = "auto",
    data: str,
    options: RunOptions | None = None,
) -> TrainingState:
    """`train` on manifests that are already read.

    Args:
        config: the recipe; the names of lists and descriptions in it are not used.
        clips: to train on.
        val: selects the best checkpoint, with the same labels; None keeps only the last.
        output: the folder of the run.
        descriptions: of the classes; they are read only here, so they cannot change during the run.
        device: as `openxclip.load` takes it.
        data: the name of the data in the run's config.json; a run can be resumed only with the same.
        options: settings that do not change the result.

    Raises:
        InputError: the clips cannot be used, or `output` holds another run.
        TrainingError: the run cannot continue.
    """
    found, missing = without_missing(clips, config.data.skip_missing)
    check_training_clips(found)
    if val is not None and val.labels != clips.labels:
        raise InputError(f"{val.name} and {clips.name} have different labels; give both the same labels.csv")
    texts = LabelTexts(labels=found.labels, templates=config.templates, descriptions=descriptions)
    about = {
        "data": data,
        "clips": found.fingerprint(),
        "labels": found.labels,
        "descriptions": fingerprint(found.labels, descriptions),
    }
    run = RunFolder(output)
    _check_same_clips(run.processes, found)
    with run.locked(), determinism(config.deterministic):
        state = run.processes.from_first(lambda: run.begin(config, about))
        if missing:
            run.log(step=state.step, missing=missing)
        is_new = state.step == 0
        return _fine_tuning(config, found, val, texts, run, is_new, device, options or RunOptions()).fit(
            state
        )


def _check_same_clips(processes: Processes, clips: Manifest) -> None:
    """Check that all processes have the same list, including missing videos: shares of a batch are positions in it."""
    found = set(processes.gathered((len(clips.items), clips.fingerprint())))
    if len(found) > 1:
        counts = ", ".join(str(count) for count, _ in sorted(found))
        raise InputError(
            f"the processes of this run find different clips in {clips.name} ({counts}); give all machines the same "
            "lists and videos"
        )


def _fine_tuning(
    config: TrainConfig,
    clips: Manifest,
    val: Manifest | None,
    texts: LabelTexts,
    run: RunFolder,
    is_new: bool,
    device: str,
    options: RunOptions,
) -> FineTuning:
    """The training, from its start or from the last checkpoint of the run."""
    place = resolve_device(device)
    if place.type == "cuda":
        check_has_gpu()
    start = starting_point(config, clips.labels) if is_new else _last(run)
    start.model.to(place)
    dataset = training_clips(config, clips, start)
    image_model = _image_model(config, start, run, is_new)
    validate = None if val is None else partial(_top1, start, val, texts, config.data)
    return FineTuning(config, start, dataset, texts, run, validate, image_model, options)


def training_clips(config: TrainConfig, clips: Manifest, start: Loaded) -> TrainClips:
    """The clips of the recipe, for the model that it starts from."""
    transform = _transform(config.data, start)
    frames = _frames(config.data, transform.short_side_px)
    return TrainClips(
        clips,
        frames,
        transform,
        config.num_frames,
        config.seed,
        config.data.dense_stride,
        config.data.augment,
    )


def _last(run: RunFolder) -> Loaded:
    """The last checkpoint of a run, on the CPU."""
    return load(run.last, device="cpu", dtype="float32")


def _image_model(config: TrainConfig, start: Loaded, run: RunFolder, is_new: bool) -> XCLIP | None:
    """The towers that the run starts from, with the frame mean; None if no step uses them.

    They are stored in the run's folder: a resumed run must find the same ones, even if `init` has changed since.
    """
    if not config.needs_image_model:
        return None
    if is_new:
        model, _ = expand(start.model, clip_only(start.model.config), config.seed)
        run.save_model(run.start, lambda folder: write_folder(folder, *start._replace(model=model)))
    run.processes.wait()
    loaded, _ = read_model(ModelSource(source=str(run.start), device="cpu", dtype="float32"))  # no warnings
    return loaded.model.to(start.model.logit_scale.device)


def _top1(start: Loaded, val: Manifest, texts: LabelTexts, config: DataConfig, model: XCLIP) -> float:
    """Validation accuracy of a model, with the tokenizer and preprocessing of the start."""
    model.eval()
    recognizer = Recognizer(Engine(start._replace(model=model)), texts, video_limits(config))
    return evaluate(recognizer, val, Views(dense_stride=config.dense_stride)).top1


def _frames(config: DataConfig, short_side_px: int) -> FrameSource:
    limits = video_limits(config)
    if config.cached_frames is None:
        return DecodedFrames(short_side_px, limits)
    return CachedFrames(short_side_px, config.cached_frames, limits)


def video_limits(config: DataConfig) -> VideoLimits:
    """Limits beyond which a training and its validation refuse videos."""
    return VideoLimits.given(max_seconds=config.max_seconds, max_frame_px=config.max_frame_px)


def _transform(config: DataConfig, start: Loaded) -> TrainTransform:
    return TrainTransform(
        input_size_px=start.preprocess.input_size_px,
        scales=config.crop_scales,
        uniform_crop=config.crop == "uniform",
        flip_probability=config.flip_probability,
        jitter_probability=config.jitter_probability,
        jitter_frames=config.jitter_frames,
        gray_probability=config.gray_probability,
    )
