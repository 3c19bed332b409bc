"""From labels and videos to predictions: against naive loops, and as somebody impatient would use it."""

import copy
import threading
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import pytest
import torch
from tiny import TINY, label_features_of, recognizer_of, tiny_model, tiny_tokenizer
from videos import moving_frames, write_video

import openxclip
from openxclip import Prediction, Recognizer, VideoError
from openxclip.checkpoints.load import Loaded
from openxclip.checkpoints.source import ModelSource
from openxclip.data.media import FileMedia
from openxclip.errors import CheckpointError, InputError
from openxclip.inference.engine import Engine, cpu_batch_size
from openxclip.inference.label_set import label_features
from openxclip.inference.options import InferenceOptions
from openxclip.inference.views import Views
from openxclip.inference.views import read_views as read_views_of
from openxclip.models import XCLIP, preset
from openxclip.models.xclip import VideoFeatures
from openxclip.text.label_texts import LabelTexts
from openxclip.text.templates import BUILT_IN_TEMPLATES
from openxclip.video import Preprocessor, VideoLimits

LABELS = ["playing piano", "surfing", "juggling balls", "ba", "de ki", "brushing teeth", "zovezo"]
PREPROCESS = Preprocessor.official(TINY.vision.image_size_px)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def recognizer(model, tokenizer) -> Recognizer:
    return recognizer_of(model, tokenizer, PREPROCESS, LABELS)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    """Landscape, portrait, one shorter than a clip, and a long one."""
    folder = tmp_path_factory.mktemp("videos")
    shapes = {"landscape": (64, 48, 30), "portrait": (48, 80, 17), "short": (64, 48, 2), "long": (64, 64, 61)}
    return [
        write_video(folder / f"{name}.mp4", frames=moving_frames(num_frames, width, height, seed=height))
        for name, (width, height, num_frames) in shapes.items()
    ]


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("broken") / "broken.mp4"
    path.write_bytes(b"no video")
    return path


def naive_views(path: Path, num_clips: int, num_crops: int, size: int = 32) -> torch.Tensor:
    """Every view uint8 (V, T, 3, S, S) from a plain decode, frame by frame."""
    short_side = 37 if num_crops == 1 else 32  # 256 / 224 of the input size, or the input size itself
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            scale = short_side / min(frame.width, frame.height)
            width, height = int(frame.width * scale + 0.5), int(frame.height * scale + 0.5)
            rgb = frame.reformat(width, height, "gbrp", interpolation="BILINEAR")
            frames.append(torch.from_numpy(rgb.to_ndarray()).permute(2, 0, 1))
    num_samples = TINY.num_frames
    height, width = frames[0].shape[1:]
    views = []
    for clip in range(num_clips):
        indices = [
            int((t + Fraction(2 * clip + 1, 2 * num_clips)) * Fraction(len(frames), num_samples))
            for t in range(num_samples)
        ]
        for crop in range(num_crops):
            step = 1 if num_crops == 1 else crop  # 0 start, 1 centre, 2 end of the longer side
            top, left = (height - size) // 2, (width - size) // 2
            top, left = (top * step, left) if height > width else (top, left * step)
            views.append(torch.stack([frames[i][:, top : top + size, left : left + size] for i in indices]))
    return torch.stack(views)


def read_views(
    path: Path, preprocess: Preprocessor, num_frames: int, views: Views, limits: VideoLimits | None = None
) -> torch.Tensor:
    """The views of a file."""
    read = partial(FileMedia(path).read, limits=limits)
    return read_views_of(read, preprocess, num_frames, views)


# Views


@pytest.mark.parametrize(
    ("text", "views"),
    [("1x1", Views(1, 1)), (" 4x3 ", Views(4, 3)), ("10x1", Views(10, 1)), ("3x1@16", Views(3, 1, 16))],
)
def test_views_are_read_from_text(text, views):
    assert Views.parse(text) == views


