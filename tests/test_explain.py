"""Explanations: the weights that are shown are those that are used, and what they say is true of moving shapes."""

import contextlib
import json
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from tiny import TINY, recognizer_of, tiny_model, tiny_pixels, tiny_tokenizer
from torch.testing import assert_close
from videos import write_video

import openxclip
from openxclip.cli.main import run
from openxclip.errors import InputError, VideoError
from openxclip.inference.explain import (
    explain_clip,
    explain_in_steps,
    ids_of,
    log_odds,
    without_each_frame,
    without_each_word,
)
from openxclip.inference.options import InferenceOptions
from openxclip.inference.views import Views
from openxclip.models.config import XCLIPConfig
from openxclip.models.layers import Attention, attend
from openxclip.models.prompting import CrossAttention
from openxclip.shapes.clip import ShapesClip
from openxclip.shapes.render import render
from openxclip.shapes.splits import WORLDS
from openxclip.video.sampling import centred
from openxclip.video.transforms import Preprocessor

LABELS = ["kilo made", "bade", "nero suki pita"]


def tiny_recognizer(config: XCLIPConfig = TINY, **settings):
    preprocess = Preprocessor.official(32)
    return recognizer_of(tiny_model(config), tiny_tokenizer(), preprocess, LABELS, **settings)


def explained(recognizer, clip, chosen):
    """Explanations of chosen labels."""
    return explain_clip(recognizer.engine, recognizer.texts, recognizer.label_set, clip, chosen, 0)[1]


@pytest.fixture(scope="module")
def clip():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)


# --- the weights that are shown are those that are used -------------------------------------------------------


def test_attention_weights_times_values_is_the_attention() -> None:
    torch.manual_seed(0)
    attention, x = Attention(12, 3), torch.randn(2, 5, 12)
    value = attention.qkv(x).chunk(3, dim=-1)[2].unflatten(-1, (3, 4)).transpose(1, 2)  # (B, H, L, D/H)
    out = attention.proj((attention.weights(x) @ value).transpose(1, 2).flatten(2))
    assert_close(out, attention(x))


def test_cross_attention_weights_times_values_is_the_attention() -> None:
    torch.manual_seed(0)
    attention, text, context = CrossAttention(12, 3), torch.randn(2, 4, 12), torch.randn(2, 7, 12)
    value = attention.value(context).unflatten(-1, (3, 4)).transpose(1, 2)
    out = attention.proj((attention.weights(text, context) @ value).transpose(1, 2).flatten(2))
    assert_close(out, attention(text, context))
    query, key = attention.query(text), attention.key(context)
    assert_close((attention.weights(text, context) @ value).transpose(1, 2).flatten(2),
                 attend(query, key, attention.value(context), 3))  # fmt: skip


def test_message_attention_is_the_mean_over_blocks_of_what_forward_uses() -> None:
    """Uniform where keys do not tell frames apart; and a frame that all others read alone gets all the weight."""
    model = tiny_model()
    pixels = tiny_pixels(num_videos=2)
    attention = model.visual.message_attention(pixels)
    assert attention.shape == (2, 4, 4)
    assert_close(attention.sum(dim=-1), torch.ones(2, 4))
    seen = []
    for block in model.visual.blocks:
        block.cross_attn.register_forward_pre_hook(
            lambda module, inputs: seen.append(module.weights(inputs[0]))
        )
    model.visual(pixels)
    assert_close(attention, torch.stack(seen).mean(dim=(0, 2)))


# --- what is measured ------------------------------------------------------------------------------------------


def test_log_odds() -> None:
    logits = torch.tensor([[2.0, 1.0, -1.0]])
    p = logits.softmax(-1)[0]
    assert_close(log_odds(logits, 1), (p[1] / (1 - p[1])).log()[None])
    assert_close(log_odds(logits[:, :1], 0), logits[:, 0])


def test_each_frame_gives_way_to_its_neighbour() -> None:
    variants = without_each_frame(torch.arange(4))
    assert variants.tolist() == [[0, 1, 2, 3], [1, 1, 2, 3], [0, 0, 2, 3], [0, 1, 1, 3], [0, 1, 2, 2]]
    assert without_each_frame(torch.arange(1)).tolist() == [[0], [0]]


