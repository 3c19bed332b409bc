"""Samplers against the published formulas written as naive loops, and what they promise for any input."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openxclip.errors import InputError
from openxclip.video import sampling

frame_counts = st.integers(1, 2000)
sample_counts = st.integers(1, 64)
seeds = st.integers(0, 2**32 - 1)


def assert_indices(indices: np.ndarray, shape: tuple[int, ...], num_frames: int) -> None:
    assert indices.dtype == np.int64
    assert indices.shape == shape
    assert indices.min() >= 0
    assert indices.max() < num_frames
    assert (np.diff(indices, axis=-1) >= 0).all()


@pytest.mark.parametrize("num_samples", [8, 16, 32])
def test_centred_is_the_published_formula(num_samples: int) -> None:
    for num_frames in range(1, 700):
        interval = num_frames / num_samples
        expected = [int(i * interval + interval / 2) % num_frames for i in range(num_samples)]
        assert sampling.centred(num_frames, num_samples).tolist() == expected


def test_known_values() -> None:
    assert sampling.centred(300, 8).tolist() == [18, 56, 93, 131, 168, 206, 243, 281]
    assert sampling.centred(3, 8).tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert sampling.multi_view(16, 4, 2).tolist() == [[1, 5, 9, 13], [3, 7, 11, 15]]
    assert sampling.dense(100, 4, 8).tolist() == [37, 45, 53, 61]
    assert sampling.dense(10, 4, 5).tolist() == [0, 5, 9, 9]


@given(frame_counts, sample_counts, st.integers(1, 6))
def test_multi_view_takes_its_place_in_each_segment(
    num_frames: int, num_samples: int, num_clips: int
) -> None:
    views = sampling.multi_view(num_frames, num_samples, num_clips)
    assert_indices(views, (num_clips, num_samples), num_frames)
    interval = Fraction(num_frames, num_samples)
    for clip in range(num_clips):
        place = Fraction(2 * clip + 1, 2 * num_clips)
        assert views[clip].tolist() == [floor((i + place) * interval) for i in range(num_samples)]
    assert (np.diff(views, axis=0) >= 0).all(), "later clips look later"


@given(frame_counts, sample_counts)
def test_one_view_is_centred(num_frames: int, num_samples: int) -> None:
    centred = sampling.centred(num_frames, num_samples)
    assert_indices(centred, (num_samples,), num_frames)
    np.testing.assert_array_equal(sampling.multi_view(num_frames, num_samples, 1)[0], centred)


@given(frame_counts, sample_counts, seeds)
def test_sparse_train_draws_one_frame_of_each_segment(num_frames: int, num_samples: int, seed: int) -> None:
    indices = sampling.sparse_train(num_frames, num_samples, np.random.default_rng(seed))
    length = num_frames // num_samples
    if length:
        assert_indices(indices, (num_samples,), num_frames)
        assert (indices // length).tolist() == list(range(num_samples))
    else:
        even = [round(i * num_frames / num_samples) % num_frames for i in range(num_samples)]
        assert indices.tolist() == even


def test_a_short_video_is_drawn_as_released() -> None:
    rng = np.random.default_rng(0)
    assert sampling.sparse_train(5, 8, rng).tolist() == [0, 1, 1, 2, 2, 3, 4, 4]
    assert sampling.sparse_train(3, 8, rng).tolist() == [0, 0, 1, 1, 2, 2, 2, 0], "wraps to the first frame"


def test_sparse_train_reaches_every_frame_of_its_segments() -> None:
    rng = np.random.default_rng(0)
    seen = {i for _ in range(200) for i in sampling.sparse_train(19, 4, rng).tolist()}
    assert seen == set(range(16)), "segments of floor(19 / 4) frames, as published"


@given(frame_counts, sample_counts, st.integers(1, 16), seeds)
def test_dense_is_a_window(num_frames: int, num_samples: int, stride: int, seed: int) -> None:
    drawn = sampling.dense(num_frames, num_samples, stride, np.random.default_rng(seed))
    middle = sampling.dense(num_frames, num_samples, stride)
    span = (num_samples - 1) * stride + 1
    for indices in (drawn, middle):
        assert_indices(indices, (num_samples,), num_frames)
        if span <= num_frames:
            assert (np.diff(indices) == stride).all()
        else:
            assert indices.tolist() == [min(i * stride, num_frames - 1) for i in range(num_samples)]
    if span <= num_frames:
        before, after = middle[0], num_frames - 1 - middle[-1]
        assert after - before in (0, 1)


def test_dense_draws_every_window() -> None:
    rng = np.random.default_rng(0)
    assert {int(sampling.dense(12, 4, 3, rng)[0]) for _ in range(100)} == {0, 1, 2}


@given(frame_counts, sample_counts, st.integers(1, 4), seeds)
def test_random_views_are_training_draws(
    num_frames: int, num_samples: int, num_clips: int, seed: int
) -> None:
    views = sampling.multi_view_random(num_frames, num_samples, num_clips, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    expected = [sampling.sparse_train(num_frames, num_samples, rng) for _ in range(num_clips)]
    np.testing.assert_array_equal(views, np.stack(expected))


@given(sample_counts, seeds)
def test_a_video_of_one_frame_gives_that_frame(num_samples: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for indices in (
        sampling.centred(1, num_samples),
        sampling.sparse_train(1, num_samples, rng),
        sampling.dense(1, num_samples, 4, rng),
        sampling.multi_view(1, num_samples, 4),
        sampling.multi_view_random(1, num_samples, 4, rng),
    ):
        assert not indices.any()


def test_arguments_are_checked() -> None:
    rng = np.random.default_rng(0)
    for call, name in (
        (lambda: sampling.centred(0, 8), "num_frames"),
        (lambda: sampling.centred(8, 0), "num_samples"),
        (lambda: sampling.sparse_train(-1, 8, rng), "num_frames"),
        (lambda: sampling.dense(8, 8, 0), "stride"),
        (lambda: sampling.multi_view(8, 8, 0), "num_clips"),
        (lambda: sampling.multi_view_random(8, 8, 0, rng), "num_clips"),
    ):
        with pytest.raises(InputError, match=f"{name} is .*; it must be 1 or greater"):
            call()