@pytest.mark.parametrize(
    "text", ["", "1", "x", "1x", "x1", "1x1x1", "a4x3", "4 x 3", "-1x1", "4X3", "1.0x1", "3x1@", "3x1@0"]
)
def test_views_of_another_form_are_refused(text):
    with pytest.raises(InputError, match=r"cannot read views .*for example 1x1 or 4x3"):
        Views.parse(text)


@pytest.mark.parametrize("text", ["0x1", "0x3", "1x0", "1x2", "4x4", "1x33"])
def test_impossible_views_are_refused(text):
    with pytest.raises(InputError, match=f"views {text}: clips must be 1 to 100, crops 1 or 3"):
        Views.parse(text)


@pytest.mark.parametrize("views", [Views(1, 1), Views(3, 1), Views(1, 3), Views(2, 3)], ids=str)
def test_views_hold_exactly_the_pixels_of_a_plain_decode_clip_by_clip(videos, views):
    for path in videos:
        pixels = read_views(path, PREPROCESS, TINY.num_frames, views)
        assert pixels.dtype == torch.uint8
        expected = naive_views(path, views.num_clips, views.num_crops)
        assert pixels.shape == expected.shape == (views.num_clips * views.num_crops, 4, 3, 32, 32)
        assert torch.equal(pixels, expected), path.name


def test_the_views_of_a_video_differ(videos):
    pixels = read_views(videos[1], PREPROCESS, TINY.num_frames, Views(2, 3))
    assert len({view.numpy().tobytes() for view in pixels}) == 6


@pytest.mark.parametrize("stride", [1, 3])
def test_dense_views_are_neighbouring_frames_of_the_middle(videos, stride):
    assert Views(dense_stride=3).indices(61, 4).tolist() == [[25, 28, 31, 34]]
    assert Views(dense_stride=3).indices(2, 4).tolist() == [[0, 1, 1, 1]]
    for path, length in zip(videos, (30, 17, 2, 61), strict=True):
        every = read_views(path, PREPROCESS, length, Views(1, 3))  # one view of as many frames as there are
        assert len({frame.numpy().tobytes() for frame in every[0]}) == length
        views = Views(1, 3, dense_stride=stride)
        expected = every[:, views.indices(length, 4)[0]]
        assert torch.equal(read_views(path, PREPROCESS, 4, views), expected), path.name


def test_several_dense_views_are_spread_over_the_video():
    """Windows of 10 frames in 61: the room of 51 in quarters, as the tests of SlowFast's code begin."""
    indices = Views(4, 1, dense_stride=3).indices(61, 4)
    assert indices[:, 0].tolist() == [0, 12, 25, 38]
    assert (indices[:, 1:] - indices[:, :-1] == 3).all()
    assert Views(2, 1, dense_stride=3).indices(2, 4).tolist() == [[0, 1, 1, 1]] * 2


def test_limits_hold_for_views(videos):
    with pytest.raises(VideoError, match=r"long\.mp4: .*max_seconds=0\.5"):
        read_views(videos[3], PREPROCESS, 4, Views(), limits=VideoLimits(max_seconds=0.5))


# Labels


def test_one_template_gives_the_features_of_the_model_itself(model, tokenizer):
    features = label_features_of(model, tokenizer, LABELS, ["{}"])
    with torch.no_grad():
        assert torch.equal(features, model.encode_text(tokenizer(LABELS)))
        other = label_features_of(model, tokenizer, LABELS, ["a video of {}."])
        assert torch.equal(other, model.encode_text(tokenizer([f"a video of {name}." for name in LABELS])))
    assert not torch.equal(features, other)