def test_each_word_is_left_out_once_and_a_single_word_is_kept() -> None:
    assert without_each_word(["a b", "c"]) == [("a", ["b", "c"]), ("b", ["a", "c"])]
    assert without_each_word(["surfing"]) == []


@pytest.mark.on_cpu
def test_relevance_is_what_recognising_the_changed_video_gives(clip) -> None:
    """Frames and words against predictions of the changed clip and of the changed label list."""
    recognizer = tiny_recognizer()
    label = explained(recognizer, clip, [2])[0]

    def odds(pixels, labels):
        p = recognizer_of(tiny_model(), tiny_tokenizer(), Preprocessor.official(32), labels)
        return torch.logit(p.probabilities(pixels[None])[2].double())

    whole = odds(clip, LABELS)
    assert_close(torch.tensor(label.probability).double(), whole.sigmoid(), atol=1e-6, rtol=0)
    for t in range(4):
        changed = without_each_frame(clip)[t + 1]
        assert_close(label.frame_relevance[t].double(), whole - odds(changed, LABELS), atol=2e-4, rtol=0)
    assert [word for word, _ in label.words] == ["nero", "suki", "pita"]
    for (_, loss), rest in zip(label.words, ("suki pita", "nero pita", "nero suki"), strict=True):
        assert loss == pytest.approx(float(whole - odds(clip, [*LABELS[:2], rest])), abs=2e-4)


def test_sensitivity_is_the_gradient_and_maps_sum_to_one(clip) -> None:
    recognizer = tiny_recognizer()
    labels = explained(recognizer, clip, [0, 1])
    for label in labels:
        assert label.sensitivity.shape == (4, 2, 2)
        assert label.prompt_attention.shape == (2, 2)
        assert float(label.sensitivity.sum()) == pytest.approx(1, abs=1e-5)
        assert float(label.prompt_attention.sum()) == pytest.approx(1, abs=1e-5)
    # A pixel step along the gradient's sign changes the log-odds by about the sum of all absolute gradients.
    model = recognizer.engine.model
    pixels = recognizer.engine.preprocess.normalise(clip)[None].requires_grad_()
    score = log_odds(model(pixels, recognizer.engine.tokenizer(LABELS))[0], 0)
    (gradient,) = torch.autograd.grad(score, pixels)
    patches = gradient[0].abs().sum(dim=1).reshape(4, 2, 16, 2, 16).sum(dim=(2, 4))
    assert_close(labels[0].sensitivity, patches / patches.sum(), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "absent"),
    [
        ({"prompting": None}, "prompt_attention"),
        ({"vision": replace(TINY.vision, message_tokens=False)}, "message_attention"),
        ({"integration": None}, None),
        ({"num_frames": 1}, None),
    ],
)
def test_models_without_a_part_are_explained_by_the_others(change, absent, tmp_path) -> None:
    recognizer = tiny_recognizer(replace(TINY, **change))
    explanation = recognizer.explain(write_video(tmp_path / "a.mp4"), top_k=2)
    assert len(explanation.labels) == 2
    assert (explanation.message_attention is None) == (absent == "message_attention")
    assert (explanation.labels[0].prompt_attention is None) == (absent == "prompt_attention")
    assert explanation.labels[0].frame_relevance.isfinite().all()
    json.dumps(explanation.numbers())


def test_a_model_of_discrete_labels_has_no_words(tmp_path) -> None:
    recognizer = tiny_recognizer(replace(TINY, num_discrete_labels=3, prompting=None))
    explanation = recognizer.explain(write_video(tmp_path / "a.mp4"), labels=["bade"])
    assert [label.label for label in explanation.labels] == ["bade"]
    assert explanation.labels[0].words == ()


def test_descriptions_and_templates_lose_their_words(tmp_path) -> None:
    described = {LABELS[0]: ["su ki", "ro"], LABELS[1]: "de", LABELS[2]: "ve zo mu"}
    recognizer = tiny_recognizer(descriptions=described, templates=("a {}", "the {}"))
    explanation = recognizer.explain(write_video(tmp_path / "a.mp4"), labels=[LABELS[0]])
    assert [word for word, _ in explanation.labels[0].words] == ["su", "ki"]