def test_an_ensemble_is_the_mean_direction_at_the_mean_length(model, tokenizer):
    templates = BUILT_IN_TEMPLATES["video"]
    features = label_features_of(model, tokenizer, LABELS, templates)
    for label, feature in zip(LABELS, features, strict=True):
        directions, lengths = [], []
        for template in templates:
            with torch.no_grad():
                (one,) = model.encode_text(tokenizer([template.replace("{}", label)]))
            length = one.square().sum().sqrt()
            directions.append(one / length)
            lengths.append(length)
        mean = sum(directions) / len(templates)
        expected = mean / mean.square().sum().sqrt() * (sum(lengths) / len(templates))
        assert torch.allclose(feature, expected, atol=1e-5)


DESCRIPTIONS = {label: [f"somebody is {label}"] for label in LABELS} | {
    "surfing": ["a wave", "a board on a wave", "water and somebody on it"],
    "ba": "ba ba",
}


@pytest.mark.parametrize("templates", [["{}"], ["a video of {}.", "here: {}"]], ids=len)
def test_a_described_label_is_the_mean_direction_of_its_texts(model, tokenizer, templates):
    recognizer = recognizer_of(model, tokenizer, PREPROCESS, LABELS, templates, descriptions=DESCRIPTIONS)
    for label, feature in zip(LABELS, recognizer.label_set.features, strict=True):
        texts = DESCRIPTIONS[label]
        texts = [texts] if isinstance(texts, str) else texts
        sentences = [template.replace("{}", text) for text in texts for template in templates]
        with torch.no_grad():
            ones = torch.stack([model.encode_text(tokenizer([sentence]))[0] for sentence in sentences])
        mean = sum(one / one.norm() for one in ones) / len(ones)
        expected = mean / mean.norm() * sum(one.norm() for one in ones) / len(ones)
        assert torch.allclose(feature, expected, atol=1e-5)


def test_one_text_a_label_gives_the_features_of_the_model_itself(model, tokenizer):
    descriptions = {label: (f"somebody is {label}",) for label in LABELS}
    features = label_features_of(model, tokenizer, LABELS, ["{}"], descriptions=descriptions)
    with torch.no_grad():
        assert torch.equal(features, model.encode_text(tokenizer([f"somebody is {name}" for name in LABELS])))


def test_a_described_prediction_shows_the_labels(model, tokenizer, recognizer, videos):
    described = recognizer_of(model, tokenizer, PREPROCESS, LABELS, descriptions=DESCRIPTIONS)
    scores = described.predict(videos[0], top_k=7).scores
    assert sorted(label for label, _ in scores) == sorted(LABELS)
    assert dict(scores) != dict(recognizer.predict(videos[0], top_k=7).scores)


@pytest.mark.parametrize(
    ("descriptions", "message"),
    [
        ({"surfing": "a wave"}, "6 of 7 labels have no description: 'playing piano'"),
        (
            {label: [] for label in LABELS},
            "descriptions: 'playing piano': expected a text or a list of texts",
        ),
        ([], "descriptions: expected labels with their texts"),
    ],
)
def test_descriptions_that_are_none(model, tokenizer, descriptions, message):
    with pytest.raises(InputError, match=message):
        recognizer_of(model, tokenizer, PREPROCESS, LABELS, descriptions=descriptions)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_the_batch_size_does_not_matter(model, tokenizer, batch_size):
    templates = BUILT_IN_TEMPLATES["video"][:2]
    whole = label_features_of(model, tokenizer, LABELS, templates)
    tokens = tokenizer([template.replace("{}", label) for label in LABELS for template in templates])
    with torch.no_grad():
        features = label_features(model, tokens, [2] * len(LABELS), batch_size)
    assert torch.allclose(features, whole, atol=1e-5)


@pytest.mark.parametrize(
    ("templates", "message"), [("a {}", "for a single one pass"), ([], "at least one"), (["a"], "once")]
)
def test_templates_that_are_none(model, tokenizer, templates, message):
    with pytest.raises(InputError, match=message):
        recognizer_of(model, tokenizer, PREPROCESS, LABELS, templates=templates)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "no labels found"),
        ("surfing", r"expected a list of strings, got 'surfing'. For one label pass \[label\]"),
        (["surfing", "piano", "surfing"], "more than once: surfing, surfing"),
        (["surfing", "Surfing "], "more than once: surfing, Surfing"),
        (["surfing", " "], "label 1 .* is empty"),
        ([1, 2], "expected a list of strings"),
    ],
)
def test_labels_that_are_none(model, tokenizer, labels, message):
    with pytest.raises(InputError, match=message):
        recognizer_of(model, tokenizer, PREPROCESS, labels)


# Recognition


@pytest.mark.parametrize("views", ["1x1", "2x3"])
def test_probabilities_are_the_mean_softmax_over_views(recognizer, model, tokenizer, videos, views):
    tokens = tokenizer(LABELS)
    for path in videos:
        num_clips, num_crops = map(int, views.split("x"))
        total = torch.zeros(len(LABELS))
        for view in naive_views(path, num_clips, num_crops):
            pixels = torch.stack([(v / 255 - m) / s for v, m, s in rgb_parts(view)], dim=1)
            with torch.no_grad():
                total += model(pixels[None], tokens)[0].softmax(dim=-1)
        expected = total / (num_clips * num_crops)
        prediction = recognizer.predict(path, top_k=len(LABELS), views=views)
        assert prediction.path == str(path)
        assert prediction.error is None
        found = dict(prediction.scores)
        assert [found[label] for label in LABELS] == pytest.approx(expected.tolist(), abs=1e-5)
        assert sum(found.values()) == pytest.approx(1, abs=1e-5)
        assert list(found.values()) == sorted(found.values(), reverse=True)


def rgb_parts(view: torch.Tensor):
    """Each channel of (T, 3, S, S) with its mean and deviation."""
    return zip(view.float().unbind(1), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)


def test_two_recognizers_on_one_model_keep_to_themselves(recognizer, model, tokenizer, videos):
    before = recognizer.predict(videos[0], top_k=9)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = recognizer_of(model, tokenizer, PREPROCESS, ["zo", "ve"], templates=BUILT_IN_TEMPLATES["video"])
    assert {label for label, _ in other.predict(videos[0]).scores} == {"zo", "ve"}
    assert recognizer.predict(videos[0], top_k=9) == before
    assert not model.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("top_k", [1, 3, 7, 1000])
def test_top_k_takes_the_best(recognizer, videos, top_k):
    everything = recognizer.predict(videos[0], top_k=7).scores
    assert len(everything) == 7
    assert recognizer.predict(str(videos[0]), top_k=top_k).scores == everything[:top_k]


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("top_k", [0, -1])
def test_fewer_than_one_label_is_refused(recognizer, videos, top_k, many):
    with pytest.raises(InputError, match=f"top_k must be at least 1, got {top_k}"):
        recognizer.predict(videos if many else videos[0], top_k=top_k)


def test_equal_scores_come_in_the_order_of_the_labels(videos, tokenizer):
    model = tiny_model()
    with torch.no_grad():
        model.logit_scale.fill_(-100.0)  # exp(-100) of anything: all labels score alike
    scores = recognizer_of(model, tokenizer, PREPROCESS, LABELS).predict(videos[0]).scores
    assert [label for label, _ in scores] == LABELS[:5]
    assert [score for _, score in scores] == pytest.approx([1 / 7] * 5)


def test_one_path_gives_a_prediction_or_raises(recognizer, videos, broken):
    assert isinstance(recognizer.predict(videos[0]), Prediction)
    assert recognizer.predict(str(videos[0])) == recognizer.predict(videos[0])
    for bad in (broken, str(broken), broken.parent, broken.with_name("nowhere.mp4")):
        with pytest.raises(VideoError, match=str(bad)):
            recognizer.predict(bad)