@pytest.mark.parametrize(("num_words", "num_templates"), [(2, 1), (40, 1), (40, 30), (3, 100)])
def test_steps_are_small_and_as_many_as_they_say(num_words, num_templates, clip) -> None:
    """Words are left out at most 64 sentences at a time, one word at least: others wait no longer."""
    words = " ".join(f"ba{i}" for i in range(num_words))
    templates = tuple(f"{'de ' * i}{{}}" for i in range(num_templates))
    recognizer = recognizer_of(
        tiny_model(), tiny_tokenizer(), Preprocessor.official(32), [words, "lo"], templates=templates
    )
    steps = explain_in_steps(recognizer.engine, recognizer.texts, recognizer.label_set, clip, [0, 1], 0)
    said = []
    with contextlib.suppress(StopIteration):
        while True:
            said.append(next(steps))
    assert said == [len(said)] * len(said)
    at_once = max(1, 64 // num_templates)
    batches_of_frames = -(-5 // recognizer.engine.flow.batch_size)
    assert len(said) == 2 + batches_of_frames + 2 + -(-num_words // at_once)


def test_a_shortlist_does_not_hide_labels_from_their_explanation(tmp_path) -> None:
    recognizer = tiny_recognizer(options=InferenceOptions(shortlist=1))
    for label in recognizer.explain(write_video(tmp_path / "a.mp4"), labels=LABELS).labels:
        assert label.frame_relevance.isfinite().all()


def test_wrong_requests_are_refused(tmp_path) -> None:
    recognizer = tiny_recognizer()
    video = write_video(tmp_path / "a.mp4")
    with pytest.raises(InputError, match=r"'badee' is not one of the labels; the nearest is 'bade'"):
        recognizer.explain(video, labels=["badee"])
    with pytest.raises(InputError, match="top_k must be at least 1"):
        recognizer.explain(video, top_k=0)
    with pytest.raises(VideoError, match="no such file"):
        recognizer.explain(tmp_path / "none.mp4")
    assert ids_of(LABELS, ["BADE "]) == [1]


def test_an_explanation_is_the_same_each_time(tmp_path) -> None:
    recognizer, video = tiny_recognizer(), write_video(tmp_path / "a.mp4")
    assert recognizer.explain(video).numbers() == recognizer.explain(video).numbers()


# --- it means something: moving shapes ------------------------------------------------------------------------

TOUCHED = 0.1  # share of a patch that the moving thing must cover
NUM_CLIPS = 100


@pytest.fixture(scope="module")
def shapes_recognizer():
    source = openxclip.ModelSource(source="openxclip-tiny", dtype="float32")
    return openxclip.Recognizer.from_pretrained(source, [kind.name for kind in WORLDS["full"].novel])


def novel_clips() -> list[ShapesClip]:
    """Clips of novel classes, drawn once and for all."""
    rng, novel = np.random.default_rng(0), WORLDS["full"].novel
    return [ShapesClip(kind=novel[rng.integers(len(novel))], key=f"explain-{i}") for i in range(NUM_CLIPS)]


def coverage(clip: ShapesClip, grid: int, num_frames: int) -> np.ndarray:
    """The share of each patch (T, h, w) that the moving thing covers: what changes where it is not there."""
    scene, side = clip.scene(), 32 * grid
    times = (centred(32, num_frames) + 0.5) / 32
    absent = replace(scene, thing=replace(scene.thing, radius=1e-4))
    change = np.abs(render(scene, times, side).astype(int) - render(absent, times, side)).sum(axis=-1)
    return (change > 30).reshape(num_frames, grid, 32, grid, 32).mean(axis=(2, 4))


@pytest.mark.on_cpu
def test_the_heat_of_the_right_label_falls_on_the_moving_thing(shapes_recognizer) -> None:
    """docs/explaining.md has the figures; chance is the share of all patches that the thing touches."""
    maps = []
    for clip in novel_clips():
        views = shapes_recognizer.engine.read_views(clip.read, Views())
        right = shapes_recognizer.labels.index(clip.kind.name)
        label = explained(shapes_recognizer, views[0], [right])[0]
        num_frames, grid = label.sensitivity.shape[:2]
        maps.append((label, coverage(clip, grid, num_frames)))
    for least in (TOUCHED, 0.25):
        prompt, ever, score, now = np.mean([hits(*pair, least) for pair in maps], axis=0)
        print(
            f"top patch on the moving thing ({least:.0%} covered): of the prompt's attention {prompt:.1%} (chance "
            f"{ever:.1%}), of the score's sensitivity {score:.1%} (chance {now:.1%})"
        )
        if least == TOUCHED:
            assert prompt >= 0.8 > ever + 0.2
            assert score >= 0.8 > now + 0.2


def hits(label, coverage: np.ndarray, least: float) -> tuple[float, float, float, float]:
    """Shares of top patches that the thing covers, and of all patches: for the prompt's map, then for the score's."""
    covered = (coverage > least).reshape(len(coverage), -1)
    ever = covered.any(axis=0)  # the prompt reads the mean over frames
    tops = label.sensitivity.flatten(1).argmax(dim=1).numpy()
    on_top = covered[np.arange(len(tops)), tops]
    return ever[label.prompt_attention.reshape(-1).argmax()], ever.mean(), on_top.mean(), covered.mean()


@pytest.mark.on_cpu
def test_noise_of_two_seeds_hardly_changes_the_ranking_of_frames(shapes_recognizer) -> None:
    """Camera noise in the file, one level of 255: frames of nearly equal relevance may change places."""
    correlations, same_first = [], []
    for clip in novel_clips():
        right = shapes_recognizer.labels.index(clip.kind.name)
        pixels, first = clip.frames(np.arange, 128), []
        ranks = []
        for seed in (1, 2):
            noise = np.random.default_rng(seed).normal(size=pixels.shape)
            noisy = np.clip(np.round(pixels + noise), 0, 255).astype(np.uint8).transpose(0, 3, 1, 2)
            views = shapes_recognizer.engine.read_views(lambda choose, _, f=noisy: f[choose(len(f))], Views())
            relevance = explained(shapes_recognizer, views[0], [right])[0].frame_relevance
            ranks.append(relevance.argsort().argsort().double())
            first.append(int(relevance.argmax()))
        correlations.append(float(torch.corrcoef(torch.stack(ranks))[0, 1]))
        same_first.append(first[0] == first[1])
    exact = np.mean(np.array(correlations) > 1 - 1e-9)
    print(
        f"ranking of frames under two seeds of noise: identical for {exact:.0%} of clips, first frame the same for "
        f"{np.mean(same_first):.0%}, rank correlation {np.mean(correlations):.3f} on average, {min(correlations):.2f} "
        "at least"
    )
    assert np.mean(correlations) > 0.95
    assert np.mean(same_first) > 0.9


# --- the command ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    path.write_bytes(novel_clips()[0].encode())
    return path, novel_clips()[0].kind.name


@pytest.mark.parametrize("film", ["webp", "mp4", "none"])
def test_the_command_writes_pictures_and_numbers(film, rendered, tmp_path, capsys) -> None:
    path, name = rendered
    arguments = [
        "explain",
        str(path),
        "--labels",
        f"{name}, white bar falling, a $5 sign",
        "--model",
        "openxclip-tiny",
    ]
    assert run([*arguments, "--output", str(tmp_path / "out"), "--film", film, "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers == json.loads((tmp_path / "out" / "explanation.json").read_text(encoding="utf-8"))
    assert numbers["labels"][0]["label"] == name
    assert np.shape(numbers["labels"][0]["sensitivity"]) == (8, 4, 4)
    films = sorted((tmp_path / "out").glob("label-*"))
    assert len(films) == (0 if film == "none" else 3)
    assert {file.name for file in (tmp_path / "out").iterdir()} - {film.name for film in films} == {
        "explanation.png",
        "explanation.json",
    }
    if film == "mp4":
        with av.open(str(films[0])) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == 8
        assert frames[0].shape == (256, 256, 3)
    if film == "webp":
        assert films[0].read_bytes()[8:12] == b"WEBP"
        assert films[0].read_bytes().count(b"ANMF") == 8


def test_the_command_says_what_is_wrong(rendered, tmp_path, capsys) -> None:
    path, name = rendered
    arguments = ["explain", str(path), "--labels", f"{name}, nothing", "--model", "openxclip-tiny"]
    assert run([*arguments, "--explain", "nothin"]) == 2
    assert "the nearest is 'nothing'" in capsys.readouterr().err
    assert run([*arguments, "--top-k", "0"]) == 2
    (tmp_path / "notes.txt").write_text("no video")
    assert (
        run(["explain", str(tmp_path / "notes.txt"), *arguments[2:], "--output", str(tmp_path / "out")]) == 1
    )
    assert "notes.txt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