def test_a_list_gives_a_list_in_order_with_errors_in_their_places(recognizer, videos, broken):
    missing = broken.with_name("nowhere.mp4")
    paths = [broken, videos[0], str(videos[1]), missing, videos[2], broken, videos[0]]
    predictions = recognizer.predict(paths)
    assert [p.path for p in predictions] == [str(path) for path in paths]
    assert [p.error is not None for p in predictions] == [True, False, False, True, False, True, False]
    assert [len(p.scores) for p in predictions] == [0, 5, 5, 0, 5, 0, 5]
    assert "damaged" in predictions[0].error
    assert "no such file" in predictions[3].error
    alone = recognizer.predict(videos[0])
    for prediction in (predictions[1], predictions[6]):  # beside others in a batch
        assert [label for label, _ in prediction.scores] == [label for label, _ in alone.scores]
        assert dict(prediction.scores) == pytest.approx(dict(alone.scores), abs=1e-5)
    assert recognizer.predict([]) == []
    assert recognizer.predict((videos[0],)) == [alone]


def test_with_batches_of_one_many_videos_get_exactly_what_each_gets_alone(model, tokenizer, videos):
    options = InferenceOptions(batch_size=1)
    recognizer = recognizer_of(model, tokenizer, PREPROCESS, LABELS, options=options)
    assert recognizer.predict(videos, top_k=7) == [recognizer.predict(path, top_k=7) for path in videos]


@pytest.mark.parametrize("batch_size", [2, 3, 100])
@pytest.mark.parametrize("views", ["1x1", "2x3"])
def test_the_batch_size_changes_nothing_but_rounding(model, tokenizer, recognizer, videos, batch_size, views):
    options = InferenceOptions(batch_size=batch_size)
    batched = recognizer_of(model, tokenizer, PREPROCESS, LABELS, options=options)
    for together, path in zip(batched.predict(videos, top_k=7, views=views), videos, strict=True):
        alone = recognizer.predict(path, top_k=7, views=views)
        assert dict(together.scores) == pytest.approx(dict(alone.scores), abs=1e-5)


def test_predictions_can_come_in_any_order(recognizer, videos, broken):
    paths = [*videos, broken]
    found = {p.path: p for p in recognizer.predict_each(paths, ordered=False)}
    assert found.keys() == {str(path) for path in paths}
    assert found[str(broken)].error is not None


def test_many_label_sets_share_one_engine(model, tokenizer, videos):
    engine = Engine(Loaded(model, tokenizer, PREPROCESS))
    first, second = Recognizer(engine, LABELS[:3]), Recognizer(engine, LABELS[3:])
    assert first.engine.runtime is second.engine.runtime
    assert {label for label, _ in first.predict(videos[0]).scores} == set(LABELS[:3])
    assert {label for label, _ in second.predict(videos[0]).scores} == set(LABELS[3:])


@pytest.mark.parametrize("name", ["batch_size", "shortlist"])
def test_counts_of_options_are_at_least_one(name):
    with pytest.raises(InputError, match=f"{name} must be at least 1"):
        InferenceOptions(**{name: 0}).check().check()


@pytest.mark.parametrize(
    ("name", "dtype", "size"),
    [
        ("B/32-8", torch.float32, 1),
        ("L/14-8", torch.float32, 1),
        (None, torch.float32, 16),
        ("B/32-8", torch.bfloat16, 7),
        ("B/16-8", torch.bfloat16, 2),
        ("L/14-8", torch.bfloat16, 1),
    ],
)
def test_a_large_tower_gets_few_views_at_once_on_a_cpu_and_a_tiny_one_many(name, dtype, size):
    config = TINY if name is None else preset(name)
    assert cpu_batch_size(config, dtype) == size


def test_wrong_views_are_refused_at_the_call_and_not_at_the_first_video(recognizer):
    with pytest.raises(InputError, match="cannot read views 'all'"):
        recognizer.predict_each(["nowhere.mp4"], views="all")


def test_limits_are_the_recognizers(model, tokenizer, videos):
    strict = recognizer_of(model, tokenizer, PREPROCESS, LABELS, limits=VideoLimits(max_seconds=0.3))
    short, long = strict.predict([videos[2], videos[3]])
    assert short.error is None
    assert "max_seconds=0.3" in long.error


def test_output_that_is_no_number_is_an_error_and_not_a_score(tokenizer, videos):
    model = tiny_model()
    with torch.no_grad():
        model.visual.proj.weight.fill_(float("nan"))
    with pytest.raises(
        CheckpointError, match=r"NaN: its weights are damaged, or too large for its precision"
    ):
        recognizer_of(model, tokenizer, PREPROCESS, LABELS).predict(videos)


@pytest.mark.on_cpu
def test_from_pretrained_is_load_and_the_constructor(recognizer, model, tokenizer, videos, tmp_path):
    openxclip.save_as(tmp_path / "model", model, tokenizer, PREPROCESS)
    float32 = ModelSource(source=str(tmp_path / "model"), dtype="float32")
    loaded = Recognizer.from_pretrained(float32, LABELS)
    assert loaded.predict(videos, views="1x3") == recognizer.predict(videos, views="1x3")
    half = replace(float32, device="cpu", dtype="bfloat16", num_frames=6)
    other = Recognizer.from_pretrained(half, LABELS, ["a {}"])
    assert other.label_set.features.dtype == torch.bfloat16
    assert other.read(videos[0], Views(2, 1)).shape == (2, 6, 3, 32, 32)
    assert len(other.predict(videos[0]).scores) == 5


# Many videos


def test_predictions_that_nobody_waits_for_are_not_made(recognizer, videos):
    predictions = recognizer.predict_each(path for path in videos * 20)
    assert next(predictions).path == str(videos[0])
    del predictions
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


class UnexpectedError(Exception):
    """Anything but a VideoError."""


def test_errors_of_the_list_of_videos_are_not_swallowed(recognizer, videos):
    def paths():
        yield videos[0]
        raise UnexpectedError("lost the list")

    with pytest.raises(UnexpectedError, match="lost the list"):
        list(recognizer.predict_each(paths()))


def test_predictions_are_the_same_every_time(recognizer, videos):
    runs = [recognizer.predict(videos, views="3x3", top_k=7) for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0] == [recognizer.predict(path, views="3x3", top_k=7) for path in videos]


def test_labels_in_another_order_get_the_same_probabilities(model, tokenizer, videos):
    forward = recognizer_of(model, tokenizer, PREPROCESS, LABELS).predict(videos[0], top_k=7)
    backward = recognizer_of(model, tokenizer, PREPROCESS, LABELS[::-1]).predict(videos[0], top_k=7)
    assert dict(forward.scores) == pytest.approx(dict(backward.scores), abs=1e-6)


class OtherEngine:
    """A runtime of another engine: it computes in float32 whatever the model's type."""

    def __init__(self, model: XCLIP, preprocess: Preprocessor) -> None:
        self.model, self.preprocess = copy.deepcopy(model).float(), preprocess
        self.device = torch.device("cpu")

    def encode_video(self, pixels: torch.Tensor) -> VideoFeatures:
        return self.model.encode_video(self.preprocess.normalise(pixels))


def test_a_runtime_may_compute_in_another_type_than_the_model():
    model = tiny_model().bfloat16().eval()
    engine = Engine(Loaded(model, tiny_tokenizer(), PREPROCESS))
    labels = engine.label_set(LabelTexts(labels=["ba", "zo"]))
    pixels = torch.randint(
        0,
        256,
        (2, TINY.num_frames, 3, TINY.vision.image_size_px, TINY.vision.image_size_px),
        dtype=torch.uint8,
    )
    own = engine.logits(pixels, labels)
    engine.runtime = OtherEngine(model, PREPROCESS)
    assert torch.allclose(engine.logits(pixels, labels), own, atol=0.5)
